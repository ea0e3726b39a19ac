"""Holds what the user defines, matrix and settings, and every path that follows from them.

How long rows take, which rows have run, and whether a policy may be loaded is not known here.
"""
