"""The gates: one module per phase, each readable as the specification of its phase.

The steps of a phase are in `fixtures/gates.py`, the contracts that must hold after it in `tracka/gates/`.
"""
