"""A guard: the process above a supervisor or a warm process that ends it, and all below it, once nobody needs it.

A process that is stopped (SIGSTOP) does not see that its caller has died; its guard does. The guard starts no program,
reads and writes nothing, and ends with the process that it guards.

Guarantees: what a guarded process leaves behind, however it ends, is ended within moments; a guarded process that is
stopped while nobody needs it is killed after STOPPED_SECS, and any other that is not needed after `ending_secs`. Where
the guard itself is stopped, the guarded process works on as it would alone. Where the guard is killed, that depends on
`ends_with_guard`.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable

from . import prctl

POLL_SECS = 0.5
STOPPED_SECS = 1.0
ENDING_SECS = 20.0  # longer than a supervisor takes to end a tree that the kernel does not end at once
KILL_SECS = 10.0  # for processes that the kernel does not end at once


def fork(
    is_needed: Callable[[], bool], kept: int, ending_secs: float = ENDING_SECS, ends_with_guard: bool = False
) -> None:
    """Splits this process in two: the new one returns, and this one becomes its guard and never returns.

    `is_needed` returns whether anybody still needs the new process. The guard closes every descriptor except `kept`.
    With `ends_with_guard` the kernel kills the new process when its guard dies; otherwise the new process works on.
    """
    prctl.adopt_orphans()
    guard_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        if ends_with_guard:
            prctl.end_with_parent(guard_pid)
        return
    try:
        _close_all_except(kept)
        _wait_until_ended_or_unneeded(pid, is_needed, ending_secs)
        kill_descendants()
    finally:
        os._exit(0)


def _close_all_except(kept: int) -> None:
    """Closes the descriptors that the guarded process uses: a guard that held them would hide their last holder's end.

    Standard input, output and error are /dev/null.
    """
    os.closerange(3, kept)
    os.closerange(max(kept + 1, 3), os.sysconf("SC_OPEN_MAX"))


def _wait_until_ended_or_unneeded(pid: int, is_needed: Callable[[], bool], ending_secs: float) -> None:
    ended = select.poll()
    ended.register(os.pidfd_open(pid), select.POLLIN)
    unneeded_since: float | None = None
    while not ended.poll(POLL_SECS * 1000):
        if unneeded_since is None and is_needed():
            continue
        unneeded_since = unneeded_since or time.monotonic()
        patience = STOPPED_SECS if is_stopped(pid) else ending_secs
        if time.monotonic() - unneeded_since > patience:
            return


def is_stopped(pid: int) -> bool:
    """Returns whether the process is stopped (SIGSTOP)."""
    import psutil  # here and below, since most supervisors end without it, and a row waits for each import

    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def kill_descendants(child: "subprocess.Popen[bytes] | None" = None) -> bool:
    """Kills this process's descendants until none is left, since each may have started another one meanwhile.

    Reaps those that the kernel gave to this process; `child` is reaped by its own object. Returns whether some of the
    descendants are still alive.
    """
    deadline = time.monotonic() + KILL_SECS
    while (pids := _descendants(child)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(OSError):  # the process has ended, or is another user's
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return bool(pids)


def _descendants(child: "subprocess.Popen[bytes] | None") -> list[int]:
    """Returns the ids of this process's descendants, of which it has reaped what has ended.

    Orphans become this process's own children, so a process without children has no descendants.
    """
    if child is None or child.poll() is not None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return []
    import psutil

    return [process.pid for process in psutil.Process().children(recursive=True)]
