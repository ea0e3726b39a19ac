"""Makes tables, pages, caveats and the verdict in words from the run folders.

Nothing here decides whether a phase has passed: that is in `gates/`.
"""
