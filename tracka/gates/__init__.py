"""Holds the disk against the contracts of each phase, and writes the handoffs that record the result.

pytest is not known here: the gates themselves are in `acceptance/`, and their order is in `plugin.py`.
"""
