"""Finds and ends orphan processes, which a killed supervisor leaves behind, by the mark of their run.

A mark is an environment variable. The holder of the lock of a row or of a GPU may end every process with the lock's
mark, because nobody else has a right to run there. Only processes of this user can be seen and ended.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

ROW = "TRACKA_ROW"  # the run folder that the process writes to
LEASE = "TRACKA_LEASE"  # the lock file of the GPU that it computes on
CHILD = "TRACKA_CHILD"  # a word that is unique to one child and its descendants
SUPERVISES = "TRACKA_SUPERVISES"  # for a supervisor: the run folder of the child that it owns
STANDS_BY = "TRACKA_STANDS_BY"  # the socket of a warm worker process
SESSION = "TRACKA_SESSION"  # the folder of the session that a warm worker process belongs to
MARKS = (ROW, LEASE, CHILD, SUPERVISES)
PATIENCE_SECS = 15.0  # longer than a supervisor whose caller has died takes to end its tree


def marks(row: Path | None, lock: Path | None) -> dict[str, str]:
    """Returns the marks by which a run's orphan processes are found, from the side of the row and of the GPU."""
    named = {ROW: row, LEASE: lock}
    return {mark: str(path) for mark, path in named.items() if path is not None}


def marked(mark: str, value: str) -> frozenset[int]:
    """Returns the ids of the processes whose `mark` has this value."""
    return frozenset(process.pid for process in _marked(mark, value))


def end(mark: str, value: str, spared: frozenset[int] = frozenset()) -> list[int]:
    """Ends every process whose `mark` has this value, except those in `spared`, and returns the ended processes' ids.

    A supervisor that works for the row is given time to finish first.
    """
    if mark == ROW:
        _wait(SUPERVISES, value)
    ended: list[int] = []
    give_up = time.monotonic() + PATIENCE_SECS
    while (found := _others(mark, value, spared)) and time.monotonic() < give_up:  # a process may start another
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1)
        ended += [process.pid for process in found]
    return ended


def _others(mark: str, value: str, spared: frozenset[int]) -> list[psutil.Process]:
    return [process for process in _marked(mark, value) if process.pid not in spared]


def _wait(mark: str, value: str) -> None:
    """Waits until no process has the mark. A process that still has it after PATIENCE_SECS is stuck and is killed."""
    end_at = time.monotonic() + PATIENCE_SECS
    while (stuck := list(_marked(mark, value))) and time.monotonic() < end_at:
        time.sleep(0.05)
    for process in stuck:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _marked(mark: str, value: str) -> Iterator[psutil.Process]:
    words = f"\0{mark}={value}\0".encode(errors="surrogateescape")
    ours = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):  # another user's process, or one that has ended
            if pid not in ours and words in b"\0" + Path(f"/proc/{pid}/environ").read_bytes():
                yield psutil.Process(pid)
