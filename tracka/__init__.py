"""Track A: a pytest-driven acceptance harness for robot policies.

`pytest acceptance` takes a campaign (a matrix of evaluation runs and its settings) through five gates; the `tracka`
command calls the same functions. The modules at the top are these two faces; the work is done in the packages below
them. docs/architecture.md follows one row from the matrix to the report.
"""

__version__ = "0.2.0"
