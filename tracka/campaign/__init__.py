"""What the user defines: matrix, settings, and every path of a campaign."""
