"""Runs lerobot-eval itself and records every episode; the resident engine is compared with this record.

Usage: python -m tracka.engines.reference FLAGS OF LEROBOT-EVAL [--resident.noise=episode]

The stock program runs unchanged around its own rollout(). What goes into rollout() and what it returns is written to
episodes.jsonl and actions/ in the output folder, with the keys that the resident engine writes there. With
`--resident.noise=episode` a flow-matching policy gets, in place of torch's own noise, the noise that the resident
engine's documentation promises for each episode; lerobot's code around it is the same.

On a GPU, lerobot-eval lets each process choose its convolutions by timing them (`torch.backends.cudnn.benchmark`), so
two processes of lerobot-eval may round differently. A recording is made without this choice, and so are the plays that
are compared with the recording.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .resident.episode import digest, observation_sha

START = time.monotonic()
NOISE = "--resident.noise="
Rollout = Callable[..., Any]


def main() -> None:
    """Runs lerobot-eval with this process's arguments and records every episode."""
    from lerobot.envs import libero
    from lerobot.scripts import lerobot_eval

    from .resident.recorded import RecordedEnv

    by_episode = f"{NOISE}episode" in sys.argv
    sys.argv = [word for word in sys.argv if not word.startswith(NOISE)]
    libero.LiberoEnv = RecordedEnv
    lerobot_eval.rollout = recording_rollout(lerobot_eval.rollout, by_episode)
    lerobot_eval.main()


def recording_rollout(stock_rollout: Rollout, by_episode: bool) -> Rollout:
    """Returns lerobot-eval's rollout, extended to record what is played.

    Each episode has its own noise if `by_episode`.
    """
    import torch

    played: Counter[int] = Counter()  # LIBERO task -> the number of its episodes so far

    def rollout(env: Any, policy: Any, *args: Any, **kwargs: Any) -> Any:
        torch.backends.cudnn.benchmark = False  # lerobot-eval has switched it on by now
        task_id, seeds = int(env.call("task_id")[0]), kwargs["seeds"]
        first = played[task_id]
        keys = [f"{_flag('env.task')}/{task_id}/{seed}/{first + slot}" for slot, seed in enumerate(seeds)]
        observation_shas: list[list[str]] = []
        with _hash_observations(env, observation_shas), _noise_by_episode(policy, keys if by_episode else ()):
            result = stock_rollout(env, policy, *args, **kwargs)
        _write(Path(_flag("output_dir")), task_id, first, seeds, _episodes(env, result, observation_shas))
        played[task_id] += len(seeds)
        return result

    return rollout


def _flag(name: str) -> str:
    from lerobot.configs.parser import parse_arg

    return str(parse_arg(name))


@contextlib.contextmanager
def _hash_observations(env: Any, observation_shas: list[list[str]]) -> Iterator[None]:
    """Appends to `observation_shas`, at the reset and at each step, a hash of each environment slot's observation."""
    reset, step = env.reset, env.step

    def watch(result: Any) -> Any:
        observation_shas.append([observation_sha(_of_slot(result[0], slot)) for slot in range(env.num_envs)])
        return result

    env.reset = lambda *args, **kwargs: watch(reset(*args, **kwargs))
    env.step = lambda *args, **kwargs: watch(step(*args, **kwargs))
    try:
        yield
    finally:
        env.reset, env.step = reset, step


def _of_slot(observation: Mapping[str, Any], slot: int) -> dict[str, Any]:
    return {
        name: _of_slot(value, slot) if isinstance(value, Mapping) else value[slot]
        for name, value in observation.items()
    }


@contextlib.contextmanager
def _noise_by_episode(policy: Any, keys: Sequence[str]) -> Iterator[None]:
    """Lets a flow-matching policy draw an environment slot's noise by its episode's key and count of earlier chunks."""
    import torch

    model: Any = getattr(policy, "model", None)
    if not keys or not hasattr(model, "sample_noise"):
        yield
        return
    stock, chunks = model.sample_noise, Counter[str]()

    def draw(shape: Sequence[int], device: Any) -> Any:
        noises = []
        for key in keys:
            seed = int.from_bytes(hashlib.sha256(f"{key}/{chunks[key]}".encode()).digest()[:7], "big")
            noises.append(torch.randn(tuple(shape[1:]), generator=torch.Generator("cpu").manual_seed(seed)))
            chunks[key] += 1
        return torch.stack(noises).to(device)

    model.sample_noise = draw
    try:
        yield
    finally:
        model.sample_noise = stock


def _episodes(env: Any, result: Any, observation_shas: Sequence[Sequence[str]]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yields what each environment slot played, up to the step that ended its episode, and its actions.

    The actions have the shape (steps, 7).
    """
    states = zip(env.call("first_state"), env.call("state_sha"), strict=True)
    for slot, (first_state, final_state) in enumerate(states):
        steps = int(np.argmax(result["done"][slot].numpy())) + 1
        actions = result["action"][slot].numpy()[:steps].astype(np.float32)
        content = {
            "success": bool(result["success"][slot][:steps].any()),
            "steps": steps,
            "sum_reward": float(result["reward"][slot][:steps].sum()),
            "actions_sha": digest(actions),
            "first_state_sha": first_state,
            "final_state_sha": final_state,
            "observations": {str(step): shas[slot] for step, shas in enumerate(observation_shas[:steps])},
            "at_secs": round(time.monotonic() - START, 3),
        }
        yield content, actions


def _write(
    folder: Path, task_id: int, first: int, seeds: Sequence[int], episodes: Iterator[tuple[dict[str, Any], Any]]
) -> None:
    """Appends the rollout's episodes to episodes.jsonl and saves their actions.

    Episodes beyond the number that was asked for, which only fill up the last batch, are left out.
    """
    suite, count = _flag("env.task"), int(_flag("eval.n_episodes"))
    (folder / "actions").mkdir(parents=True, exist_ok=True)
    with (folder / "episodes.jsonl").open("a", encoding="utf-8") as file:
        for number, (seed, (content, actions)) in enumerate(zip(seeds, episodes, strict=True), start=first):
            if number < count:
                np.save(folder / "actions" / f"{suite}_{task_id}_{number}.npy", actions)
                line = {
                    "suite": suite,
                    "task": task_id,
                    "episode": number,
                    "init_state": number,
                    "seed": seed,
                    **content,
                }
                file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    main()
