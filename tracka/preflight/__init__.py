"""Whether this host can run the campaign: every check with its evidence and remedy."""
