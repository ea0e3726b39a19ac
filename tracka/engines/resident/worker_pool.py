"""The environment slots: worker processes, the builder processes that they are forked from, and the renderers.

The main process forks builder processes and renderers before anything touches a GPU.

Guarantees: a worker process, a builder process or a renderer that dies ends the evaluation with an error that has its
last message; no such process outlives this process.
"""

import contextlib
import mmap
import multiprocessing
import socket
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from . import channel
from .builder import BuildTask, Common, ForgetTask, StartWorker
from .channel import Channel
from .child_processes import ENDING_SECS, BuilderProcess, Forking, RendererProcess, WorkerLost
from .episode import Episode, Task
from .slot import MakeSimulator, Pictures, ReportTimings, VideoConfig, WorkerFailed, WorkerTimings
from .turn import Turn

KEPT_TASKS = 10  # built environments, unless slots have more; each takes some hundred MB of the host's memory
CAUSE_SECS = 0.5  # a worker process may say that it has lost a renderer before that renderer's own end is seen
Cameras = Mapping[str, tuple[int, int, int]]


class WorkerPool:
    """Holds `n_slots` environment slots. Each has a worker process, of which at most `n_workers` work at a time.

    `cameras` gives the shape (height, width, 3) of each camera's pictures; `output` is the descriptor that the
    processes print to, or None for this process's own files. Without renderers each worker process draws for itself.
    `tasks` holds the task whose environment each slot has.
    """

    def __init__(
        self,
        n_workers: int,
        n_slots: int,
        cameras: Cameras,
        make: MakeSimulator,
        video_config: VideoConfig,
        output: int | None = None,
        n_tasks: int | None = None,
        n_renderers: int = 0,
    ) -> None:
        """Starts the renderers, and as many builder processes as `n_tasks` tasks need; None is any number of tasks."""
        self.pictures: dict[int, Pictures] = {number: _shared(cameras) for number in range(n_slots)}
        self.tasks: dict[int, Task] = {}
        self.pipes: dict[int, Connection] = {}
        self._ending: list[Connection] = []  # of worker processes that were told to end, until they send their timings
        self._last_timings: list[WorkerTimings] = []
        # The builder process and the renderer of each task; the task that was needed last comes last.
        self._placed: dict[Task, tuple[BuilderProcess, RendererProcess | None]] = {}
        channels = _channels(cameras, n_slots) if n_renderers else {}
        forking = Forking(output, [])
        self.renderers = [RendererProcess.start(number, forking, channels) for number in range(n_renderers)]
        to_renderers = [each.requests for each in self.renderers]
        turn = Turn(multiprocessing.get_context("fork").Semaphore(n_workers))
        common = Common(make, video_config, self.pictures, turn, to_renderers, channels)
        n_builders = min(n_workers, n_tasks or n_workers)
        self.builders = [BuilderProcess.start(number, forking, common) for number in range(n_builders)]

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def lives(self) -> bool:
        """Returns whether all processes live, while no slot plays: one may have been killed between two evaluations."""
        processes = [each.process for each in self.builders] + [each.process for each in self.renderers]
        return all(process.is_alive() for process in processes) and not wait([*self.pipes.values()], timeout=0)

    @property
    def n_processes(self) -> int:
        """Returns the number of builder processes, renderers and worker processes."""
        return len(self.builders) + len(self.renderers) + len(self.pipes)

    def build(self, first: Sequence[Episode]) -> None:
        """Has the first slots build the environments of these episodes, one each, and does not wait for them."""
        for number, episode in enumerate(first):
            self.place(number, episode)

    def build_ahead(self, episodes: Sequence[Episode]) -> None:
        """Has the environments of these episodes' tasks built, as many as are kept, and does not wait for them.

        Raises WorkerLost where a builder process has died.
        """
        for episode in episodes:
            if episode.task not in self._placed and len(self._placed) < KEPT_TASKS:
                builder, renderer = self._place_task(episode.task)
                builder.ask(BuildTask(episode, renderer.number if renderer else None))

    def place(self, number: int, episode: Episode) -> None:
        """Gives slot `number` the environment of the episode's task, if it has another. Does not wait for it.

        The slot must be free. Raises WorkerLost where a process has died.
        """
        if self.tasks.get(number) == episode.task:
            return
        if number in self.pipes:
            self._send(number, None)
            self._ending.append(self.pipes.pop(number))
            self._read_last_timings(timeout=0)
        self.tasks[number] = episode.task
        ours, theirs = socket.socketpair()
        self.pipes[number] = Connection(ours.detach())
        builder, renderer = self._place_task(episode.task)
        builder.ask(StartWorker(number, episode, renderer.number if renderer else None), theirs.fileno())
        theirs.close()

    def _place_task(self, task: Task) -> tuple[BuilderProcess, RendererProcess | None]:
        """Returns the processes that have built and loaded a task, else those with the fewest tasks."""
        builders, renderers = ([pair[index] for pair in self._placed.values()] for index in (0, 1))
        placed = self._placed.pop(task, None) or (
            min(self.builders, key=builders.count),
            min(self.renderers, key=renderers.count, default=None),
        )
        self._placed[task] = placed
        self._forget_old_tasks()
        return placed

    def _forget_old_tasks(self) -> None:
        held = {*self.tasks.values()}
        unused = [task for task in self._placed if task not in held]
        for task in unused[: max(0, len(self._placed) - KEPT_TASKS)]:
            builder, renderer = self._placed.pop(task)
            builder.ask(ForgetTask(task))
            if renderer:
                renderer.ask(channel.ForgetTask(task))

    def send(self, number: int, command: Any) -> None:
        """Sends a command to the worker process of slot `number`, which gets the episode's task first if need be."""
        if episode := getattr(command, "episode", None):
            self.place(number, episode)
        self._send(number, command)

    def _send(self, number: int, command: Any) -> None:
        try:
            self.pipes[number].send(command)
        except OSError:
            raise self._lost(number) from None

    def replies(self, timeout: float | None = None) -> list[Any]:
        """Waits for the worker processes and returns their replies: at least one, or none after `timeout` seconds.

        Raises WorkerLost where a process failed or died.
        """
        sentinels = {each.process.sentinel: each for each in self.builders}
        ready = wait([*self.pipes.values(), *sentinels, *(each.failures for each in self.renderers)], timeout)
        self._require_renderers(timeout=0)
        for sentinel, builder in sentinels.items():
            if sentinel in ready:
                raise builder.lost()
        return [self._receive(number) for number, pipe in self.pipes.items() if pipe in ready]

    def _require_renderers(self, timeout: float) -> None:
        """Raises WorkerLost where a renderer has failed or died, or does so within `timeout` seconds."""
        if self.renderers and (ready := wait([each.failures for each in self.renderers], timeout)):
            raise next(each for each in self.renderers if each.failures in ready).lost()

    def _receive(self, number: int) -> Any:
        try:
            reply = self.pipes[number].recv()
        except (EOFError, OSError):
            raise self._lost(number) from None
        if isinstance(reply, WorkerFailed):
            raise self._failed(number, reply)
        return reply

    def _failed(self, number: int, failure: WorkerFailed) -> WorkerLost:
        """Returns the error of a worker process that failed. Raises WorkerLost where a renderer is the cause."""
        self._require_renderers(CAUSE_SECS)
        return WorkerLost(f"the worker process of slot {number} failed:\n{failure.trace}")

    def _lost(self, number: int) -> WorkerLost:
        """Returns the error of a worker process that has closed its pipe, with the failure that it may have left."""
        with contextlib.suppress(EOFError, OSError):
            while self.pipes[number].poll():
                if isinstance(reply := self.pipes[number].recv(), WorkerFailed):
                    return self._failed(number, reply)
        builder, _ = self._placed[self.tasks[number]]
        return builder.worker_lost(number)

    def collect_timings(self) -> list[WorkerTimings]:
        """Returns what each worker process spent its time on since the last call of `collect_timings`.

        `collect_timings` may be called only while no slot plays. Raises WorkerLost where a worker process failed or
        died.
        """
        for number in self.pipes:
            self._send(number, ReportTimings())
        while self._ending:
            self._read_last_timings(timeout=None)
        last, self._last_timings = self._last_timings, []
        return [*last, *map(self._receive, self.pipes)]

    def _read_last_timings(self, timeout: float | None) -> None:
        for pipe in wait(self._ending, timeout):
            assert isinstance(pipe, Connection)
            self._ending.remove(pipe)
            with pipe:
                try:
                    self._last_timings.append(pipe.recv())
                except (EOFError, OSError):
                    raise WorkerLost("a worker process died when it was told to end") from None

    def stop(self) -> None:
        """Tells all processes to end and waits for each, at most ENDING_SECS."""
        for number in self.pipes:
            self._send(number, None)
        for each in self.builders:
            each.requests.close()
        for each in self.builders:
            each.process.join(ENDING_SECS)
        for renderer in self.renderers:
            renderer.process.terminate()
            renderer.process.join(ENDING_SECS)


def _shared(cameras: Cameras) -> Pictures:
    """Returns arrays for a slot's pictures, in memory that forked processes share."""
    return {
        camera: np.frombuffer(mmap.mmap(-1, int(np.prod(shape))), np.uint8).reshape(shape)
        for camera, shape in cameras.items()
    }


def _channels(cameras: Cameras, n_slots: int) -> dict[int, Channel]:
    picture_bytes = max(int(np.prod(shape)) for shape in cameras.values())
    return {number: Channel(picture_bytes, len(cameras)) for number in range(n_slots)}
