"""The environment processes: forked before anything touches a GPU, each with its slots.

Guarantees: a worker that dies ends the evaluation with what it said last; no worker outlives this process.
"""

import mmap
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from ...execution import supervisor
from . import slot
from .episode import Episode, Task
from .slot import Account, Build, Failed, Filming, MakeSimulator, Pictures, Spent

ENDING_SECS = 60
NICE = 10


class WorkerLost(RuntimeError):
    """An environment process failed or died."""


class Crew:
    """`n_slots` slots over `n_workers` processes, slot k with worker k modulo their number.

    `cameras` gives the (height, width, 3) of each camera's picture; `output` is where the processes print, if not
    where this one does. `tasks` holds what each slot has built.
    """

    def __init__(
        self,
        n_workers: int,
        n_slots: int,
        cameras: Mapping[str, tuple[int, int, int]],
        make: MakeSimulator,
        filming: Filming,
        output: int | None = None,
    ) -> None:
        context = multiprocessing.get_context("fork")  # they need no import of their own, and EGL is not in use yet
        self.pictures: dict[int, Pictures] = {number: _shared(cameras) for number in range(n_slots)}
        self.tasks: dict[int, Task] = {}
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        count = min(n_workers, n_slots)
        for worker in range(count):
            ours, theirs = context.Pipe()
            own = {number: self.pictures[number] for number in range(worker, n_slots, count)}
            process = context.Process(
                target=_serve, args=(output, theirs, [*self.pipes, ours], own, make, filming), daemon=True
            )
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def __len__(self) -> int:
        return len(self.pictures)

    def build(self, first: Sequence[Episode]) -> None:
        """Lets the first slots build the environments of these episodes, one each, while something else is done."""
        for number, episode in enumerate(first):
            self.tasks[number] = episode.task
            self.send(number, Build(number, episode))

    def send(self, number: int, command: Any) -> None:
        """Tells slot `number`'s worker what to do."""
        self.pipes[number % len(self.pipes)].send(command)

    def replies(self) -> list[Any]:
        """What the workers have said, at least one thing. Raises WorkerLost."""
        ready = wait([*self.pipes, *(process.sentinel for process in self.processes)])
        return [self._receive(index) for index, pipe in enumerate(self.pipes) if pipe in ready] or self._check(ready)

    def _receive(self, index: int) -> Any:
        try:
            reply = self.pipes[index].recv()
        except (EOFError, ConnectionError):
            process = self.processes[index]
            process.join(ENDING_SECS)
            raise WorkerLost(f"environment process {index} died with exit code {process.exitcode}") from None
        if isinstance(reply, Failed):
            raise WorkerLost(f"environment process {index} failed:\n{reply.trace}")
        return reply

    def _check(self, ready: list[Any]) -> list[Any]:
        for index, process in enumerate(self.processes):
            if process.sentinel in ready:
                raise WorkerLost(f"environment process {index} died with exit code {process.exitcode}")
        return []

    def spent(self) -> list[Spent]:
        """What each worker spent its time on since this was asked last. Call it when no slot plays."""
        for pipe in self.pipes:
            pipe.send(Account())
        return [self._receive(index) for index in range(len(self.pipes))]

    def stop(self) -> None:
        """Ends the workers."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(ENDING_SECS)


def _serve(output: int | None, pipe: Connection, others: list[Connection], *work: Any) -> None:
    supervisor.end_with_parent()
    for other in others:
        other.close()  # or a dead parent would never be an end of file
    if output is not None:
        os.dup2(output, 1)
        os.dup2(output, 2)
    os.nice(NICE)  # the policy's threads wait for each other at every operation, and for cores behind us
    slot.serve(pipe, *work)


def _shared(cameras: Mapping[str, tuple[int, int, int]]) -> Pictures:
    """A slot's pictures in memory that forked processes share."""
    return {
        camera: np.frombuffer(mmap.mmap(-1, int(np.prod(shape))), np.uint8).reshape(shape)
        for camera, shape in cameras.items()
    }
