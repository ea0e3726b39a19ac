"""python -m tracka.engines.resident, with lerobot-eval's flags and `--resident.NAME` beside them; see evaluation.py.

A process that stands by plays it, where the harness has named one.
"""

import os
import sys

from ...execution import standby


def main() -> int:
    told = standby.ask(os.environ[standby.SOCKET], sys.argv[1:]) if standby.SOCKET in os.environ else None
    if told is not None:
        return told
    from .evaluation import Kept, Stages, run

    run(Kept(), Stages())
    return 0


if __name__ == "__main__":
    sys.exit(main())
