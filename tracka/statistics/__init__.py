"""Holds what follows from counts alone: tests, intervals, sequential evidence and planning, each with its source.

Every function is pure: counts and probabilities in, a result with the name of its method out. No module here knows what
a campaign is, reads a file or decides about a phase. The modules import numpy and scipy when they are imported, so a
caller imports them in the function that needs a statistic.
"""
