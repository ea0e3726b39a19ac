"""Runs rows: one row from its plan to its result, many rows at once, and the parity gate, which plays a row with both
engines. Tables and pages are made in `tracka.reporting`; what must be true of a result is decided in `tracka.gates`.
"""
