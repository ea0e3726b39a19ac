"""Child processes: what they see, which GPU they hold, and who ends them."""
