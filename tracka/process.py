"""A bounded child process: its own session, its output in files, its whole tree ended when time is up or we are.

Guarantees: `run` returns within timeout + grace + a few seconds; when it returns or raises, no descendant that it can
see is alive; if we are killed, the kernel kills the child. A pipe held open by a grandchild delays nothing, because
output goes to files.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_LIBC = ctypes.CDLL(None)  # loaded here, since a child between fork and exec had better load nothing
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Exit:
    """How a child ended. `code` is minus the signal's number after a signal, as in subprocess.

    `stopped` is `timeout` or `flood`, where it took too long or printed too much, else nothing. A child that floods its
    log and ends before we look has flooded it all the same.
    """

    code: int
    stopped: str
    seconds: float


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    timeout: float,
    grace: float = 10,
    pass_fds: Sequence[int] = (),
    log_bytes: int = 1 << 30,
) -> Exit:
    """Runs `command` to its end, for `timeout` seconds, or until a log has `log_bytes`; then TERM, after `grace` KILL.

    Looks at the logs once a second, and cuts off what they have beyond `log_bytes`. Raises OSError where the command
    cannot be started.
    """
    start = time.monotonic()
    with stdout.open("wb") as out, stderr.open("wb") as err:
        child = subprocess.Popen(
            list(command),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            pass_fds=pass_fds,
            preexec_fn=end_with_parent,
        )
    tree: set[psutil.Process] = set()
    logs = _Logs((stdout, stderr), log_bytes)
    try:
        done = _ends_within(child, timeout, tree, logs)
        stopped = "flood" if logs.too_long() else "" if done else "timeout"
        if not done:
            _note(child, tree)
            _signal_group(child, signal.SIGTERM)
            _ends_within(child, grace, tree, _Logs())  # they may be too long already
    finally:
        _kill(child, tree)
        logs.cut()
    return Exit(child.wait(), stopped, time.monotonic() - start)


def end_with_parent() -> None:
    """Called in a child: the kernel shall kill it when its parent dies, even by KILL."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True)
class _Logs:
    """The files that a child prints into, and how long they may get."""

    paths: Sequence[Path] = ()
    limit: int = 0

    def too_long(self) -> list[Path]:
        return [path for path in self.paths if path.is_file() and path.stat().st_size > self.limit]

    def cut(self) -> None:
        for path in self.too_long():
            os.truncate(path, self.limit)


def _ends_within(child: subprocess.Popen[bytes], seconds: float, tree: set[psutil.Process], logs: _Logs) -> bool:
    """Waits, noting descendants on the way: one that left the session is an orphan once the child has ended.

    False if time is up or a log is too long before that.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        _note(child, tree)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(min(1.0, left))
            return True
        if logs.too_long():
            return False
    return child.poll() is not None


def _note(child: subprocess.Popen[bytes], tree: set[psutil.Process]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        tree.update(psutil.Process(child.pid).children(recursive=True))


def _signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _kill(child: subprocess.Popen[bytes], tree: set[psutil.Process]) -> None:
    if child.poll() is None:
        _note(child, tree)
    _signal_group(child, signal.SIGKILL)
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(tree, timeout=3)
