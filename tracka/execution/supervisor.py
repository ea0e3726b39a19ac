"""Owns a child and everything below it: python -m tracka.execution.supervisor CONTROL STATUS.

The supervisor leaves its caller's process tree, reads a request from the descriptor CONTROL, and reports on the
descriptor STATUS how the child started and ended, with one JSON object per line.

Guarantees: the whole tree ends within seconds when CONTROL reaches its end, because the caller closed it or died, even
by KILL; the tree ends at the deadline too, and when the child exceeds the output limit; a descendant that left its
session or parent is still found, since the kernel hands orphans to the supervisor; if the supervisor is killed, its
guard ends the tree, and the caller knows that nothing is known; if the supervisor is stopped (SIGSTOP) and the caller
dies, the guard kills it. A pipe that a grandchild holds open delays nothing.
"""

import contextlib
import json
import os
import select
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from . import guard, prctl, process_setup
from .bounded_log import Log

CONTROL_GRACE_SECS = 1.0  # between TERM and KILL where the caller has gone or cancelled
FAREWELL_SECS = 15.0  # for the farewell: less than a guard waits for a supervisor that nobody needs


@dataclass(frozen=True)
class Request:
    """What to run and within which bounds. Paths are absolute, sizes are in bytes, durations in seconds."""

    command: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    stdout: str
    stderr: str
    timeout: float
    grace: float = 10
    output_limit: int = 1 << 30  # output limit of stdout and of stderr: a child that prints more is ended
    log_bytes: int = 8 << 20  # size of each log
    secrets: tuple[str, ...] = ()  # never shown in a log
    watched: tuple[str, ...] = ()  # words that a log shows wherever they were printed
    beat: float = 0  # how often the child's stdin gets a byte that says that it is still supervised; 0 is never
    journal: str | None = None  # file that notes start and end of the child, under `label`
    label: str = ""
    farewell: tuple[str, ...] = ()  # run after a child that the caller no longer wants: ends what it began elsewhere

    def to_json_line(self) -> bytes:
        """Returns the request as one line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_json_line(cls, line: bytes) -> "Request":
        """Returns the request that `to_json_line` wrote as `line`."""
        values: dict[str, Any] = json.loads(line)
        for key, value in values.items():
            values[key] = tuple(value) if isinstance(value, list) else value
        return cls(**values)


def main(control: int, status: int) -> None:
    """Reads a request from `control`, runs its child to the end, and reports on `status`."""
    try:
        _leave_caller(control)
        prctl.adopt_orphans()
        request = Request.from_json_line(_line(control))
        send_message(status, **_Supervision(request, control, status).run())
    except OSError as error:
        send_message(status, errno=error.errno, strerror=error.strerror, filename=error.filename)
    except Exception:
        send_message(status, trouble=traceback.format_exc())


def _leave_caller(control: int) -> None:
    """Leaves the caller's process tree, so that only the kernel and the control pipe connect this process to anybody.

    Returns in a process below the guard.
    """
    if os.fork():
        os._exit(0)
    os.setsid()
    process_setup.prepare()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # a handler, because the child would inherit an ignored signal
    guard.fork(lambda: not _has_hung_up(control), kept=control)


def _has_hung_up(control: int) -> bool:
    """Returns whether the caller has closed its end of the control pipe, or has died."""
    poller = select.poll()
    poller.register(control, 0)  # a hang-up is always reported
    return bool(poller.poll(0))


def _line(control: int) -> bytes:
    with os.fdopen(os.dup(control), "rb") as file:
        return file.readline()


def send_message(status: int, **values: Any) -> None:
    """Writes one message to `status`; nothing happens where the caller has gone."""
    with contextlib.suppress(BrokenPipeError):
        os.write(status, json.dumps(values).encode() + b"\n")


def _ended(_: bytes) -> None:
    """Stands in the selector for the child's end, of which nothing is read."""


class _Supervision:
    """Supervises one child, from its start to the end of its tree."""

    def __init__(self, request: Request, control: int, status: int) -> None:
        self.request, self.control, self.status = request, control, status
        self.start = time.monotonic()
        self.stopped, self.last_beat = "", 0.0
        self.pipes = selectors.DefaultSelector()

    def run(self) -> dict[str, Any]:
        with self._logs() as self.logs:
            self.child = self._launch()
            try:
                note(self.request, "start", self.child.pid)
                send_message(self.status, pid=self.child.pid, supervisor=os.getpid())
                self._supervise()
                seconds = time.monotonic() - self.start
            finally:
                alive = guard.kill_descendants(self.child)
                with contextlib.suppress(OSError):  # the run is over, and its result matters more than this line
                    note(self.request, "end", self.child.pid)
            self._drain()
            if self.stopped == "cancelled" and self.request.farewell:
                self._say_farewell()
        return {"code": self.child.wait(), "stopped": self._stop_cause(seconds, alive), "seconds": seconds}

    def _stop_cause(self, seconds: float, alive: bool) -> str:
        """Returns why the child's exit code does not count, or an empty text.

        A child that ended after its deadline did so while the supervisor itself was stopped.
        """
        late = "timeout" if seconds > self.request.timeout else ""
        return self.stopped or self._flooded() or late or ("survived" if alive else "")

    @contextlib.contextmanager
    def _logs(self) -> Iterator[list[Log]]:
        request = self.request
        secrets, watched = ([os.fsencode(word) for word in words] for words in (request.secrets, request.watched))
        with contextlib.ExitStack() as stack:
            logs = []
            for path in (request.stdout, request.stderr):
                logs.append(Log(Path(path), request.log_bytes, secrets, watched))
                stack.callback(logs[-1].close)
            yield logs

    def _launch(self) -> subprocess.Popen[bytes]:
        request = self.request

        child = subprocess.Popen(
            request.command,
            cwd=request.cwd,
            env=request.env,
            stdin=subprocess.PIPE if request.beat else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            preexec_fn=partial(prctl.end_with_parent, os.getpid()),
        )
        for pipe, log in zip((child.stdout, child.stderr), self.logs, strict=True):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self.pipes.register(pipe, selectors.EVENT_READ, log.feed)
        self.pipes.register(self.control, selectors.EVENT_READ, None)
        self.pipes.register(os.pidfd_open(child.pid), selectors.EVENT_READ, _ended)  # so that its end is seen at once
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
        return child

    def _supervise(self) -> None:
        self._pump(self.request.timeout, self._reason_to_stop)
        if self.child.poll() is not None:
            return
        self.stopped = self.stopped or "timeout"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGTERM)
        if self.stopped != "cancelled":
            self._pump(self.request.grace, lambda: self.stopped if self.stopped == "cancelled" else "")
        if self.stopped == "cancelled":
            self._pump(CONTROL_GRACE_SECS, lambda: "")

    def _say_farewell(self) -> None:
        """Runs the request's farewell, as the child's environment has it; it is a courtesy that may fail."""
        quiet = subprocess.DEVNULL
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                self.request.farewell,
                env=self.request.env,
                stdin=quiet,
                stdout=quiet,
                stderr=quiet,
                timeout=FAREWELL_SECS,
            )

    def _reason_to_stop(self) -> str:
        return self.stopped or self._flooded()

    def _flooded(self) -> str:
        return "flood" if any(log.printed > self.request.output_limit for log in self.logs) else ""

    def _pump(self, seconds: float, reason: Callable[[], str]) -> None:
        """Moves output into the logs until the child ends, time is up, or `reason` gives a reason to stop."""
        deadline = time.monotonic() + seconds
        while self.child.poll() is None and (remaining := deadline - time.monotonic()) > 0:
            for key, _ in self.pipes.select(min(0.05, remaining)):
                if key.data is not _ended:
                    self._read(key)
            self._beat()
            if cause := reason():
                self.stopped = cause
                return

    def _beat(self) -> None:
        """Sends the child its next byte when it is due. A child that has gone, or reads none, stops nothing."""
        if self.child.stdin is not None and time.monotonic() - self.last_beat >= self.request.beat:
            self.last_beat = time.monotonic()
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self.child.stdin.fileno(), b".")

    def _read(self, key: selectors.SelectorKey) -> bool:
        """Reads once from a pipe and returns whether there may be more to read."""
        try:
            chunk = os.read(key.fd, 1 << 18)
        except BlockingIOError:
            return False
        if key.data is None:
            self.stopped = "cancelled"
        elif chunk:
            key.data(chunk)
            return True
        self.pipes.unregister(key.fileobj)
        return False

    def _drain(self) -> None:
        """Reads what the tree had printed when it ended.

        All processes that could write more are gone, or could not be ended.
        """
        for key in list(self.pipes.get_map().values()):
            while key.data not in (None, _ended) and self._read(key):
                pass


def note(request: Request, event: str, pid: int) -> None:
    """Adds a line to the journal. One line is one write, so the lines of several writers stay whole."""
    if request.journal is None:
        return
    line = {"event": event, "label": request.label, "pid": pid, "supervisor": os.getpid(), "at": time.time()}
    descriptor = os.open(request.journal, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
