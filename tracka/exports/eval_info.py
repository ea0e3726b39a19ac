"""Writes what a campaign has played as one eval_info.json of lerobot-eval, with lerobot's own keys and arithmetic.

Each row has an eval_info.json of its own; this one holds the tasks of all rows. Videos are named relative to the file.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ..campaign.matrix import Row
from ..core import files
from ..core.files import Json
from ..engines import lerobot_eval
from .played_rows import PlayedRows

NAME = "eval_info.json"
_REWARDS = {"avg_sum_reward": "sum_rewards", "avg_max_reward": "max_rewards"}
_VIDEOS = ("video_paths", "predicted_video_paths")


def make(played: PlayedRows, folder: Path) -> Json:
    """Returns the content of an eval_info.json that is to lie in `folder`. The rows must have no findings."""
    infos = [(row, files.read_json(played.attempt(row).output / NAME)) for row in played.rows]
    tasks = sorted((task for row, info in infos for task in _tasks(played, row, info, folder)), key=_group_and_task)
    seconds = sum(float(info["overall"].get("eval_s", 0.0)) for _, info in infos)
    overall = _aggregate(tasks)
    return {
        "per_task": tasks,
        "per_group": {group: _aggregate(list(each)) for group, each in groupby(tasks, lambda task: task["task_group"])},
        "overall": overall | {"eval_s": seconds, "eval_ep_s": seconds / max(1, overall["n_episodes"])},
    }


def _group_and_task(task: Json) -> tuple[str, int]:
    return str(task["task_group"]), int(task["task_id"])


def _tasks(played: PlayedRows, row: Row, info: Json, folder: Path) -> Iterable[Json]:
    output = played.attempt(row).output
    for task in info["per_task"]:
        suite, number, metrics = str(task["task_group"]), int(task["task_id"]), task["metrics"]
        films = (lerobot_eval.video(output, suite, number, each) for each in range(len(metrics["successes"])))
        rewards = {key: [_finite(value) for value in metrics[key]] for key in _REWARDS.values() if key in metrics}
        yield {
            "task_group": suite,
            "task_id": number,
            "metrics": {
                **rewards,
                "successes": metrics["successes"],
                "video_paths": [os.path.relpath(film, folder) for film in films if film.is_file()],
                "predicted_video_paths": [],
            },
        }


def _finite(value: Any) -> float | None:
    """Returns a reward as JSON has it; lerobot writes NaN where it knows none."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _aggregate(tasks: Sequence[Mapping[str, Any]]) -> Json:
    values = {
        key: [value for task in tasks for value in task["metrics"].get(key, ())]
        for key in ("successes", *_REWARDS.values(), *_VIDEOS)
    }
    known = {name: [value for value in values[key] if value is not None] for name, key in _REWARDS.items()}
    return {
        **{name: sum(rewards) / len(rewards) for name, rewards in known.items() if rewards},
        "pc_success": 100 * sum(values["successes"]) / len(values["successes"]),
        "n_episodes": len(values["successes"]),
        **{key: values[key] for key in _VIDEOS},
    }
