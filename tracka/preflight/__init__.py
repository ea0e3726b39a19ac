"""Checks whether this host can run the campaign; every check has its evidence and its remedy.

`probes/` holds the child processes that import lerobot and LIBERO. No row is run here, and nothing here imports
`tracka.runs`.
"""
