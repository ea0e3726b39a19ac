"""Listens to lerobot-eval's own rollout() and records what each episode plays; started in place of lerobot-eval.

Usage: python -m tracka.engines.listener FLAGS OF LEROBOT-EVAL

The stock program runs unchanged around its own rollout(). What rollout() returns, and what its environments show at
each reset and step, is written to episodes.jsonl, actions/ and states/ in the output folder, with the keys that the
resident engine writes there. Listening draws no random number, asks the simulator for no step and changes no setting,
so the episodes are those of plain lerobot-eval, to the bit.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import recorded_arrays
from .recorded_arrays import ACTIONS, STATES
from .resident.episode import Array, digest, observation_sha

START = time.monotonic()
# The robot's state: position (m) and orientation (quaternion) of the hand, and the places of the two fingers (m).
STATE_PARTS = (("eef", "pos"), ("eef", "quat"), ("gripper", "qpos"))

Rollout = Callable[..., Any]
# (policy, keys of the batch's episodes) -> what is done around one rollout; a key is SUITE/TASK/SEED/EPISODE
Around = Callable[[Any, Sequence[str]], AbstractContextManager[None]]


def main(around: Around = lambda policy, keys: contextlib.nullcontext(), hash_observations: bool = False) -> None:
    """Runs lerobot-eval with this process's arguments and records every episode.

    With `hash_observations` an episode's line has a hash of each observation.
    """
    from lerobot.envs import libero
    from lerobot.scripts import lerobot_eval

    from .resident.recorded import RecordedEnv

    libero.LiberoEnv = RecordedEnv
    lerobot_eval.rollout = listening_rollout(lerobot_eval.rollout, around, hash_observations)
    lerobot_eval.main()


def listening_rollout(stock_rollout: Rollout, around: Around, hash_observations: bool) -> Rollout:
    """Returns lerobot-eval's rollout, extended to record what is played."""
    played: Counter[int] = Counter()  # LIBERO task -> the number of its episodes so far
    writer = Writer(Path(flag("output_dir")), flag("env.task"), int(flag("eval.n_episodes")))

    def rollout(env: Any, policy: Any, *args: Any, **kwargs: Any) -> Any:
        task_id, seeds = int(env.call("task_id")[0]), kwargs["seeds"]
        first = played[task_id]
        played[task_id] += len(seeds)
        keys = [f"{writer.suite}/{task_id}/{seed}/{first + slot}" for slot, seed in enumerate(seeds)]
        heard = Heard(hash_observations)
        with _listen(env, heard), around(policy, keys):
            result = stock_rollout(env, policy, *args, **kwargs)
        for slot, (seed, episode) in enumerate(zip(seeds, _episodes(env, result, heard), strict=True)):
            writer.write(task_id, first + slot, seed, episode)
        return result

    return rollout


def flag(name: str) -> str:
    """Returns the value of a flag of lerobot-eval among this process's arguments. Raises ValueError where it is not."""
    start = f"--{name}="
    for word in sys.argv[1:]:
        if word.startswith(start):
            return word.removeprefix(start)
    raise ValueError(f"give lerobot-eval the flag --{name}=VALUE: the record of its episodes needs it")


@dataclass
class Heard:
    """What the observations of one rollout showed, one entry a reset or step, each with one item an environment slot.

    `states` stays empty where the environment shows no state of its robot.
    """

    hash_observations: bool
    states: list[Array] = field(default_factory=list)  # each of shape (slots, size)
    hashes: list[list[str]] = field(default_factory=list)

    def hear(self, observation: Mapping[str, Any], slots: int) -> None:
        """Keeps what is asked for of the observation of all environment slots."""
        if "robot_state" in observation:
            self.states.append(robot_state(observation["robot_state"]))
        if self.hash_observations:
            self.hashes.append([observation_sha(_of_slot(observation, slot)) for slot in range(slots)])


def robot_state(state: Mapping[str, Mapping[str, Any]]) -> Array:
    """Returns the parts of a robot's state that are recorded, of shape (slots, 9) and as float32."""
    return np.concatenate([np.asarray(state[part][name], np.float32) for part, name in STATE_PARTS], axis=-1)


@contextlib.contextmanager
def _listen(env: Any, heard: Heard) -> Iterator[None]:
    """Lets `heard` hear the observation of the reset and of each step within the block."""
    reset, step = env.reset, env.step

    def listened(result: Any) -> Any:
        heard.hear(result[0], env.num_envs)
        return result

    env.reset = lambda *args, **kwargs: listened(reset(*args, **kwargs))
    env.step = lambda *args, **kwargs: listened(step(*args, **kwargs))
    try:
        yield
    finally:
        env.reset, env.step = reset, step


def _of_slot(observation: Mapping[str, Any], slot: int) -> dict[str, Any]:
    return {
        name: _of_slot(value, slot) if isinstance(value, Mapping) else value[slot]
        for name, value in observation.items()
    }


@dataclass(frozen=True)
class Episode:
    """One played episode: its line, without the keys that name it, and its arrays, each with one row a step."""

    content: Mapping[str, Any]
    arrays: Mapping[str, Array]  # kind -> array


def _episodes(env: Any, result: Any, heard: Heard) -> Iterator[Episode]:
    """Yields what each environment slot played, up to the step that ended its episode."""
    beginnings = zip(env.call("beginning"), env.call("state_sha"), strict=True)
    for slot, (beginning, final_state) in enumerate(beginnings):
        steps = int(np.argmax(result["done"][slot].numpy())) + 1
        arrays = {ACTIONS: result["action"][slot].numpy()[:steps].astype(np.float32)}
        if heard.states:
            arrays[STATES] = np.stack([states[slot] for states in heard.states[:steps]])
        content = {
            **beginning,
            "success": bool(result["success"][slot][:steps].any()),
            "steps": steps,
            "sum_reward": float(result["reward"][slot][:steps].sum()),
            **{f"{name}_sha": digest(array) for name, array in arrays.items()},
            "final_state_sha": final_state,
        }
        if heard.hash_observations:
            content["observations"] = {str(step): shas[slot] for step, shas in enumerate(heard.hashes[:steps])}
        yield Episode(content, arrays)


class Writer:
    """Writes recorded episodes below `folder`: lines of episodes.jsonl, and a file for each array.

    Episodes beyond `n_episodes`, which only fill up the last batch of a task, are left out. Tasks may be played in
    threads of their own.
    """

    def __init__(self, folder: Path, suite: str, n_episodes: int) -> None:
        self.folder, self.suite, self.n_episodes = folder, suite, n_episodes
        self.lock = threading.Lock()

    def write(self, task_id: int, number: int, seed: int, episode: Episode) -> None:
        """Writes one episode: its arrays first, and then its line, on disk when this returns."""
        if number >= self.n_episodes:
            return
        for kind, array in episode.arrays.items():
            path = recorded_arrays.path(self.folder, kind, self.suite, task_id, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array)
        names = {"suite": self.suite, "task": task_id, "episode": number, "seed": seed}
        line = names | dict(episode.content) | {"at_secs": round(time.monotonic() - START, 3)}
        with self.lock, (self.folder / "episodes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


if __name__ == "__main__":
    main()
