"""The worker processes: forked before anything touches a GPU, each with its own environment slots.

Guarantees: a worker process that dies ends the evaluation with an error that has its last message; no worker process
outlives this process.
"""

import mmap
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from ...execution import prctl
from . import slot
from .episode import Episode, Task
from .slot import BuildEnvironment, MakeSimulator, Pictures, ReportTimings, VideoConfig, WorkerFailed, WorkerTimings

ENDING_SECS = 60
NICE = 10


class WorkerLost(RuntimeError):
    """Raised when a worker process failed or died."""


class WorkerPool:
    """Holds `n_slots` environment slots, spread over at most `n_workers` worker processes.

    Slot k is with the worker process k modulo their number. `cameras` gives the shape (height, width, 3) of each
    camera's pictures; `output` is the descriptor that worker processes print to, or None for this process's own files.
    `tasks` holds the task whose environment each slot has built.
    """

    def __init__(
        self,
        n_workers: int,
        n_slots: int,
        cameras: Mapping[str, tuple[int, int, int]],
        make: MakeSimulator,
        video_config: VideoConfig,
        output: int | None = None,
    ) -> None:
        # A forked process needs no imports of its own; forking is safe here, since EGL is not in use yet.
        context = multiprocessing.get_context("fork")
        self.pictures: dict[int, Pictures] = {number: _shared(cameras) for number in range(n_slots)}
        self.tasks: dict[int, Task] = {}
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        count = min(n_workers, n_slots)
        for worker in range(count):
            ours, theirs = context.Pipe()
            own = {number: self.pictures[number] for number in range(worker, n_slots, count)}
            process = context.Process(
                target=_serve,
                args=(os.getpid(), output, theirs, [*self.pipes, ours], own, make, video_config),
                daemon=True,
            )
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def __len__(self) -> int:
        return len(self.pictures)

    def build(self, first: Sequence[Episode]) -> None:
        """Has the first slots build the environments of these episodes, one each, and does not wait for them."""
        for number, episode in enumerate(first):
            self.tasks[number] = episode.task
            self.send(number, BuildEnvironment(number, episode))

    def send(self, number: int, command: Any) -> None:
        """Sends a command to the worker process of slot `number`."""
        self.pipes[number % len(self.pipes)].send(command)

    def replies(self) -> list[Any]:
        """Waits for the worker processes and returns their replies, at least one.

        Raises WorkerLost where a worker process failed or died.
        """
        ready = wait([*self.pipes, *(process.sentinel for process in self.processes)])
        return [self._receive(index) for index, pipe in enumerate(self.pipes) if pipe in ready] or self._check(ready)

    def _receive(self, index: int) -> Any:
        try:
            reply = self.pipes[index].recv()
        except (EOFError, ConnectionError):
            process = self.processes[index]
            process.join(ENDING_SECS)
            raise WorkerLost(f"worker process {index} died with exit code {process.exitcode}") from None
        if isinstance(reply, WorkerFailed):
            raise WorkerLost(f"worker process {index} failed:\n{reply.trace}")
        return reply

    def _check(self, ready: list[Any]) -> list[Any]:
        for index, process in enumerate(self.processes):
            if process.sentinel in ready:
                raise WorkerLost(f"worker process {index} died with exit code {process.exitcode}")
        return []

    def collect_timings(self) -> list[WorkerTimings]:
        """Returns what each worker process spent its time on since the last call of `collect_timings`.

        `collect_timings` may be called only while no slot plays. Raises WorkerLost where a worker process failed or
        died.
        """
        for pipe in self.pipes:
            pipe.send(ReportTimings())
        return [self._receive(index) for index in range(len(self.pipes))]

    def stop(self) -> None:
        """Tells the worker processes to end and waits for each, at most ENDING_SECS."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(ENDING_SECS)


def _serve(parent: int, output: int | None, pipe: Connection, other_pipes: list[Connection], *work: Any) -> None:
    prctl.end_with_parent(parent)
    for other_pipe in other_pipes:
        other_pipe.close()  # a pipe that stays open here would hide its end of file when the parent dies
    if output is not None:
        os.dup2(output, 1)
        os.dup2(output, 2)
    # The policy's threads wait for each other at every operation: one that waits for a core delays them all.
    os.nice(NICE)
    slot.serve(pipe, *work)


def _shared(cameras: Mapping[str, tuple[int, int, int]]) -> Pictures:
    """Returns arrays for a slot's pictures, in memory that forked processes share."""
    return {
        camera: np.frombuffer(mmap.mmap(-1, int(np.prod(shape))), np.uint8).reshape(shape)
        for camera, shape in cameras.items()
    }
