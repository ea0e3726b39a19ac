"""A row from its plan to its result, and many rows at once."""
