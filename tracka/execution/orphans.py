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
LEASE = "TRACKA_LEASE"  # the lock file of the GPU that the process computes on
CHILD = "TRACKA_CHILD"  # a word that is unique to one child and its descendants
SUPERVISES = "TRACKA_SUPERVISES"  # for a supervisor: the run folder of its child
STANDS_BY = "TRACKA_STANDS_BY"  # the socket of a warm worker process
SESSION = "TRACKA_SESSION"  # the folder of the session that a warm worker process belongs to
MARKS = (ROW, LEASE, CHILD, SUPERVISES)
PATIENCE_SECS = 15.0  # a supervisor whose caller has died ends its tree sooner


def marks(row: Path | None, lock: Path | None) -> dict[str, str]:
    """Returns the marks by which a run's orphan processes are found, from the side of the row and of the GPU."""
    paths = {ROW: row, LEASE: lock}
    return {mark: str(path) for mark, path in paths.items() if path is not None}


def pids_with_mark(mark: str, value: str) -> frozenset[int]:
    """Returns the ids of the processes whose `mark` has this value."""
    return frozenset(process.pid for process in _processes_with_mark(mark, value))


def end(mark: str, value: str, except_pids: frozenset[int] = frozenset()) -> list[int]:
    """Ends every process whose `mark` has this value, except `except_pids`, and returns the ids of the ended processes.

    A supervisor that works for the row is given time to finish first.
    """
    if mark == ROW:
        _wait_until_gone(SUPERVISES, value)
    ended_pids: list[int] = []
    deadline = time.monotonic() + PATIENCE_SECS
    # Looks again after each round, since a process may start another before it ends.
    while (processes := _processes_to_end(mark, value, except_pids)) and time.monotonic() < deadline:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=1)
        ended_pids += [process.pid for process in processes]
    return ended_pids


def _processes_to_end(mark: str, value: str, except_pids: frozenset[int]) -> list[psutil.Process]:
    return [process for process in _processes_with_mark(mark, value) if process.pid not in except_pids]


def _wait_until_gone(mark: str, value: str) -> None:
    """Waits until no process has the mark. A process that still has it after PATIENCE_SECS is stuck and is killed."""
    deadline = time.monotonic() + PATIENCE_SECS
    while (processes := list(_processes_with_mark(mark, value))) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _processes_with_mark(mark: str, value: str) -> Iterator[psutil.Process]:
    words = f"\0{mark}={value}\0".encode(errors="surrogateescape")
    own_pids = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):  # another user's process, or one that has ended
            if pid not in own_pids and words in b"\0" + Path(f"/proc/{pid}/environ").read_bytes():
                yield psutil.Process(pid)
