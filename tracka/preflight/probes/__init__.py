"""Programs that preflight starts in processes of their own: the only code of preflight that imports lerobot or LIBERO.

Each program prints its findings as JSON. The modules of preflight judge the findings; no check is made here.
"""
