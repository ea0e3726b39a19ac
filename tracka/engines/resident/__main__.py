"""The program of one row: python -m tracka.engines.resident, with lerobot-eval's flags and `--resident.NAME`.

The evaluation runs in a warm worker process where the harness has named one, else in this process; `evaluation.py` has
the evaluation itself.
"""

import os
import sys

from ...execution import warm_request


def main() -> int:
    """Plays the evaluation that sys.argv asks for, in a warm worker process if one takes it, and returns its exit code.

    Raises SystemExit(2) where it runs here and sys.argv has flags that the engine does not obey.
    """
    exit_code = (
        warm_request.evaluate_on_worker(os.environ[warm_request.SOCKET], sys.argv[1:])
        if warm_request.SOCKET in os.environ
        else None
    )
    if exit_code is not None:
        return exit_code
    from .evaluation import EvaluationCache, Stages, run

    run(EvaluationCache(), Stages())
    return 0


if __name__ == "__main__":
    sys.exit(main())
