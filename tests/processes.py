"""Helps tests that look at processes."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil


def is_alive(pid: int) -> bool:
    """Returns whether the process runs; a process that has ended and only waits for its parent does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def of_campaign(root: Path) -> list[int]:
    """Returns the ids of all processes that were started for a campaign of stand-ins, except this process.

    Harnesses and supervisors are among these processes.
    """
    words, found = f"TRACKA_STANDIN={root / 'standin.json'}\0".encode(), []
    for pid in psutil.pids():
        try:
            if words in Path(f"/proc/{pid}/environ").read_bytes() and pid != os.getpid() and is_alive(pid):
                found.append(pid)
        except OSError:
            continue
    return found


def below(folder: Path) -> Iterator[int]:
    """Yields the ids of the processes whose working directory, or a word of whose command, lies in `folder`."""
    for process in psutil.process_iter():
        try:
            if any(str(folder) in word for word in (process.cwd(), *process.cmdline())):
                yield process.pid
        except psutil.Error:
            continue


def wait_for_the_end_of(root: Path, seconds: float = 30) -> None:
    """Returns when no process of the campaign is left. Raises AssertionError with the processes left after `seconds`.

    Usually the end takes a moment. A worker of xdist that is still importing when its controller is killed ends when it
    first reads from the controller: on a busy machine after six seconds and more.
    """
    end = time.monotonic() + seconds
    while left := of_campaign(root):
        if time.monotonic() > end:
            raise AssertionError(f"alive after {seconds} s: {list(map(_described, left))}")
        time.sleep(0.02)


def _described(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return (
            f"{pid} of {process.ppid()}, {process.status()}, {time.time() - process.create_time():.1f} s old: "
            + (" ".join(process.cmdline())[-300:])
        )
    except psutil.NoSuchProcess:
        return f"{pid}, gone meanwhile"


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Returns as soon as `condition` holds, and fails the test where it does not hold within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{condition} did not come true within {seconds} s"
        time.sleep(0.02)
