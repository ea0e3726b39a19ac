"""The processes that the main process of the resident engine forks itself: builder processes and renderers.

Guarantees: such a process never outlives the main process.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from ...execution import prctl
from . import builder, channel
from .builder import Common, ExitCode
from .channel import Channel
from .slot import WorkerFailed

ENDING_SECS = 60
# The policy's threads wait for each other at every operation: one that waits for a core delays them all. Renderers come
# next, since slots wait for them, and they need a core for short moments.
WORKER_NICE, RENDERER_NICE = 10, 5


class WorkerLost(RuntimeError):
    """Raised when a worker process, a builder process or a renderer failed or died."""


@dataclass(frozen=True)
class Forking:
    """What forked processes have in common.

    `output` is the descriptor that they print to, or None for this process's own files. `ends` are this process's ends
    of connections, which no other process may hold open: that would hide their end of file.
    """

    output: int | None
    ends: list[socket.socket | Connection]

    def fork(self, nice: int, serve: Callable[..., None], *arguments: Any) -> Any:
        """Starts a process that calls `serve` with these arguments. It needs no imports of its own."""
        passed = os.getpid(), nice, self, serve, *arguments
        process = get_context("fork").Process(target=_begin, args=passed, daemon=True)
        process.start()
        return process


def _begin(parent: int, nice: int, forking: Forking, serve: Callable[..., None], *arguments: Any) -> None:
    prctl.end_with_parent(parent)
    for end in forking.ends:
        end.close()
    if forking.output is not None:
        os.dup2(forking.output, 1)
        os.dup2(forking.output, 2)
    os.nice(nice)
    serve(*arguments)


@dataclass(frozen=True)
class BuilderProcess:
    """A builder process, as the main process sees it."""

    number: int
    process: Any
    requests: socket.socket

    @classmethod
    def start(cls, number: int, forking: Forking, common: Common) -> "BuilderProcess":
        """Starts builder process `number`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        forking.ends.append(ours)
        process = forking.fork(WORKER_NICE, builder.serve, theirs, common)
        theirs.close()
        return cls(number, process, ours)

    def ask(self, request: builder.Request, *descriptors: int) -> None:
        """Sends a request. Raises WorkerLost where the process has died."""
        try:
            builder.send(self.requests, request, *descriptors)
        except OSError:
            raise self.lost() from None

    def worker_lost(self, slot: int) -> WorkerLost:
        """Returns the error that says how the worker process of slot `slot`, which has ended, came to its end."""
        self.ask(ExitCode(slot))
        self.requests.settimeout(ENDING_SECS)
        with contextlib.suppress(OSError):
            if code := self.requests.recv(builder.MESSAGE_BYTES):
                return WorkerLost(f"the worker process of slot {slot} died with exit code {code.decode()}")
        return self.lost()

    def lost(self) -> WorkerLost:
        """Returns the error that says that this builder process, which has ended, died."""
        self.process.join(ENDING_SECS)
        return WorkerLost(f"builder process {self.number} died with exit code {self.process.exitcode}")


@dataclass(frozen=True)
class RendererProcess:
    """A renderer, as the main process sees it."""

    number: int
    process: Any
    requests: socket.socket
    failures: Connection

    @classmethod
    def start(cls, number: int, forking: Forking, channels: Mapping[int, Channel]) -> "RendererProcess":
        """Starts renderer `number`."""
        from . import renderer

        context = get_context("fork")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        failures, their_failures = context.Pipe(duplex=False)
        forking.ends.append(failures)
        process = forking.fork(RENDERER_NICE, renderer.serve, theirs, their_failures, channels)
        theirs.close()
        their_failures.close()
        return cls(number, process, ours, failures)

    def ask(self, request: channel.Request) -> None:
        """Sends a request. Raises WorkerLost where the process has died."""
        try:
            channel.send(self.requests, request)
        except OSError:
            raise self.lost() from None

    def lost(self) -> WorkerLost:
        """Returns the error that says how this renderer, which has ended or is about to, came to its end."""
        with contextlib.suppress(EOFError, OSError):
            failure = self.failures.recv()
            assert isinstance(failure, WorkerFailed)
            return WorkerLost(f"renderer {self.number} failed:\n{failure.trace}")
        self.process.join(ENDING_SECS)
        return WorkerLost(f"renderer {self.number} died with exit code {self.process.exitcode}")
