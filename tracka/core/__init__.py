"""The base of all other packages.

Here are errors and checks, whole files, locks, hashes, redaction of secrets, and the JSON schemas of all artifacts.

No module here knows what a campaign is. Checkpoints are read in `checkpoints/`, and the child processes of rows are run
in `execution/`.
"""
