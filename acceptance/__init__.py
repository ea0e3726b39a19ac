"""The gates: one module a phase, each readable as the specification of its phase."""
