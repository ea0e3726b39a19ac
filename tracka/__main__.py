"""`python -m tracka` is the `tracka` command."""

from .cli import main

main()
