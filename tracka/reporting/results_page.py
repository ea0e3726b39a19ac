"""Makes the parts of results.md beside its table: totals, the settings of each row, tasks in words."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core.artifacts import Manifest
from ..core.lerobot_facts import EPISODE_STEPS, FRAME_SIDE
from ..engines import lerobot_eval
from ..preflight import policy_features, simulator_validity
from ..runs import run
from . import collect
from .collect import EvalRunResult

SCENE = re.compile(r"^[A-Z_]+SCENE\d+_")  # the prefix that LIBERO's longer suites put before the words of a task


@dataclass(frozen=True)
class Total:
    """The episodes of one policy in one suite, summed over all rows that passed except the baseline."""

    policy_path: str
    suite: str
    rows: int
    tasks: int
    episodes: int
    successes: int
    rate: str


def totals(campaign: Campaign, results: Sequence[EvalRunResult]) -> list[Total]:
    """Returns a total for each policy and suite with episodes, in the order of their names."""
    tasks = {row.run_id: campaign.task_ids(row) for row in campaign.compared_rows}
    passed = [result for result in results if result.status == "pass" and result.run_id in tasks]
    ordered = sorted(passed, key=_policy_and_suite)
    return [_total(tasks, *key, list(group)) for key, group in groupby(ordered, _policy_and_suite)]


def _policy_and_suite(result: EvalRunResult) -> tuple[str, str]:
    return result.policy_path, result.task_suite


def _total(tasks: Mapping[str, Sequence[int]], policy_path: str, suite: str, group: Sequence[EvalRunResult]) -> Total:
    evaluated = {task for result in group for task in tasks[result.run_id]}
    episodes, successes = (sum(getattr(result, key) or 0 for result in group) for key in ("episodes", "successes"))
    rate = collect.rate_in_words(successes, episodes)
    return Total(policy_path, suite, len(group), len(evaluated), episodes, successes, rate)


def below_threshold(reasons: Mapping[str, str]) -> list[str]:
    """Returns the rows that passed and whose observed rate is below their own threshold, by their reasons."""
    return [run_id for run_id, reason in reasons.items() if reason == "below_threshold"]


def rows(campaign: Campaign, manifests: Sequence[Manifest]) -> list[dict[str, Any]]:
    """Returns how each row that ran was played, by its manifest, and what the row has to reach."""
    rows_by_id = {row.run_id: row for row in campaign.enabled}
    return [_row(campaign, rows_by_id[manifest["run_id"]], manifest) for manifest in manifests]


def _row(campaign: Campaign, row: Row, manifest: Manifest) -> dict[str, Any]:
    settings, result = manifest["settings"], run.read_result(campaign.layout, row.run_id)
    sides = (settings.get(f"observation_{side}", FRAME_SIDE) for side in ("height", "width"))
    videos = campaign.layout.run(row.run_id).attempt(manifest["attempt"]).output / "videos"
    return {
        "run_id": manifest["run_id"],
        "policy_path": manifest["policy_path"],
        "task_ids": manifest["task_ids"],
        "batch_size": manifest["batch_size"],
        "seed": manifest["seed"],
        "engine": collect.engine_in_words(manifest["engine"], result.get("precision") if result else None),
        "mujoco_gl": manifest["mujoco_gl"],
        "comparable": manifest["comparable"],
        "suite": manifest["task_suite"],
        "steps": settings.get("episode_length", EPISODE_STEPS[manifest["task_suite"]]),
        "size": policy_features.shape_text(tuple(sides)),
        "n_action_steps": manifest["n_action_steps"],
        "threshold": _threshold(campaign, row),
        "flags": _words(settings.get("flags", {})),
        "rename_map": _words(settings.get("rename_map", {})),
        "videos": campaign.layout.relative(videos) if _has_videos(campaign, videos) else None,
    }


def _threshold(campaign: Campaign, row: Row) -> str:
    rate = campaign.threshold(row)
    words = [f"{100 * rate:g}%"] if rate > 0 else []
    words += ["its known answers"] if row.run_id in campaign.known_answers else []
    return " and ".join(words) or "none"


def _words(values: Mapping[str, Any]) -> str:
    return " ".join(shlex.quote(f"{key}={lerobot_eval.flag_value(value)}") for key, value in values.items())


def tasks(campaign: Campaign) -> dict[str, dict[int, str]]:
    """Returns suite -> LIBERO task -> the robot's instruction, for each task that an enabled row evaluates."""
    suites: dict[str, dict[int, str]] = {}
    for row in campaign.enabled:
        instructions = suites.setdefault(row.task_suite, {})
        instructions |= {task: task_in_words(row.task_suite, task) for task in campaign.task_ids(row)}
    return {suite: dict(sorted(instructions.items())) for suite, instructions in suites.items()}


def task_in_words(suite: str, task: int) -> str:
    """Returns the instruction that a policy gets for a LIBERO task.

    The instruction is the task's name in words (libero/benchmark, grab_language_from_filename).
    """
    name = simulator_validity.table()["suites"][suite][str(task)]["name"]
    return SCENE.sub("", name).replace("_", " ")


def _has_videos(campaign: Campaign, folder: Path) -> bool:
    return folder.is_dir() or campaign.layout.has_left_out_below(folder)
