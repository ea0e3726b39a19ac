"""Episodes as lerobot-eval counts them, their outcomes, and observation requests. Imports nothing heavy.

Guarantees: an episode's number decides its seed, init state and count of earlier resets as in lerobot-eval's
environments, so the same row means the same episodes in both engines, whatever environment slot plays them.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Observation = dict[str, Any]  # nested arrays, as lerobot's LiberoEnv returns them
Task = tuple[str, int]  # suite and number of the LIBERO task


@dataclass(frozen=True)
class Episode:
    """One episode of one LIBERO task. `number` is its index among the task's episodes in lerobot-eval."""

    suite: str
    task_id: int
    number: int
    seed: int
    batch_size: int  # environments of one task that lerobot-eval steps together

    @property
    def task(self) -> Task:
        """Returns the suite and the number of the LIBERO task."""
        return self.suite, self.task_id

    @property
    def init_state(self) -> int:
        """Returns the index of the init state, before LIBERO takes it modulo the number of states.

        lerobot-eval's environment i of n starts at init state i and moves on by n with each reset.
        """
        return self.number

    @property
    def ordinal(self) -> int:
        """Returns how often lerobot-eval's environment was reset before this episode."""
        return self.number // self.batch_size

    @property
    def position(self) -> int:
        """Returns the episode's place in lerobot-eval's batch, on which a policy's rounding may depend."""
        return self.number % self.batch_size

    @property
    def batch(self) -> tuple[int, int]:
        """Returns the number of the task and of the batch in which lerobot-eval plays the episode."""
        return self.task_id, self.ordinal


def episodes(suite: str, task_ids: Sequence[int], n_episodes: int, batch_size: int, seed: int) -> list[Episode]:
    """Returns all episodes of a row in lerobot-eval's order: one task after the other, all with the same seeds."""
    return [
        Episode(suite, task_id, number, seed + number, batch_size)
        for task_id in task_ids
        for number in range(n_episodes)
    ]


@dataclass(frozen=True)
class EpisodeOutcome:
    """Holds how an episode went. `actions` has the shape (steps, 7); the rewards are sum and maximum over the steps."""

    success: bool
    sum_reward: float
    max_reward: float
    actions: Array
    first_state: str  # SHA-256 of the simulator's time, positions and velocities at the policy's first observation
    final_state: str  # SHA-256 of the same quantities at the end

    @property
    def steps(self) -> int:
        """Returns the number of control steps."""
        return len(self.actions)

    @property
    def actions_sha(self) -> str:
        """Returns the SHA-256 of the actions as float32, row by row: equal for equal sequences of actions."""
        return digest(self.actions.astype(np.float32))


def digest(array: Array) -> str:
    """Returns the SHA-256 of an array's bytes in row-major order, as hex digits."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def observation_sha(observation: Observation) -> str:
    """Returns the SHA-256 of an observation's arrays with their names and shapes, in the order of the names.

    Pictures are hashed as bytes, all other arrays as float64.
    """
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
class ObservationRequest:
    """An observation request: the observation for which a policy must return an episode's next chunk of actions.

    `chunk` counts the requests of the episode from 0.
    """

    episode: Episode
    chunk: int
    description: str  # the task in words
    observation: Observation
