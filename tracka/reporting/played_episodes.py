"""Reads what one side of a comparison has played: the passed rows of a campaign, or one eval_info.json of lerobot-eval.

Guarantees: only outcomes with sound evidence are read; a row that did not pass is no failure of the policy, and is
named as left out; whatever makes a result unfit for a comparison is a finding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..campaign import campaign
from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core import files
from ..core.artifacts import Manifest, Result
from ..core.errors import Finding, UsageError
from ..core.lerobot_facts import EPISODE_STEPS, INIT_STATES
from ..engines import lerobot_eval
from ..runs import evidence, judgement, row_state, run

Kind = Literal["campaign", "eval_info.json"]
Task = tuple[str, int]  # suite and LIBERO task


@dataclass(frozen=True)
class PlayedEpisode:
    """One episode and how it began. What the files of its side do not say is None.

    `length` is the number of control steps after which it ends, and `fixed_start` whether it began at a stored init
    state.
    """

    task: Task
    number: int  # counted from 0 in its task
    init_state: int
    success: bool
    video: Path
    seed: int | None = None
    reset_ordinal: int | None = None  # how often its environment had been reset before
    length: int | None = None
    fixed_start: bool | None = None


@dataclass(frozen=True)
class Side:
    """One side of a comparison. `findings` says why some of its results cannot be compared.

    `left_out` names each row that has no passed result, and `checkpoints` has the hashes of what played.
    """

    name: str
    kind: Kind
    episodes: tuple[PlayedEpisode, ...]
    left_out: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    checkpoints: frozenset[str] = frozenset()

    @property
    def tasks(self) -> frozenset[Task]:
        """The tasks that this side has played."""
        return frozenset(episode.task for episode in self.episodes)


def read(path: Path) -> Side:
    """Returns what was played at `path`: a campaign's folder, or an eval_info.json.

    Raises UsageError where `path` is neither, or holds no outcome.
    """
    if not path.exists():
        raise UsageError(Finding(str(path), "the path does not exist", "Name a campaign's folder or an eval_info.json"))
    side = _campaign(path) if path.is_dir() else _eval_info(path)
    if not side.episodes and not side.findings:
        rows = f" ({'; '.join(side.left_out)})" if side.left_out else ""
        raise UsageError(Finding(str(path), f"no row has a passed result{rows}", "Run the campaign first"))
    return side


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


def _campaign(path: Path) -> Side:
    spec = campaign.load(path)
    episodes: list[PlayedEpisode] = []
    left_out: list[str] = []
    findings: list[Finding] = []
    checkpoints: set[str] = set()
    for row in spec.compared_rows or spec.enabled:
        manifest, result = run.read_files(spec.layout, row.run_id)
        if result is None or result["status"] != "pass" or result["dry_run"]:
            left_out.append(f"{row.run_id}: {_status(spec, row, result)}")
            continue
        row_findings = evidence.refusals(spec, row) or [*_unfit(spec, row, result)]
        findings += row_findings
        if not row_findings:
            record: Manifest = manifest  # type: ignore[assignment]  # its schema is part of the evidence
            episodes += _row_episodes(path, spec, record)
            checkpoints.add(record["checkpoint"]["tree_sha256"] or "")
    return Side(str(path), "campaign", (*episodes,), (*left_out,), (*findings,), frozenset(checkpoints))


def _status(spec: Campaign, row: Row, result: Result | None) -> str:
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


def _row_episodes(path: Path, spec: Campaign, manifest: Manifest) -> Iterator[PlayedEpisode]:
    """Yields a row's episodes. Their videos are named below `path`, as the user names the campaign."""
    top = spec.layout.run(manifest["run_id"])
    output = path / spec.layout.relative(top.attempt(manifest["attempt"]).output)
    settings = manifest["settings"]
    length = settings.get("episode_length") or EPISODE_STEPS.get(manifest["task_suite"])
    stored = settings.get("flags", {}).get("env.init_states", True)
    for line in files.read_lines(top.episodes):
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
