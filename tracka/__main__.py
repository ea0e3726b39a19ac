"""Runs the `tracka` command as `python -m tracka`. Only `setup` runs before anything is installed."""

import sys

if sys.version_info[:2] != (3, 12):  # a checkout can run without pip, which would have refused this Python
    print("error: Track A needs Python 3.12, and this is " + sys.version.split()[0], file=sys.stderr)
    sys.exit(3)
if __name__ == "__main__":
    if sys.argv[1:2] == ["setup"]:
        from .install.setup import main as setup

        sys.exit(setup(sys.argv[2:]))
    from .cli import main

    main()
