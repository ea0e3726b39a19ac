"""The environment processes: forked before anything touches a GPU, each with its slots.

Guarantees: a worker that dies ends the evaluation with what it said last; no worker outlives this process.
"""

import mmap
import multiprocessing
import os
from collections.abc import Mapping
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from . import slot
from .slot import Failed, Filming, MakeSimulator, Pictures, Spent

ENDING_SECS = 60
NICE = 10


class WorkerLost(RuntimeError):
    """An environment process failed or died."""


class Crew:
    """`n_slots` slots over `n_workers` processes, slot k with worker k modulo their number.

    `cameras` gives the (height, width, 3) of each camera's picture.
    """

    def __init__(
        self,
        n_workers: int,
        n_slots: int,
        cameras: Mapping[str, tuple[int, int, int]],
        make: MakeSimulator,
        filming: Filming,
    ) -> None:
        context = multiprocessing.get_context("fork")  # they need no import of their own, and EGL is not in use yet
        self.pictures: dict[int, Pictures] = {number: _shared(cameras) for number in range(n_slots)}
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        count = min(n_workers, n_slots)
        for worker in range(count):
            ours, theirs = context.Pipe()
            own = {number: self.pictures[number] for number in range(worker, n_slots, count)}
            process = context.Process(
                target=_serve, args=(theirs, [*self.pipes, ours], own, make, filming), daemon=True
            )
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def __len__(self) -> int:
        return len(self.pictures)

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

    def stop(self) -> list[Spent]:
        """Ends the workers and returns what each spent its time on."""
        for pipe in self.pipes:
            pipe.send(None)
        spent = [self._receive(index) for index in range(len(self.pipes))]
        for process in self.processes:
            process.join(ENDING_SECS)
        return spent


def _serve(pipe: Connection, others: list[Connection], *work: Any) -> None:
    for other in others:
        other.close()  # or a dead parent would never be an end of file
    os.nice(NICE)  # the policy's threads wait for each other at every operation, and for cores behind us
    slot.serve(pipe, *work)


def _shared(cameras: Mapping[str, tuple[int, int, int]]) -> Pictures:
    """A slot's pictures in memory that forked processes share."""
    return {
        camera: np.frombuffer(mmap.mmap(-1, int(np.prod(shape))), np.uint8).reshape(shape)
        for camera, shape in cameras.items()
    }
