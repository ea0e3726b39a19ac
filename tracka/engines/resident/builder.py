"""A builder process: builds each of its tasks once, without graphics, and forks a worker process for each slot.

A forked process shares the compiled model, hundreds of MB, with its parent until it writes to it, and it starts in the
very state in which the environment was built. So a slot costs milliseconds, whatever its task has cost.

Guarantees: a worker process never outlives its builder process, nor a builder process the main process.
"""

import contextlib
import ctypes
import gc
import os
import pickle
import socket
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from ...execution import prctl
from . import slot
from .channel import Channel
from .episode import Episode, Task
from .slot import MakeSimulator, Pictures, VideoConfig, Worker, WorkerFailed
from .turn import Turn

if TYPE_CHECKING:
    from .simulator import Simulator

MESSAGE_BYTES = 1 << 16


@dataclass(frozen=True)
class StartWorker:
    """Asks for a worker process of the episode's task in slot `slot`; the message brings the worker's end of a pipe.

    `renderer` is the number of the renderer that draws the task, or None where the worker process draws for itself.
    """

    slot: int
    episode: Episode
    renderer: int | None


@dataclass(frozen=True)
class BuildTask:
    """Asks to build the environment of the episode's task, which slots are likely to need; see StartWorker."""

    episode: Episode
    renderer: int | None


@dataclass(frozen=True)
class ForgetTask:
    """Asks to free the environment of a task that no new slot is likely to need; slots that have it keep theirs."""

    task: Task


@dataclass(frozen=True)
class ExitCode:
    """Asks for the exit code of the last worker process in slot `slot`, which has ended; the reply is a number."""

    slot: int


Request = StartWorker | BuildTask | ForgetTask | ExitCode


@dataclass(frozen=True)
class Common:
    """What all worker processes of an evaluation have in common.

    `turn` is held by a worker process while it works, so that no more of them work at a time than there are cores.
    """

    make: MakeSimulator
    video_config: VideoConfig
    pictures: Mapping[int, Pictures]
    turn: Turn
    renderers: Sequence[socket.socket] = ()  # by which requests reach them
    channels: Mapping[int, Channel] = field(default_factory=dict)  # of the slots, where there are renderers


def send(requests: socket.socket, request: Request, *descriptors: int) -> None:
    """Sends a request to the builder process, with descriptors that it gets copies of."""
    socket.send_fds(requests, [pickle.dumps(request)], descriptors)


def serve(requests: socket.socket, common: Common) -> None:
    """Obeys the requests until the end of file, then waits for the worker processes, which end with the main process.

    An environment that cannot be built ends its slot's pipe with WorkerFailed.
    """
    builder = Builder(common)
    gc.freeze()  # a collection would write to, and so copy, the memory that processes share
    while message := _receive(requests):
        request, descriptors = message
        if isinstance(request, StartWorker):
            builder.start(request, Connection(descriptors[0]), requests)
        elif isinstance(request, BuildTask):
            builder.build_ahead(request)
        elif isinstance(request, ForgetTask):
            builder.simulators.pop(request.task, None)
        else:
            requests.send(str(builder.exit_code(request.slot)).encode())
    for number in [*builder.pids]:
        builder.exit_code(number)


def _receive(requests: socket.socket) -> tuple[Request, Sequence[int]] | None:
    message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 1)
    return (pickle.loads(message), descriptors) if message else None


@dataclass
class Builder:
    """Holds the environments that a builder process has built, and the process ids of the worker processes by slot."""

    common: Common
    simulators: dict[Task, "Simulator"] = field(default_factory=dict)
    pids: dict[int, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # not yet told by a worker process

    def start(self, request: StartWorker, pipe: Connection, requests: socket.socket) -> None:
        """Forks a worker process, after the environment of its task has been built if need be."""
        try:
            simulator = self._simulator_of(request)
        except Exception:
            pipe.send(WorkerFailed(traceback.format_exc()))
            pipe.close()
            return
        if request.slot in self.pids:
            self.exit_code(request.slot)
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pids[request.slot] = os.fork()
        if not self.pids[request.slot]:
            requests.close()
            self._work(parent, request, pipe, simulator)
        pipe.close()
        self.seconds.clear()

    def build_ahead(self, request: BuildTask) -> None:
        """Builds an environment before a slot asks for it. What cannot be built fails when a slot asks."""
        with contextlib.suppress(Exception):
            self._simulator_of(request)

    def _simulator_of(self, request: StartWorker | BuildTask) -> "Simulator":
        task = request.episode.task
        if task not in self.simulators:
            start = time.perf_counter()
            simulator = self.common.make(request.episode)
            if request.renderer is not None:
                simulator.load_into(self.common.renderers[request.renderer], task)
            self.simulators[task] = simulator
            self.seconds["build"] += time.perf_counter() - start
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)  # compiling a model leaves some hundred MB that nothing uses
            gc.freeze()
        return self.simulators[task]

    def _work(self, parent: int, request: StartWorker, pipe: Connection, simulator: "Simulator") -> None:
        """Is the worker process of a slot; never returns."""
        code = 1
        try:
            prctl.end_with_parent(parent)
            slot.serve(pipe, lambda: self._worker(request, simulator), self.common.turn)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _worker(self, request: StartWorker, simulator: "Simulator") -> Worker:
        common, number, task, start = self.common, request.slot, request.episode.task, time.perf_counter()
        if request.renderer is None:
            simulator.open_graphics()
        else:
            renderer = common.renderers[request.renderer]
            simulator.draw_with(renderer, common.channels[number], number, task, common.turn)
        self.seconds["graphics"] += time.perf_counter() - start
        pictures = common.pictures[number]
        return Worker(number, task, pictures, simulator, common.video_config, self.seconds, common.turn)

    def exit_code(self, number: int) -> int:
        """Waits for the end of the worker process in slot `number` and returns its exit code, negative for a signal."""
        _, status = os.waitpid(self.pids.pop(number), 0)
        return os.waitstatus_to_exitcode(status)
