"""What every process of ours sets right before anything else, whatever it was started from."""

import os
import signal

from ..core.errors import Finding, UsageError
from . import leftover


def prepare() -> None:
    """Undoes what a parent may have left us: SIGCHLD ignored, under which no exit code is known; no standard files."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one


def outside_of_rows() -> None:
    """Raises UsageError inside a row's own environment: its marks would make us look like that row's leftovers."""
    found = [name for name in leftover.MARKS if name in os.environ]
    if found:
        what = "this is the environment of a row, and who runs that row next ends all that is in it"
        raise UsageError(Finding(", ".join(found), what, f"unset {' '.join(found)}, or use another shell"))
