"""Runs a child process within bounds: in a session of its own, with its output in files.

The child's whole tree is ended when the child's time is up or when this process ends. A supervisor does the work, a
separate process that outlives this one for the seconds that it takes to end the tree.

Guarantees: `run` returns within timeout + grace + a few seconds; when it returns or raises, no descendant of the child
is alive; if this process is killed, the supervisor ends all descendants.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..core import damaged, log_cause
from ..core.files import Json
from . import lanes, orphans
from .supervisor import Request

_PARENT = str(Path(__file__).resolve().parents[2])
SPARE_SECS = 60.0  # time that a supervisor may take beyond its child's timeout and grace
GUARD_SECS = 15.0  # longer than a guard takes to end a tree that the kernel does not end at once
POLL_SECS = 2.0  # between two questions whether a child is still wanted
LANE_POLL_SECS = 0.2  # the same in a step of lanes, whose answer costs nothing
CANCELLED = "cancelled"
_START = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Exit:
    """How a child ended. After a signal, `code` is minus the signal's number, as in subprocess.

    `stopped` is `timeout` where the child took too long, `flood` where it exceeded the output limit, `cancelled` where
    the caller no longer wanted it, `survived` where a process of its tree could not be ended, and `lost` where the
    supervisor was killed, so that nothing is known of the end. Otherwise `stopped` is empty.
    """

    code: int
    stopped: str
    seconds: float

    @property
    def timed_out(self) -> bool:
        """Returns whether the child was ended since it took too long."""
        return self.stopped == TIMEOUT


TIMEOUT = "timeout"
STOPPED = {
    TIMEOUT: "the process took too long",
    "flood": "the process printed more than a log may hold",
    CANCELLED: "the process was no longer wanted",
    "survived": "a process of its tree could not be ended",
    "lost": "its supervisor was killed",
}


def cause_of_end(child_exit: Exit, *logs: Path) -> str:
    """Returns how a child that gave no answer ended, and the cause that its logs name: see `log_cause`."""
    text = log_cause.read(*logs)
    if child_exit.stopped:
        return f"{STOPPED[child_exit.stopped]}: {log_cause.cause(text)}"
    return log_cause.how_it_ended(child_exit.code, text)


@dataclass(frozen=True)
class Bounds:
    """How long a child may run and how much it may print; see `supervisor.Request`."""

    timeout: float
    grace: float = 10
    output_limit: int = Request.output_limit
    log_bytes: int = Request.log_bytes


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    bounds: Bounds,
    secrets: Sequence[bytes] = (),
    watched: Sequence[str] = (),
    lease: Sequence[int] = (),
    journal: Path | None = None,
    label: str = "",
    cancel: Callable[[], bool] | None = None,
    beat: float = 0,
    farewell: Sequence[str] = (),
) -> Exit:
    """Runs `command` to its end or to its bounds. There the child gets TERM and, after `grace`, KILL.

    `lease` are descriptors that the supervisor holds as long as any process of the child's tree is alive. `cancel` is
    called every POLL_SECS; once it returns True, the child gets TERM and, a second later, KILL. Where `beat` is not 0,
    the child's stdin gets a byte every `beat` seconds while it is supervised. `farewell` is a command that the
    supervisor runs after a child that was cancelled, or whose caller has died: it ends what the child began elsewhere.
    Raises OSError where the command cannot be started or a log cannot be written, RuntimeError where the supervisor
    fails, CancelledError in a step whose lanes have ended, which ends the child in the same way, and what `cancel`
    raises.
    """
    lanes.require_open()
    request = Request(
        tuple(command),
        str(cwd.absolute()),
        {**env, **_session_mark(), orphans.CHILD: uuid.uuid4().hex},
        str(stdout.absolute()),
        str(stderr.absolute()),
        bounds.timeout,
        bounds.grace,
        bounds.output_limit,
        bounds.log_bytes,
        tuple(map(os.fsdecode, secrets)),
        tuple(watched),
        beat=beat,
        journal=None if journal is None else str(journal),
        label=label,
        farewell=tuple(farewell),
    )
    for log in (stdout, stderr):
        damaged.make_way(log)
    start = time.monotonic()
    with _supervisor(request, lease) as (control, status):
        messages = _read_messages(control, status, bounds.timeout + bounds.grace + SPARE_SECS, cancel)
        _wait_for_guard(control)
    lanes.require_open()
    if not messages or "pid" in messages[-1]:
        orphans.end(orphans.CHILD, request.env[orphans.CHILD])
        return Exit(-signal.SIGKILL, "lost", time.monotonic() - start)
    return _exit(**messages[-1])


def _session_mark() -> dict[str, str]:
    return {name: os.environ[name] for name in (orphans.SESSION,) if name in os.environ}


@contextlib.contextmanager
def _supervisor(request: Request, inherited: Sequence[int]) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Starts a supervisor for the request and yields its control pipe and its messages, to be read to the end.

    The child's tree is ended when the control pipe is closed. It is closed before the block is left, whatever happens.
    """
    control, control_end = os.pipe()
    status_end, status = os.pipe()
    with os.fdopen(control_end, "wb", buffering=0) as request_stream, os.fdopen(status_end, "rb") as message_stream:
        try:
            try:
                _launch(request, (control, status), inherited)
            finally:
                os.close(control)
                os.close(status)
            with contextlib.suppress(BrokenPipeError):  # the supervisor has ended already, without a message
                rest = memoryview(request.to_json_line())
                while rest:
                    rest = rest[request_stream.write(rest) :]
            yield request_stream, message_stream
        finally:
            request_stream.close()
            message_stream.read()


def _read_messages(
    control: IO[bytes], status: IO[bytes], seconds: float, cancel: Callable[[], bool] | None
) -> list[Json]:
    """Returns the supervisor's messages until its end. After `seconds` the supervisor is killed.

    This ends a supervisor that is itself stopped (SIGSTOP) and so misses its child's deadline. `control` is closed as
    soon as `cancel` returns True.
    """
    text, deadline = b"", time.monotonic() + seconds
    cancel, poll_secs = _questions(cancel)
    while True:
        left = deadline - time.monotonic()
        chunk = _read(status, min(left, poll_secs) if cancel else left)
        if chunk == b"" or (chunk is None and time.monotonic() >= deadline):
            break
        text += chunk or b""
        if chunk is None and cancel and cancel():
            control.close()
            cancel = None
    messages = [json.loads(line) for line in text.splitlines()]
    if chunk is None and messages:
        with contextlib.suppress(ProcessLookupError):
            os.kill(messages[0]["supervisor"], signal.SIGKILL)
    return messages


def _questions(cancel: Callable[[], bool] | None) -> tuple[Callable[[], bool] | None, float]:
    """Returns what says that a child is no longer wanted, and how often to ask: the caller, and this thread's lanes."""
    around = lanes.of_this_thread()
    if around is None:
        return cancel, POLL_SECS
    return lambda: around.are_ended or bool(cancel and cancel()), LANE_POLL_SECS


def _wait_for_guard(control: IO[bytes]) -> None:
    """Waits until the supervisor's guard has ended, which is the last process that reads from `control`.

    It ends a moment after the supervisor, once nothing of the tree is left. One that is stopped (SIGSTOP) is waited for
    no longer than GUARD_SECS. Nothing is waited for where `control` was closed, since it shows no end then.
    """
    if not control.closed:
        poller = select.poll()
        poller.register(control, 0)  # that nobody reads is always reported
        poller.poll(GUARD_SECS * 1000)


def _read(status: IO[bytes], seconds: float) -> bytes | None:
    """Returns the next bytes, no bytes at the end of the stream, or None if none come within `seconds`."""
    ready, _, _ = select.select([status], [], [], max(0.0, seconds))
    return os.read(status.fileno(), 65536) if ready else None


def _launch(request: Request, pipes: tuple[int, int], inherited: Sequence[int]) -> None:
    """Starts the supervisor, which leaves our process tree at once."""
    marks = {orphans.SUPERVISES: request.env[orphans.ROW]} if orphans.ROW in request.env else {}
    with subprocess.Popen(
        python("tracka.execution.supervisor", *map(str, pipes)),
        cwd="/",
        env=os.environ | marks,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(*pipes, *inherited),
    ):
        pass


def python(module: str, *words: str) -> list[str]:
    """Returns the command that runs a module of this very copy of Track A, whatever folder it is started in."""
    return [sys.executable, "-P", "-c", _START, _PARENT, module, *words]


def _exit(
    code: int = 0,
    stopped: str = "",
    seconds: float = 0.0,
    errno: int | None = None,
    strerror: str = "",
    filename: str | None = None,
    trouble: str = "",
) -> Exit:
    """Returns how the child ended by the supervisor's last message. Raises what the message reports as an error."""
    if trouble:
        raise RuntimeError(f"the supervisor failed: {trouble}")
    if errno is not None:
        raise OSError(errno, strerror, filename)
    return Exit(code, stopped, seconds)
