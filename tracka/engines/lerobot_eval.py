"""Describes the engine `lerobot-eval`: from a row's settings to its argv, and from the files it left to metrics.

lerobot-eval only ever gets a local folder as `--policy.path`, and only flags that `discover` has established.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..campaign.campaign import EvalSettings
from ..campaign.matrix import Row
from ..core import files, reading
from ..core.artifacts import Reported
from ..core.errors import Finding, ToolMissing, UsageError
from ..core.lerobot_facts import INIT_STATES
from . import episode_lines

TAKE_OUT = "Remove the flag from campaign.toml, or install lerobot 0.6.1"
TYPE = (
    "No config.json could be read that names the policy's type: if policy_path in eval_matrix.csv is meant as a "
    "folder, there is no such folder; for a repository of the hub, set policy_type below [lerobot_eval]"
)


@dataclass(frozen=True)
class TaskOutcome:
    """Holds the outcomes of one LIBERO task's episodes, in the order in which lerobot-eval counts the episodes."""

    suite: str
    task_id: int
    successes: tuple[bool, ...]


@dataclass(frozen=True)
class Metrics:
    """Holds what an evaluation reports of itself. `warnings` names everything that was missing or did not fit."""

    source: str | None = None
    episodes: int | None = None
    successes: int | None = None
    success_rate: float | None = None  # from 0 to 1
    tasks: tuple[TaskOutcome, ...] = ()
    warnings: tuple[str, ...] = ()
    lines: "Lines" = field(default_factory=dict)


Lines = Mapping[tuple[int, int], files.Json]  # (LIBERO task, episode) -> the line written as it ended


def command(
    executable: Sequence[str],
    row: Row,
    settings: EvalSettings,
    *,
    policy: Path,
    device: str,
    batch_size: int,
    output: Path,
) -> list[str]:
    """Returns the argv of one evaluation.

    `device` is torch's name of the device, `output` the folder that lerobot-eval fills.
    """
    flag_values: dict[str, Any] = {
        "policy.path": policy,
        "policy.device": device,
        "policy.n_action_steps": settings.n_action_steps,
        "env.type": "libero",
        "env.task": row.task_suite,
        "env.task_ids": json.dumps(list(settings.task_ids)) if settings.task_ids else None,
        "env.episode_length": settings.episode_length,
        "env.observation_height": settings.observation_height,
        "env.observation_width": settings.observation_width,
        "eval.batch_size": batch_size,
        "eval.n_episodes": row.n_episodes,
        "eval.use_async_envs": settings.use_async_envs,
        "seed": row.seed,
        "rename_map": json.dumps(dict(settings.rename_map)) if settings.rename_map else None,
        "output_dir": output,
        **settings.flags,
    }
    return [*executable, *(f"--{name}={flag_value(value)}" for name, value in flag_values.items() if value is not None)]


def flag_value(value: Any) -> str:
    """Returns a value as lerobot's command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_flags(argv: Sequence[str], capabilities: Mapping[str, Any]) -> None:
    """Raises ToolMissing naming the flags of `argv` that the installed lerobot-eval does not know."""
    supported = set(capabilities["supported_flags"])
    used = [word.split("=", 1)[0] for word in argv if word.startswith("--")]
    version = capabilities["version_text"]
    untyped = not capabilities.get("policy_types")
    findings = [
        Finding(flag, f"{version} has no such flag", TYPE if untyped and flag.startswith("--policy.") else TAKE_OUT)
        for flag in used
        if flag not in supported
    ]
    if findings:
        raise ToolMissing(findings)


def read_metrics(output: Path, logs: Sequence[Path]) -> Metrics:
    """Returns the metrics of an ended evaluation: from eval_info.json, else from the logs as the plan asks."""
    try:
        metrics = _from_eval_info(_read_info(output / "eval_info.json"))
        written = _lines(output)
        lines = {(line["task"], line["episode"]): line for line in written}
        warnings = (*metrics.warnings, *_line_warnings(metrics, lines, len(written)))
        return replace(metrics, lines=lines, warnings=warnings)
    except UsageError as error:
        warning = f"{Path(error.findings[0].where).name}: {error.findings[0].what}"
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        warning = f"eval_info.json: unexpected content ({type(error).__name__}: {error})"
    log_metrics = [parsed for log in logs if (parsed := parse_log(log))]
    if not log_metrics:
        return Metrics(warnings=(warning, "logs: no metrics found"))
    successes, episodes, rate = log_metrics[-1]
    warnings = (warning, "per-task outcomes are missing", *contradictions(log_metrics[-1]))
    return Metrics("log", episodes, successes, rate, warnings=warnings)


def read_eval_info(path: Path) -> Metrics:
    """Returns the metrics in a file that lerobot-eval wrote, whatever the file's name.

    Raises UsageError where the file cannot be read, or is not such a file.
    """
    try:
        return _from_eval_info(_read_info(path))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        what = f"this is not lerobot's eval_info.json ({type(error).__name__}: {error})"
        raise UsageError(Finding(str(path), what, "Name the eval_info.json that lerobot-eval 0.6.1 wrote")) from None


def _read_info(path: Path) -> files.Json:
    """Returns the object in an eval_info.json, where a mean over no episodes is NaN."""
    return files.read_json(path, reading.RESULTS, not_finite=True)


def video(output: Path, suite: str, task_id: int, episode: int) -> Path:
    """Returns where lerobot-eval puts the video of an episode, which it films only FILMED_EPISODES a task."""
    return output / "videos" / f"{suite}_{task_id}" / f"eval_episode_{episode}.mp4"


def _from_eval_info(info: Mapping[str, Any]) -> Metrics:
    tasks = tuple(
        TaskOutcome(str(task["task_group"]), int(task["task_id"]), tuple(map(_outcome, task["metrics"]["successes"])))
        for task in info["per_task"]
    )
    outcomes = [success for task in tasks for success in task.successes]
    if not outcomes:
        return Metrics("eval_info.json", 0, 0, None, tasks, ("eval_info.json holds no episodes",))
    rate = sum(outcomes) / len(outcomes)
    return Metrics("eval_info.json", len(outcomes), sum(outcomes), rate, tasks, (*_disagreements(info, outcomes),))


def _lines(output: Path) -> list[files.Json]:
    """Returns what the resident engine wrote of each episode as it ended; empty for lerobot-eval, which writes nothing.

    Raises UsageError where the file is damaged.
    """
    path = output / "episodes.jsonl"
    return files.read_lines(path) if os.path.lexists(path) else []


def _line_warnings(metrics: Metrics, lines: Lines, written: int) -> Iterator[str]:
    """Yields a warning where the lines written as episodes ended disagree with eval_info.json, or with each other.

    `written` is the number of lines in the file.
    """
    if written > len(lines):
        yield f"episodes.jsonl has {written} lines for {len(lines)} episodes"
    line_outcomes = {name: line["success"] for name, line in lines.items()}
    counted = {
        (task.task_id, episode): success for task in metrics.tasks for episode, success in enumerate(task.successes)
    }
    if line_outcomes and line_outcomes != counted:
        successes = sum(line_outcomes.values())
        yield f"episodes.jsonl has {successes} successes in {len(line_outcomes)} episodes, or other episodes"


def _outcome(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"a success must be true or false, not {value!r}")
    return value


def _disagreements(info: Mapping[str, Any], outcomes: Sequence[bool]) -> Iterator[str]:
    overall = info.get("overall", {})
    reported, percent = overall.get("n_episodes"), overall.get("pc_success")
    if reported != len(outcomes):
        yield f"overall.n_episodes is {reported}, but {len(outcomes)} episodes are listed"
    if not isinstance(percent, int | float) or not math.isclose(percent, 100 * sum(outcomes) / len(outcomes)):
        yield f"overall.pc_success is {percent}, but {sum(outcomes)} of {len(outcomes)} listed episodes succeeded"


# Each number is matched up to what follows it in a dict's repr, so that a log cut inside a number gives no match.
_NUMBER = r"(?:np\.float\d+\()?([-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf))(?=[,)}])"
_SUCCESS = re.compile(rf"'pc_success': {_NUMBER}")
_EPISODES = re.compile(r"'n_episodes': (\d+)(?=[,}])")


def parse_log(log: Path) -> tuple[int | None, int | None, float | None] | None:
    """Returns the last overall metrics in a log: successes, episodes, success rate from 0 to 1; None without metrics.

    lerobot up to 0.6.0 prints the metrics on stdout, 0.6.1 logs them on stderr; all versions print the repr of a dict
    on one line.
    """
    lines = [line for line in re.split(r"[\r\n]", reading.tail(log, 1 << 22)) if "'pc_success'" in line]
    overall = [line for line in lines if "'eval_s'" in line] or lines
    if not overall:
        return None
    percent, count = _SUCCESS.search(overall[-1]), _EPISODES.search(overall[-1])
    rate = float(percent[1]) / 100 if percent and math.isfinite(float(percent[1])) else None
    episodes = int(count[1]) if count else None
    successes = None if rate is None or episodes is None else round(rate * episodes)
    return successes, episodes, rate


def contradictions(counts: tuple[int | None, int | None, float | None]) -> Iterator[str]:
    """Yields why the successes, episodes and success rate of a log cannot all be true.

    The rate may be outside of 0 to 1, or no number of successes in these episodes may give it.
    """
    successes, episodes, rate = counts
    if successes is None or episodes is None or rate is None:
        return
    if not 0 <= rate <= 1:
        yield f"logs: {100 * rate:g}% is not a possible success rate"
    elif not math.isclose(rate * episodes, successes, abs_tol=0.005 * max(1, episodes) / 100):
        yield f"logs: {100 * rate:g}% of {episodes} episodes is not a whole number of successes"


def reported_results(metrics: Metrics) -> Reported:
    """Returns the part of result.json that an evaluation's own files decide."""
    return {
        "episodes": metrics.episodes,
        "successes": metrics.successes,
        "success_rate": metrics.success_rate,
        "per_task": [
            {
                "suite": task.suite,
                "task_id": task.task_id,
                "successes": sum(task.successes),
                "episodes": len(task.successes),
            }
            for task in metrics.tasks
            if task.successes
        ],
        "metrics_source": metrics.source,
        "precision": episode_lines.answered(line.get(episode_lines.PRECISION) for line in metrics.lines.values()),
        "parser_warnings": list(metrics.warnings),
    }


def episode_records(metrics: Metrics, batch_size: int, n_episodes: int, seed: int) -> list[files.Json]:
    """Returns a record for each episode.

    lerobot-eval reports neither steps nor actions, so `steps` and `actions_sha` are null for it. Its environments are
    environment slots: in each batch every environment slot is reset once and moves on by the number of environment
    slots in the fixed init states, and episode i of a task is seeded with seed + i (lerobot/envs/libero.py,
    lerobot_eval.py).
    """
    slots = min(batch_size, n_episodes)
    return [
        {
            "suite": task.suite,
            "task": task.task_id,
            "episode": episode,
            "init_state": episode % INIT_STATES,
            "seed": seed + episode,
            "reset_ordinal": episode // slots,
            "slot": episode % slots,
            "success": success,
            "steps": metrics.lines.get((task.task_id, episode), {}).get("steps"),
            "actions_sha": metrics.lines.get((task.task_id, episode), {}).get("actions_sha"),
        }
        for task in metrics.tasks
        for episode, success in enumerate(task.successes)
    ]
