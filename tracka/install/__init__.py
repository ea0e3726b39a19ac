"""From a bare Python to the locked environment, with the standard library alone."""
