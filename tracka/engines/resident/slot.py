"""A worker process and its environment slots: it builds, resets and steps environments and records videos.

The policy is in the parent process. A slot plays one episode at a time: it gets a chunk of actions, plays them to the
end of the chunk or of the episode, and draws the cameras at the last step alone. Pictures are returned in memory shared
with the parent, all else in messages.
"""

import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .episode import Array, Episode, EpisodeOutcome, Observation, Task, digest

if TYPE_CHECKING:
    from .simulator import Simulator

MakeSimulator = Callable[[Episode], "Simulator"]
Pictures = Mapping[str, Array]  # camera -> (height, width, 3) bytes, shared with the parent


@dataclass(frozen=True)
class BuildEnvironment:
    """Asks to build the environment of the episode's task, which the slot is likely to need next; there is no reply."""

    slot: int
    episode: Episode


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


@dataclass
class Slot:
    """Holds an environment slot: its simulator, and the episode that it plays with the actions and rewards so far."""

    pictures: Pictures
    simulator: "Simulator | None" = None
    task: Task | None = None
    episode: Episode | None = None
    first_state: str = ""
    actions: list[Array] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class VideoConfig:
    """Says how videos are recorded: one frame every `stride` control steps."""

    stride: int
    frames_per_second: int


def serve(pipe: Connection, pictures: Mapping[int, Pictures], make: MakeSimulator, video_config: VideoConfig) -> None:
    """Obeys the commands from `pipe` until None or the end of file. Sends any error as WorkerFailed and raises it."""
    worker = Worker(pictures, make, video_config)
    try:
        while (command := pipe.recv()) is not None:
            if (reply := worker.handle(command)) is not None:
                pipe.send(reply)
        worker.close()
    except EOFError:
        worker.close()
    except BaseException:
        pipe.send(WorkerFailed(traceback.format_exc()))
        raise


class Worker:
    """Plays the environment slots of one worker process."""

    def __init__(self, pictures: Mapping[int, Pictures], make: MakeSimulator, video_config: VideoConfig) -> None:
        self.slots = {number: Slot(shared) for number, shared in pictures.items()}
        self.make = make
        self.video_config = video_config
        self.seconds: dict[str, float] = defaultdict(float)
        self.fallbacks: dict[str, None] = {}

    def handle(self, command: BuildEnvironment | BeginEpisode | PlayActions | RecordVideo | ReportTimings) -> Any:
        """Does what one command asks for and returns the reply, None for BuildEnvironment."""
        if isinstance(command, ReportTimings):
            return self._timings()
        slot = self.slots[command.slot]
        if isinstance(command, BuildEnvironment):
            self._simulator_of(slot, command.episode)
            return None
        if isinstance(command, BeginEpisode):
            return self._begin(command.slot, slot, command.episode)
        if isinstance(command, PlayActions):
            return self._act(command.slot, slot, command.actions)
        return self._record_video(slot, command)

    def close(self) -> None:
        """Closes all simulators."""
        for slot in self.slots.values():
            if slot.simulator is not None:
                slot.simulator.close()

    def _timings(self) -> WorkerTimings:
        timings = WorkerTimings(dict(self.seconds), tuple(self.fallbacks))
        self.seconds.clear()
        self.fallbacks.clear()
        return timings

    def _begin(self, number: int, slot: Slot, episode: Episode) -> ObservationReady:
        observation = self._reset(slot, episode)
        return self._observation_ready(number, slot, observation)

    def _reset(self, slot: Slot, episode: Episode) -> Observation:
        simulator = self._simulator_of(slot, episode)
        self.fallbacks.update(dict.fromkeys(simulator.fallbacks))
        slot.episode, slot.actions, slot.rewards = episode, [], []
        start = time.perf_counter()
        observation = simulator.reset(episode.seed, episode.init_state, episode.ordinal)
        self.seconds["reset"] += time.perf_counter() - start
        slot.first_state = digest(simulator.state())
        return observation

    def _simulator_of(self, slot: Slot, episode: Episode) -> "Simulator":
        """Returns the slot's simulator of the episode's task, built if need be.

        A simulator of another task is closed first, since it holds memory.
        """
        if slot.simulator is None or slot.task != episode.task:
            start = time.perf_counter()
            if slot.simulator is not None:
                slot.simulator.close()
            slot.simulator, slot.task = self.make(episode), episode.task
            self.seconds["build"] += time.perf_counter() - start
        return slot.simulator

    def _act(self, number: int, slot: Slot, actions: Array) -> ObservationReady | EpisodeEnded:
        assert slot.simulator is not None and slot.episode is not None
        limit = slot.simulator.max_steps - len(slot.actions)
        start = time.perf_counter()
        for index, action in enumerate(actions[:limit]):
            step = slot.simulator.step(action, observe=index == len(actions) - 1 and index < limit - 1)
            slot.actions.append(action)
            slot.rewards.append(step.reward)
            if step.done or index == limit - 1:
                self.seconds["step"] += time.perf_counter() - start
                return EpisodeEnded(number, _outcome(slot, step.success))
        self.seconds["step"] += time.perf_counter() - start
        assert step.observation is not None
        return self._observation_ready(number, slot, step.observation)

    def _observation_ready(self, number: int, slot: Slot, observation: Observation) -> ObservationReady:
        assert slot.simulator is not None
        for camera, picture in observation["pixels"].items():
            slot.pictures[camera][:] = picture
        return ObservationReady(number, observation.get("robot_state", {}), slot.simulator.description)

    def _record_video(self, slot: Slot, command: RecordVideo) -> VideoRecorded:
        from lerobot.utils.io_utils import write_video

        self._reset(slot, command.episode)
        assert slot.simulator is not None
        start = time.perf_counter()
        frames = [slot.simulator.frame()]
        for number, action in enumerate(command.actions, start=1):
            slot.simulator.step(action, observe=number % self.video_config.stride == 0)
            if number % self.video_config.stride == 0:
                frames.append(slot.simulator.frame())
        command.path.parent.mkdir(parents=True, exist_ok=True)
        write_video(str(command.path), frames, self.video_config.frames_per_second)
        self.seconds["film"] += time.perf_counter() - start
        final_state = digest(slot.simulator.state())
        same = final_state == command.final_state
        return VideoRecorded(
            command.slot, command.path, None if same else f"the final state is {final_state[:12]}, not the recorded one"
        )


def _outcome(slot: Slot, success: bool) -> EpisodeOutcome:
    assert slot.simulator is not None
    actions = np.stack(slot.actions)
    rewards = sum(slot.rewards), max(slot.rewards)
    return EpisodeOutcome(success, *rewards, actions, slot.first_state, digest(slot.simulator.state()))
