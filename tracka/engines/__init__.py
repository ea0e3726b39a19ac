"""Describes what plays episodes: lerobot-eval and the resident engine.

Here are their flags, code and versions, metrics, failures and parity certificates. When an engine is started, and with
which row, is decided in `runs/`.
"""
