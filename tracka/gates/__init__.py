"""What must be true on disk after each phase, and the handoffs that say so."""
