"""Reads what one side of a comparison has played: a campaign's passed rows, an exported baseline or an eval_info.json.

Guarantees: only outcomes with sound evidence are read; a row that did not pass is no failure of the policy, and is
named as left out; whatever makes a result unfit for a comparison is a finding; a side is one checkpoint's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from ..campaign import campaign
from ..campaign.campaign import Campaign
from ..campaign.layout import RunFolder
from ..campaign.matrix import Row
from ..core import files
from ..core.artifacts import Manifest, Result
from ..core.baselines import PlayedRow
from ..core.errors import Finding, UsageError, joined_names
from ..core.lerobot_facts import EPISODE_STEPS, INIT_STATES
from ..engines import lerobot_eval
from ..runs import evidence, identity, judgement, row_state, run
from . import baseline_file
from .sides import PlayedEpisode, Side

OF = "::"  # between a campaign's folder and the policy path of one of its checkpoints
SOFTWARE = ("loaded", "program", "python", "packages", "code", "environment")  # these parts of a row's identity


def read(path: Path) -> Side:
    """Returns what was played at `path`: a campaign's folder, an exported baseline, or an eval_info.json.

    `tasks/NAME::POLICY` is one checkpoint of a campaign of several. Raises UsageError where `path` is none of these, or
    holds no outcome.
    """
    folder, _, policy = (str(path), "", "") if path.exists() else str(path).partition(OF)
    if not Path(folder).exists():
        remedy = "Name a campaign's folder, an exported baseline or an eval_info.json"
        raise UsageError(Finding(folder, "the path does not exist", remedy))
    if policy or Path(folder).is_dir():
        side = of_campaign(load(path), path, policy)
    else:
        side = baseline_file.side(path) if baseline_file.is_baseline(path) else _eval_info(path)
    if not side.episodes and not side.findings:
        rows = f" ({'; '.join(side.left_out)})" if side.left_out else ""
        raise UsageError(Finding(str(path), f"no row has a passed result{rows}", "Run the campaign first"))
    return side


def load(path: Path) -> Campaign:
    """Returns the campaign at `path`, a campaign's folder as `read` takes it. Raises UsageError where it is none."""
    return campaign.load(path if path.exists() else Path(str(path).partition(OF)[0]))


def of_campaign(spec: Campaign, name: Path, policy: str = "") -> Side:
    """Returns what a campaign's rows have played, or those of the checkpoint that `policy` names.

    `name` is the campaign as the user names it. Raises UsageError where the rows are of several checkpoints and
    `policy` names none of them.
    """
    policy_path, side = _policy_path(spec, name, policy), Side(str(name), "campaign", ())
    for row in spec.compared_rows or spec.enabled:
        if row.policy_path == policy_path:
            side = _with_row(side, spec, row, Path(str(name).partition(OF)[0]))
    return side


def _policy_path(spec: Campaign, name: Path, policy: str) -> str:
    """Returns the one policy path of the campaign's rows, or the one that means the same as `policy`."""
    known = list(dict.fromkeys(row.policy_path for row in spec.compared_rows or spec.enabled))
    place = Path(policy).resolve()
    same = [path for path in known if path == policy or (spec.layout.root / path).resolve() == place]
    if policy and same:
        return same[0]
    if not policy and len(known) == 1:
        return known[0]
    what = f"no row has the checkpoint {policy}" if policy else f"its rows are of {len(known)} checkpoints"
    folder = str(name).partition(OF)[0]
    remedy = f"Name one: {joined_names([f'{folder}{OF}{path}' for path in known])}"
    raise UsageError(Finding(folder, what, remedy))


def _with_row(side: Side, spec: Campaign, row: Row, folder: Path) -> Side:
    """Returns `side` with the row's episodes, or with why they are left out or cannot be compared."""
    manifest, result = run.read_files(spec.layout, row.run_id)
    if result is None or result["status"] != "pass" or result["dry_run"]:
        return replace(side, left_out=(*side.left_out, f"{row.run_id}: {_status(result)}"))
    if findings := evidence.refusals(spec, row) or [*_unfit(spec, row, result)]:
        return replace(side, findings=(*side.findings, *findings))
    record = cast(Manifest, manifest)  # its schema is part of the evidence
    episodes = (*side.episodes, *_row_episodes(folder, spec, record))
    return replace(side, episodes=episodes, rows=(*side.rows, _played_row(spec, record)))


def _eval_info(path: Path) -> Side:
    metrics = lerobot_eval.read_eval_info(path)
    remedy = "Take the file as lerobot-eval wrote it, or run the evaluation again"
    findings = tuple(Finding(str(path), warning, remedy) for warning in metrics.warnings)
    episodes = tuple(
        PlayedEpisode(
            (task.suite, task.task_id),
            number,
            number % INIT_STATES,
            success,
            lerobot_eval.video(path.parent, task.suite, task.task_id, number),
        )
        for task in metrics.tasks
        for number, success in enumerate(task.successes)
    )
    return Side(str(path), "eval_info.json", episodes, findings=findings)


def _status(result: Result | None) -> str:
    if result is not None and not result["dry_run"]:
        return row_state.status_text(result["status"], result["reason"], result["invalid"], result["unproven"])
    return "not run"


def _unfit(spec: Campaign, row: Row, result: Result) -> Iterator[Finding]:
    """Yields why the outcomes of a sound result say nothing about the benchmark."""
    where, again = str(spec.layout.run(row.run_id).result), judgement.run_again(spec.layout)
    if result["invalid"]:
        what = f"the row is invalid, since its simulator is not the benchmark's: {result['invalid']}"
        yield Finding(where, what, "Install the locked MuJoCo (make setup), and run the row with --allow-overwrite")
    if result["unproven"]:
        yield Finding(where, f"the engine is not proven to play lerobot-eval's episodes: {result['unproven']}", again)


def _attempt(spec: Campaign, manifest: Manifest) -> RunFolder:
    return spec.layout.run(manifest["run_id"]).attempt(manifest["attempt"])


def _played_row(spec: Campaign, manifest: Manifest) -> PlayedRow:
    parts: Mapping[str, object] = identity.read(_attempt(spec, manifest)) or {}
    software = {name: parts[name] for name in SOFTWARE if name in parts}
    return {
        "run_id": manifest["run_id"],
        "row_hash": manifest["row_hash"] or "",
        "policy_path": manifest["policy_path"],
        "checkpoint_sha256": manifest["checkpoint"]["tree_sha256"] or "",
        "engine": manifest["engine"],
        "simulator": manifest["mujoco_gl"],
        "batch_size": manifest["batch_size"],
        "software_sha256": files.sha256(files.canonical(software)) if software else None,
        "versions": manifest["versions"],
    }


def _row_episodes(path: Path, spec: Campaign, manifest: Manifest) -> Iterator[PlayedEpisode]:
    """Yields a row's episodes. Their videos are named below `path`, as the user names the campaign."""
    output = path / spec.layout.relative(_attempt(spec, manifest).output)
    settings = manifest["settings"]
    length = settings.get("episode_length") or EPISODE_STEPS.get(manifest["task_suite"])
    stored = settings.get("flags", {}).get("env.init_states", True)
    for line in files.read_lines(spec.layout.run(manifest["run_id"]).episodes):
        yield PlayedEpisode(
            (line["suite"], line["task"]),
            line["episode"],
            line["init_state"],
            line["success"],
            lerobot_eval.video(output, line["suite"], line["task"], line["episode"]),
            line["seed"],
            line["reset_ordinal"],
            length,
            lerobot_eval.flag_value(stored) != "false",
        )
