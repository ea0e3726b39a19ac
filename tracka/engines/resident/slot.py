"""A worker process, which has an environment slot: it resets and steps the slot's environment and records videos.

The policy is in the main process. A slot plays one episode at a time: it gets a chunk of actions, plays them to the end
of the chunk or of the episode, and draws the cameras at the last step alone. Pictures are returned in memory shared
with the main process, all else in messages.
"""

import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .episode import Array, Episode, EpisodeOutcome, Observation, Task, digest
from .turn import Turn

if TYPE_CHECKING:
    from .simulator import Simulator

MakeSimulator = Callable[[Episode], "Simulator"]
Pictures = Mapping[str, Array]  # camera -> (height, width, 3) bytes, shared with the main process


@dataclass(frozen=True)
class BeginEpisode:
    """Asks to reset the slot's environment to the beginning of the episode; the reply is ObservationReady."""

    slot: int
    episode: Episode


@dataclass(frozen=True)
class PlayActions:
    """Brings a slot's next actions, of shape (steps, 7); the reply is ObservationReady or EpisodeEnded."""

    slot: int
    actions: Array


@dataclass(frozen=True)
class RecordVideo:
    """Asks to play an episode's recorded actions once more for a video at `path`; the reply is VideoRecorded."""

    slot: int
    episode: Episode
    actions: Array
    final_state: str
    path: Path


@dataclass(frozen=True)
class ReportTimings:
    """Asks for what the time was spent on since the last such command; the reply is WorkerTimings."""


@dataclass(frozen=True)
class ObservationReady:
    """Says that the slot waits for actions: an observation request, whose pictures are in the shared memory."""

    slot: int
    robot_state: Observation
    description: str


@dataclass(frozen=True)
class EpisodeEnded:
    """Says that the slot's episode has ended."""

    slot: int
    outcome: EpisodeOutcome


@dataclass(frozen=True)
class VideoRecorded:
    """Says that a video is written, and whether the episode went as recorded."""

    slot: int
    path: Path
    difference: str | None  # what differs from the recorded episode; None if it ended in the same state


@dataclass(frozen=True)
class WorkerFailed:
    """Says that the worker process ends with an error."""

    trace: str


@dataclass(frozen=True)
class WorkerTimings:
    """Holds the seconds of a worker process by kind of work, and a sentence for each speedup that it could not use."""

    seconds: Mapping[str, float]
    fallbacks: tuple[str, ...]


@dataclass(frozen=True)
class VideoConfig:
    """Says how videos are recorded: one frame every `stride` control steps."""

    stride: int
    frames_per_second: int


def serve(pipe: Connection, begin: "Callable[[], Worker]", turn: Turn) -> None:
    """Obeys the commands from `pipe` until None, which WorkerTimings answer, or the end of file.

    Works only while it holds `turn`. Sends any error as WorkerFailed and raises it.
    """
    try:
        with turn:
            worker = begin()
        while (command := pipe.recv()) is not None:
            with turn:
                reply = worker.handle(command)
            pipe.send(reply)
        pipe.send(worker.handle(ReportTimings()))
    except EOFError:
        return
    except BaseException:
        pipe.send(WorkerFailed(traceback.format_exc()))
        raise


class Worker:
    """Plays the episodes of slot `number` with a built simulator of `task`. `seconds` has what the building took."""

    def __init__(
        self,
        number: int,
        task: Task,
        pictures: Pictures,
        simulator: "Simulator",
        video_config: VideoConfig,
        seconds: Mapping[str, float],
        turn: Turn,
    ) -> None:
        self.number, self.task = number, task
        self.pictures, self.simulator, self.video_config = pictures, simulator, video_config
        self.seconds: dict[str, float] = defaultdict(float, seconds)
        self.turn = turn
        self.fallbacks: dict[str, None] = {}
        self.first_state = ""
        self.actions: list[Array] = []
        self.rewards: list[float] = []

    def handle(self, command: BeginEpisode | PlayActions | RecordVideo | ReportTimings) -> Any:
        """Does what one command asks for and returns the reply."""
        if isinstance(command, BeginEpisode):
            return self._observation_ready(self._reset(command.episode))
        if isinstance(command, PlayActions):
            return self._act(command.actions)
        if isinstance(command, RecordVideo):
            return self._record_video(command)
        return self._timings()

    def _timings(self) -> WorkerTimings:
        timings = WorkerTimings(dict(self.seconds), tuple(self.fallbacks))
        self.seconds.clear()
        self.fallbacks.clear()
        return timings

    def _reset(self, episode: Episode) -> Observation:
        if episode.task != self.task:
            raise ValueError(f"slot {self.number} has an environment of {self.task}, not of {episode.task}")
        self.fallbacks.update(dict.fromkeys(self.simulator.fallbacks))
        self.actions, self.rewards = [], []
        with self._timed("reset"):
            observation = self.simulator.reset(episode.seed, episode.init_state, episode.ordinal)
        self.first_state = digest(self.simulator.state())
        return observation

    def _act(self, actions: Array) -> ObservationReady | EpisodeEnded:
        limit = self.simulator.max_steps - len(self.actions)
        with self._timed("step"):
            for index, action in enumerate(actions[:limit]):
                step = self.simulator.step(action, observe=index == len(actions) - 1 and index < limit - 1)
                self.actions.append(action)
                self.rewards.append(step.reward)
                if step.done or index == limit - 1:
                    return EpisodeEnded(self.number, self._outcome(step.success))
        assert step.observation is not None
        return self._observation_ready(step.observation)

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        """Counts the seconds of the block as work of this kind, without those in which a renderer is waited for.

        The seconds of CPU time are counted too, under the kind and `_cpu`. Both differ by the waiting for a core.
        """
        start, cpu_start, waited_before = time.perf_counter(), time.process_time(), self.turn.waited
        try:
            yield
        finally:
            waited = self.turn.waited - waited_before
            self.seconds[kind] += time.perf_counter() - start - waited
            self.seconds[f"{kind}_cpu"] += time.process_time() - cpu_start
            if waited:
                self.seconds["pictures"] += waited

    def _observation_ready(self, observation: Observation) -> ObservationReady:
        for camera, picture in observation["pixels"].items():
            self.pictures[camera][:] = picture
        return ObservationReady(self.number, observation.get("robot_state", {}), self.simulator.description)

    def _outcome(self, success: bool) -> EpisodeOutcome:
        rewards = sum(self.rewards), max(self.rewards)
        return EpisodeOutcome(
            success, *rewards, np.stack(self.actions), self.first_state, digest(self.simulator.state())
        )

    def _record_video(self, command: RecordVideo) -> VideoRecorded:
        from lerobot.utils.io_utils import write_video

        self._reset(command.episode)
        with self._timed("film"):
            frames = [self.simulator.frame()]
            for number, action in enumerate(command.actions, start=1):
                self.turn.take()  # it was given back for the last picture
                self.simulator.step(action, observe=number % self.video_config.stride == 0)
                if number % self.video_config.stride == 0:
                    frames.append(self.simulator.frame())
            self.turn.take()
            command.path.parent.mkdir(parents=True, exist_ok=True)
            write_video(str(command.path), frames, self.video_config.frames_per_second)
        final_state = digest(self.simulator.state())
        same = final_state == command.final_state
        return VideoRecorded(
            command.slot, command.path, None if same else f"the final state is {final_state[:12]}, not the recorded one"
        )
