"""Waits for files that a program has left on a cluster's node until they are seen on this host.

A network file system may show a new file, or its new content, seconds later than the node that wrote it: hosts keep
what they know of folders for a while.
"""

import contextlib
import os
import time
from pathlib import Path

from ..core import schema
from ..core.artifacts import StepRecord

UNENDED_SECS = 5.0  # that the record of a step is waited for which probably was killed, so wrote no end


def ended_record(path: Path, seconds: float, is_expected: bool) -> StepRecord | None:
    """Returns the step's record once it tells of an end, or as it is after `seconds`; None where there is none.

    A node's file may be seen later on another node. A step that was killed writes no end, so where srun tells of a
    failure less is waited for.
    """
    deadline = time.monotonic() + (seconds if is_expected else min(seconds, UNENDED_SECS))
    while True:
        _look_again(path.parent)
        record = schema.read_or_none("step", path)
        is_there = record is not None and record["end"] is not None
        if is_there or time.monotonic() > deadline or (record is None and not is_expected):
            return record
        time.sleep(0.2)


def is_seen(output: Path, record: StepRecord | None, seconds: float) -> bool:
    """Returns whether the files that the program left on its node are seen here, at the latest after `seconds`."""
    expected = record["end"]["files"] if record and record["end"] else {}
    deadline = time.monotonic() + seconds
    while not all(_size(output / name) == size for name, size in expected.items()):
        if time.monotonic() > deadline:
            return False
        for folder in {(output / name).parent for name in expected}:
            _look_again(folder)
        time.sleep(0.5)
    return True


def _look_again(folder: Path) -> None:
    """Opens a folder, which makes a network file system ask its server for what is new there."""
    with contextlib.suppress(OSError), os.scandir(folder) as listing:
        next(listing, None)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return -1
