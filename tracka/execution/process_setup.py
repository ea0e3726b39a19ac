"""Prepares every process of Track A before anything else runs in it, whatever started the process."""

import os
import signal

from ..core.errors import Finding, UsageError


def prepare() -> None:
    """Undoes what a parent process may have left: an ignored SIGCHLD, and missing standard files.

    While SIGCHLD is ignored, no exit code of a child is known.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # open() takes the lowest free number, which is this one


def refuse_nested_run() -> None:
    """Raises UsageError inside the environment of a row.

    The marks of that environment would make this process look like an orphan process of the row.
    """
    from . import orphans  # dear to import, and supervisors only prepare themselves

    marks = [name for name in orphans.MARKS if name in os.environ]
    if marks:
        what = "these variables mark a row's process, and the row's next run ends every process that has them"
        raise UsageError(Finding(", ".join(marks), what, f"Run `unset {' '.join(marks)}`, or use another shell"))
