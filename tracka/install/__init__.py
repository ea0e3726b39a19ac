"""Makes the locked environment, the GL libraries and LIBERO's files from a bare Python 3.12.

`python3.12 -m tracka setup` runs before any package is installed, so nothing here needs one. Snapshots of the new
environment are taken by `preflight/inventory.py`, which set-up starts in a process of that environment.
"""
