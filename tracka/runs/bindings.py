"""Binds the files of an attempt together: what one file says of an episode must be so in every other that tells of it.

A number that is edited in all places where it stands is found here, wherever arithmetic can find it: an episode that
failed lasts to its step limit, a recorded episode has an action for each step, and a log repeats what a result says.
docs/evidence.md says which edit is found by what, and which cannot be found.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..campaign.campaign import RESIDENT_NAMES, Campaign
from ..campaign.layout import RunFolder
from ..campaign.matrix import Row
from ..core import files, reading
from ..core.artifacts import IdentityParts, Manifest, Result
from ..core.errors import Finding, UsageError
from ..engines import lerobot_eval, recorded_arrays
from ..engines.lerobot_eval import Metrics
from ..execution import gpu
from . import identity, judgement, logged_facts
from .row_state import SLACK_SECS

REWARD = 1.0  # LIBERO's, in the step that succeeds; all others have 0
Facts = Iterator[tuple[str, str]]  # (file below the attempt, what is wrong)


def of_attempt(campaign: Campaign, row: Row, manifest: Manifest, result: Result, metrics: Metrics) -> Iterator[Finding]:
    """Yields a finding where the files of a passed attempt cannot all be of one evaluation."""
    attempt = campaign.layout.run(row.run_id).attempt(manifest["attempt"])
    is_own = bool(campaign.executable)  # a program of the campaign's own has its own limit, and its own words in logs
    limit = None if is_own else campaign.steps(row)
    facts = [
        *_identity(attempt, manifest),
        *_figures(attempt, result),
        *_lines(attempt, limit, manifest, metrics),
        *logged_facts.faults(attempt, manifest, result, metrics, campaign.steps(row), is_own),
    ]
    for name, what in facts:
        yield Finding(str(attempt.path / name), what, judgement.run_again(campaign.layout))


# ---- identity


def _identity(attempt: RunFolder, manifest: Manifest) -> Facts:
    """Yields where identity.json, whose hash is the row hash, tells of another attempt than the manifest."""
    parts = identity.read(attempt)
    if parts is None or parts["hash_version"] != identity.VERSION:
        return  # the contract `result` refuses it, since its row hash is not today's
    yield from ((identity.NAME, what) for what in _differences(_of_identity(parts), _of_manifest(manifest)))
    for name, version in manifest["versions"].items():
        packaged = parts["packages"].get(name)
        if packaged is not None and _plain(packaged) != _plain(version):
            yield identity.NAME, f"{name} is {packaged}, but {version} in the manifest"


def _plain(version: str) -> str:
    """Returns a version without what says from where the package was installed."""
    return re.split(r"[+ @]", version)[0]


def _of_identity(parts: IdentityParts) -> dict[str, Any]:
    return {
        **parts["row"],
        "settings": parts["settings"],
        "engine": parts["engine"]["name"],
        "checkpoint": parts["checkpoint"],
        "backend": parts["simulator"]["backend"],
        "invalid": parts["simulator"]["invalid"],
    }


def _of_manifest(manifest: Manifest) -> dict[str, Any]:
    return {
        "suite": manifest["task_suite"],
        "task_ids": manifest["task_ids"],
        "batch_size": manifest["batch_size_requested"],
        "n_episodes": manifest["n_episodes"],
        "seed": manifest["seed"],
        "device": gpu.torch_name(manifest["gpu_id"]).partition(":")[0],
        "settings": manifest["settings"],
        "engine": manifest["engine"],
        "checkpoint": manifest["checkpoint"]["tree_sha256"],
        "backend": manifest["mujoco_gl"],
        "invalid": manifest["invalid"] is not None,
    }


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    for name, value in theirs.items():
        if ours[name] != value:
            yield f"{name} is {ours[name]!r}, but {value!r} in the manifest"


# ---- eval_info.json


def _figures(attempt: RunFolder, result: Result) -> Facts:
    """Yields where the numbers in eval_info.json, which describe the same episodes, cannot all be true."""
    info = _info(attempt)
    name = "eval/eval_info.json"
    sums, peaks, wins = (_listed(info, key) for key in ("sum_rewards", "max_rewards", "successes"))
    if not len(sums) == len(peaks) == len(wins):
        yield name, f"it has {len(wins)} outcomes, but {len(sums)} sums and {len(peaks)} maxima of rewards"
        return
    for number, (total, peak, success) in enumerate(zip(sums, peaks, wins, strict=True)):
        if bool(success) != (peak >= REWARD) or (success and total < REWARD):
            yield name, f"episode {number} of the row {_words(success)}, but its highest reward is {peak:g}"
    found = info.get("overall")
    overall: files.Json = found if isinstance(found, dict) else {}
    for key, values in (("avg_sum_reward", sums), ("avg_max_reward", peaks)):
        if wins and key in overall and not math.isclose(float(overall[key]), sum(values) / len(values), abs_tol=1e-6):
            yield name, f"overall.{key} is {overall[key]}, but the episodes give {sum(values) / len(values):g}"
    for group, figures in info["per_group"].items() if isinstance(info.get("per_group"), dict) else ():
        if len(info["per_group"]) == 1 and any(figures[key] != overall.get(key) for key in figures):
            yield name, f"per_group.{group} has other figures than overall, though it is the only group"
    seconds = overall.get("eval_s")
    if isinstance(seconds, int | float) and seconds > result["duration_sec"] + SLACK_SECS:
        yield name, f"the episodes took {seconds:.0f} s, but the run {result['duration_sec']:.0f} s"


def _info(attempt: RunFolder) -> files.Json:
    try:
        return files.read_json(attempt.output / "eval_info.json", reading.RESULTS, not_finite=True)
    except UsageError:
        return {}


def _listed(info: Mapping[str, Any], key: str) -> list[float]:
    """Returns a number of each episode, task after task; none where the file has something else."""
    try:
        return [float(value) for task in info["per_task"] for value in task["metrics"][key]]
    except (KeyError, TypeError, ValueError):
        return []


def _words(success: object) -> str:
    return "succeeded" if success else "failed"


# ---- lines and recorded arrays


def _lines(attempt: RunFolder, limit: int | None, manifest: Manifest, metrics: Metrics) -> Facts:
    """Yields where the line of an episode is not that of an episode which began and ended as the other files say."""
    name = "eval/episodes.jsonl"
    played = {(task.task_id, episode) for task in metrics.tasks for episode in range(len(task.successes))}
    is_recorded = manifest["engine"] in RESIDENT_NAMES or "listener" in manifest or bool(metrics.lines)
    if is_recorded and (missing := sorted(played - {*metrics.lines})):
        task, episode = missing[0]
        yield name, f"{len(missing)} of {len(played)} episodes have no line, first episode {episode} of task {task}"
    records = {
        (record["task"], record["episode"]): record
        for record in lerobot_eval.episode_records(
            metrics, manifest["batch_size"], manifest["n_episodes"], manifest["seed"]
        )
    }
    for key, line in metrics.lines.items():
        where = f"episode {key[1]} of task {key[0]}"
        yield from ((name, f"{where}: {what}") for what in _line_faults(line, records.get(key, {}), limit))
        for kind in recorded_arrays.KINDS:
            path = recorded_arrays.path(attempt.output, kind, manifest["task_suite"], *key)
            if f"{kind}_sha" in line and (length := recorded_arrays.length(path)) not in (None, line.get("steps")):
                yield (
                    f"eval/{kind}/{path.name}",
                    f"it has {length} {kind}, but the episode lasted {line.get('steps')} steps",
                )


def _line_faults(line: Mapping[str, Any], record: Mapping[str, Any], limit: int | None) -> Iterator[str]:
    for key in ("suite", "init_state", "seed", "reset_ordinal"):
        if key in line and key in record and line[key] != record[key]:
            yield f"{key} is {line[key]!r}, but the row plays {record[key]!r}"
    steps, success = line.get("steps"), line.get("success")
    if not isinstance(steps, int) or steps < 1 or (limit is not None and steps > limit):
        yield f"it lasted {steps} steps, and the limit is {limit}"
    elif limit is not None and not success and steps != limit:
        yield f"it failed after {steps} steps, but an episode that fails lasts to its limit, {limit}"
    reward = line.get("sum_reward")
    if isinstance(reward, int | float) and bool(success) != (reward >= REWARD):
        yield f"it {_words(success)}, but its rewards are {reward:g} in all"
    hashes = ("actions_sha", "first_state_sha", "final_state_sha")
    if nulls := [key for key in hashes if not isinstance(line.get(key), str)]:
        yield f"{', '.join(nulls)} {'is' if len(nulls) == 1 else 'are'} missing"
