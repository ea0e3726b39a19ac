"""Episodes as lerobot-eval counts them, and what a worker is told and tells of them. Imports nothing heavy.

Guarantees: an episode's number decides its seed, init state and reset ordinal as in lerobot-eval's environments, so the
same row means the same episodes in both engines, whatever slot plays them.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Observation = dict[str, Any]  # nested arrays, as lerobot's LiberoEnv gives them
Task = tuple[str, int]  # suite and LIBERO task


@dataclass(frozen=True)
class Episode:
    """One episode of one LIBERO task. `number` is lerobot-eval's index of it among the task's episodes."""

    suite: str
    task_id: int
    number: int
    seed: int
    batch_size: int  # lerobot-eval's environments of one task

    @property
    def task(self) -> Task:
        return self.suite, self.task_id

    @property
    def init_state(self) -> int:
        """Before LIBERO's modulo: slot i of n starts at init state i and moves on by n a reset."""
        return self.number

    @property
    def ordinal(self) -> int:
        """How often its slot was reset before."""
        return self.number // self.batch_size

    @property
    def position(self) -> int:
        """Its place in lerobot-eval's batch. A policy's rounding may depend on it."""
        return self.number % self.batch_size

    @property
    def batch(self) -> tuple[int, int]:
        """Episodes with the same one are a batch of lerobot-eval: task and number of the batch."""
        return self.task_id, self.ordinal


def episodes(suite: str, task_ids: Sequence[int], n_episodes: int, batch_size: int, seed: int) -> list[Episode]:
    """All episodes of a row in lerobot-eval's order: each task's, one task after the other, seeded alike."""
    return [
        Episode(suite, task_id, number, seed + number, batch_size)
        for task_id in task_ids
        for number in range(n_episodes)
    ]


@dataclass(frozen=True)
class Outcome:
    """How an episode went. `actions` has the shape (steps, 7); rewards are summed over the steps."""

    success: bool
    sum_reward: float
    max_reward: float
    actions: Array
    first_state: str  # SHA-256 of the simulator's time, positions and velocities when the policy looks first
    final_state: str  # the same at the end

    @property
    def steps(self) -> int:
        return len(self.actions)

    @property
    def actions_sha(self) -> str:
        """SHA-256 of the actions as float32, row by row: equal for equal trajectories of commands."""
        return digest(self.actions.astype(np.float32))


def digest(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def observation_sha(observation: Observation) -> str:
    """SHA-256 of an observation's arrays in the order of their names: pictures as bytes, all else as float64."""
    total = hashlib.sha256()
    for name, array in _arrays(observation):
        total.update(name.encode() + str(array.shape).encode())
        total.update(np.ascontiguousarray(array if array.dtype == np.uint8 else array.astype(np.float64)))
    return total.hexdigest()


def _arrays(observation: Observation, prefix: str = "") -> Iterator[tuple[str, Array]]:
    for name, value in sorted(observation.items()):
        if isinstance(value, Mapping):
            yield from _arrays(dict(value), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", np.asarray(value)


@dataclass(frozen=True)
class Look:
    """What a policy sees of an episode when it must act: the `chunk`-th time, from 0."""

    episode: Episode
    chunk: int
    description: str  # the task in words
    observation: Observation
