"""Starts, bounds and ends child processes, and decides what they see and which GPU they hold.

What a process is started for is not known here: rows are in `runs/`, and the flags of lerobot-eval are in `engines/`.
"""
