"""Reads what one side of a comparison has played: a campaign's passed rows, an exported baseline or an eval_info.json.

Guarantees: only outcomes with sound evidence are read; a row that did not pass is no failure of the policy, and is
named as left out; whatever makes a result unfit for a comparison is a finding; a side is one checkpoint's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from ..campaign import campaign
from ..campaign.campaign import Campaign
from ..campaign.layout import RunFolder
from ..campaign.matrix import Row
from ..core import close_match, files, installation
from ..core.artifacts import Manifest, Result
from ..core.baselines import PlayedRow
from ..core.errors import Finding, UsageError, joined_names
from ..core.files import Json
from ..core.lerobot_facts import EPISODE_STEPS, INIT_STATES
from ..engines import lerobot_eval
from ..runs import evidence, identity, judgement, repetition, row_state, run
from . import baseline_file, blocked_phase
from .sides import PlayedEpisode, Side

OF = "::"  # between a campaign's folder and the policy path of one of its checkpoints
SOFTWARE = ("loaded", "program", "python", "packages", "code", "environment")  # these parts of a row's identity
SETTINGS = ("settings",)  # the same: the flags of lerobot-eval


def read(path: Path) -> Side:
    """Returns what was played at `path`: a campaign's folder, an exported baseline, or an eval_info.json.

    `tasks/NAME::POLICY` is one checkpoint of a campaign of several. Raises UsageError where `path` is none of these, or
    holds no outcome.
    """
    place, policy = place_and_policy(path)
    if not place.exists():
        remedy = "Name a campaign's folder, an exported baseline or an eval_info.json"
        raise UsageError(Finding(str(place), "the path does not exist", f"{close_match.asked(place)}{remedy}"))
    if policy or place.is_dir():
        side = of_campaign(load(path), path)
    else:
        side = baseline_file.side(path) if baseline_file.is_baseline(path) else _eval_info(path)
    if not side.episodes and not side.findings:
        raise UsageError(_nothing_played(path, side))
    return side


def _nothing_played(path: Path, side: Side) -> Finding:
    """Returns the finding that no row has passed, with the phase that keeps rows from running, where one does."""
    rows_left_out = f" ({'; '.join(side.left_out)})" if side.left_out else ""
    what = "; ".join(filter(None, [f"no row has a passed result{rows_left_out}", baseline_in_words(side)]))
    if not place_and_policy(path)[0].is_dir():
        return Finding(str(path), what, "Run the evaluation again")
    layout = load(path).layout
    blocked = blocked_phase.reason(layout)
    return Finding(str(path), f"{what}, since {blocked}" if blocked else what, blocked_phase.remedy(layout))


def baseline_in_words(side: Side) -> str:
    """Returns why the baseline is not among the rows of a side; empty where it is, or where there is none."""
    return f"{side.baseline} is the baseline, which is never compared" if side.baseline else ""


def is_same(ours: Path, theirs: Path) -> bool:
    """Returns whether two paths, as `read` takes them, name the same campaign and checkpoint, or the same file."""
    (place, policy), (other, other_policy) = place_and_policy(ours), place_and_policy(theirs)
    return place.resolve() == other.resolve() and policy == other_policy


def named(folder: Path, policy: str) -> Path:
    """Returns the name of one checkpoint of the campaign in `folder`, `FOLDER::POLICY`; the folder without a policy."""
    return Path(f"{folder}{OF}{policy}") if policy else folder


def load(path: Path) -> Campaign:
    """Returns the campaign at `path`, a campaign's folder as `read` takes it. Raises UsageError where it is none."""
    return campaign.load_named(place_and_policy(path)[0])


def of_campaign(spec: Campaign, path: Path) -> Side:
    """Returns what the rows of the campaign at `path` have played. Raises UsageError as `rows` does."""
    return of_rows(spec, path, rows(spec, path))


def of_rows(spec: Campaign, path: Path, chosen: Iterable[Row]) -> Side:
    """Returns what these rows of the campaign at `path` have played."""
    listed = [*chosen]
    is_left_out = spec.baseline not in [row.run_id for row in listed]
    side = Side(str(path), "campaign", (), baseline=spec.baseline if is_left_out else "")
    for row in listed:
        side = _with_row(side, spec, row, place_and_policy(path)[0])
    return side


def rows(spec: Campaign, path: Path) -> list[Row]:
    """Returns the rows of the campaign at `path` whose results count: those of one checkpoint.

    Raises UsageError where `path` names a checkpoint that no row has, or names none of several.
    """
    candidates = spec.compared_rows or spec.enabled
    policy_path = _policy_path(spec, path, list(dict.fromkeys(row.policy_path for row in candidates)))
    return [row for row in candidates if row.policy_path == policy_path]


def place_and_policy(path: Path) -> tuple[Path, str]:
    """Returns the file or folder that `path` names, and the policy path behind it, empty where there is none."""
    place, _, policy = (str(path), "", "") if path.exists() else str(path).partition(OF)
    return Path(place), policy


def _policy_path(spec: Campaign, path: Path, known: Sequence[str]) -> str:
    """Returns the only policy path in `known`, or that which means the same as the one behind `path`."""
    place, policy = place_and_policy(path)
    same = [each for each in known if each == policy or (spec.layout.root / each).resolve() == Path(policy).resolve()]
    if policy and same:
        return same[0]
    if not policy and len(known) == 1:
        return known[0]
    what = f"no row has the checkpoint {policy}" if policy else f"its rows are of {len(known)} checkpoints"
    raise UsageError(Finding(str(place), what, f"Name one: {joined_names([f'{place}{OF}{each}' for each in known])}"))


def _with_row(side: Side, spec: Campaign, row: Row, folder: Path) -> Side:
    """Returns `side` with the row's episodes, or with why they are left out or cannot be compared."""
    manifest, result = run.read_files(spec.layout, row.run_id)
    if result is None or result["status"] != "pass" or result["dry_run"]:
        return replace(side, left_out=(*side.left_out, f"{row.run_id}: {_status(result)}"))
    if findings := evidence.refusals(spec, row) or [*_unfit(spec, row, result)]:
        return replace(side, findings=(*side.findings, *findings))
    record = cast(Manifest, manifest)  # its schema is part of the evidence
    episodes = (*side.episodes, *_row_episodes(folder, spec, row, record))
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
        remedy = f"Install the locked MuJoCo ({installation.SETUP}), and run the row with --allow-overwrite"
        yield Finding(where, what, remedy)
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
        "settings": dict(identity.flat({name: parts[name] for name in SETTINGS if name in parts})),
    }


def _row_episodes(folder: Path, spec: Campaign, row: Row, manifest: Manifest) -> Iterator[PlayedEpisode]:
    """Yields a row's episodes. Their videos are named below `folder`, as the user names the campaign or its tier."""
    output = folder / _attempt(spec, manifest).output.relative_to(spec.layout.naming_folder)
    settings = manifest["settings"]
    length = settings.get("episode_length") or EPISODE_STEPS.get(manifest["task_suite"])
    stored = settings.get("flags", {}).get("env.init_states", True)
    repeated = {_begin(line): line["success"] for line in repetition.episodes(spec, row, manifest["row_hash"])}
    for line in files.read_lines(spec.layout.run(row.run_id).episodes):
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
            repeated.get(_begin(line)),
        )


def _begin(line: Json) -> tuple[object, ...]:
    """Returns what begins an episode of a row; a retry with a smaller batch begins it otherwise."""
    return tuple(line[name] for name in ("suite", "task", "episode", "init_state", "seed", "reset_ordinal"))
