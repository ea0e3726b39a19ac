"""Finds and ends orphan processes, which killed or stopped processes leave behind, by the mark of their run or session.

A mark is an environment variable. The holder of the lock of a row or of a GPU may end every process with the lock's
mark, because nobody else has a right to run there. Anybody may end what a dead session has started. Only processes of
this user can be seen and ended.

A process that ends its own tree, such as a supervisor, is given time for that; where it is stopped (SIGSTOP), it is
continued first.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..core import escaping, held_folder
from ..core.errors import shortened

ROW = "TRACKA_ROW"  # the run folder that the process writes to
LEASE = "TRACKA_LEASE"  # the lock file of the GPU that the process computes on
CHILD = "TRACKA_CHILD"  # a word that is unique to one child and its descendants
SUPERVISES = "TRACKA_SUPERVISES"  # for a supervisor: the run folder of its child
STANDS_BY = "TRACKA_STANDS_BY"  # the socket of a warm worker process
SESSION = "TRACKA_SESSION"  # the folder of the session that started the process: see harness_session
MARKS = (ROW, LEASE, CHILD, SUPERVISES)
PATIENCE_SECS = 4.0  # a supervisor whose caller has died ends its tree sooner
KILL_SECS = 4.0  # the kernel ends a process at once, unless it holds the process or the process is another user's


@dataclass(frozen=True)
class Survivor:
    """A process that could not be ended."""

    pid: int
    command: str
    row: str  # the run folder that it writes to, or an empty text

    def __str__(self) -> str:
        of_row = f" of row {Path(self.row).name} ({self.row})" if self.row else ""
        return f"process {self.pid} ({self.command}){of_row}"


def marks(row: Path | None, lock: Path | None) -> dict[str, str]:
    """Returns the marks by which a run's orphan processes are found, from the side of the row and of the GPU."""
    paths = {ROW: row, LEASE: lock}
    return {mark: str(path) for mark, path in paths.items() if path is not None}


def pids_with_mark(mark: str, value: str) -> frozenset[int]:
    """Returns the ids of the processes whose `mark` has this value."""
    return frozenset(process.pid for process in _with_mark(mark, value))


def end(mark: str, value: str, except_marked: tuple[str, str] | None = None) -> list[Survivor]:
    """Ends every process whose `mark` has this value, and returns those that are still alive.

    Leaves those alone that have the mark and value `except_marked`, also where they start only now. A supervisor that
    works for the row is given time to finish first.
    """
    if mark == ROW:
        _let_finish(lambda: _with_mark(SUPERVISES, value))
    return _kill(lambda: _without_mark(_with_mark(mark, value), except_marked))


def _without_mark(processes: Sequence[psutil.Process], marked: tuple[str, str] | None) -> list[psutil.Process]:
    return [process for process in processes if marked is None or _mark(process.pid, marked[0]) != marked[1]]


def end_of_dead_sessions() -> list[Survivor]:
    """Ends every process that a session started which has died since, and returns those that are still alive.

    Supervisors and warm processes are given time to end their trees first.
    """
    if not _of_dead_sessions():
        return []
    _let_finish(lambda: [process for process in _of_dead_sessions() if not _mark(process.pid, CHILD)])
    return _kill(_of_dead_sessions)


def _let_finish(find: Callable[[], Sequence[psutil.Process]]) -> None:
    """Waits until `find` finds no process any more. One that is still there after PATIENCE_SECS is killed."""
    deadline = time.monotonic() + PATIENCE_SECS
    while (processes := find()) and time.monotonic() < deadline:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if process.status() == psutil.STATUS_STOPPED:
                    process.resume()
        time.sleep(0.05)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _kill(find: Callable[[], Sequence[psutil.Process]]) -> list[Survivor]:
    """Kills what `find` finds until it finds nothing, since a process may start another before it ends."""
    deadline = time.monotonic() + KILL_SECS
    while (processes := find()) and time.monotonic() < deadline:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=1)
    return [_survivor(process) for process in processes]


def _survivor(process: psutil.Process) -> Survivor:
    try:
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        command = "unknown"
    return Survivor(process.pid, shortened(escaping.line(command)), _mark(process.pid, ROW))


def _of_dead_sessions() -> list[psutil.Process]:
    """Returns the processes whose session has died, by the session's folder as the process itself sees it.

    A process in a container has another view of the folders than this one.
    """
    is_dead: dict[tuple[str, str], bool] = {}
    found = []
    for process in _others():
        folder = _mark(process.pid, SESSION)
        if Path(folder).name.startswith(held_folder.PREFIX):
            with contextlib.suppress(OSError):
                key = (str(Path(f"/proc/{process.pid}/ns/mnt").readlink()), folder)
                if key not in is_dead:
                    is_dead[key] = not _is_held(process.pid, folder)
                found += [process] if is_dead[key] else []
    return found


def _is_held(pid: int, folder: str) -> bool:
    """Returns whether the session with this folder lives. Raises OSError where the process `pid` has ended meanwhile.

    The root is opened first: below that of an ended process no folder is found, whether its session lives or not.
    """
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)
    try:
        return held_folder.is_held(Path(f"/proc/self/fd/{root}{folder}"))
    finally:
        os.close(root)


def _with_mark(mark: str, value: str) -> list[psutil.Process]:
    return [process for process in _others() if _mark(process.pid, mark) == value]


def _mark(pid: int, mark: str) -> str:
    """Returns the value of a process's mark, or an empty text where it has none."""
    head = f"{mark}=".encode()
    with contextlib.suppress(OSError):  # another user's process, or one that has ended
        for word in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if word.startswith(head):
                return os.fsdecode(word[len(head) :])
    return ""


def _others() -> Iterator[psutil.Process]:
    """Yields all processes but this one and those above it."""
    own_pids = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error):
            if pid not in own_pids:
                yield psutil.Process(pid)
