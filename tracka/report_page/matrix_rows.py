"""Says of each row how it was played and how it ended, and what to do about a row that is not accepted."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..campaign.campaign import Campaign
from ..core import escaping, log_cause, reading, system_errors
from ..core.artifacts import Manifest
from ..execution import gpu, slurm_outcome
from ..reporting import collect, rejected_rows, report, results_page
from ..reporting.collect import EvalRunResult
from ..runs import known_answers

LOG_BYTES = 1 << 16
LOG_LINES = 25
LINE_LENGTH = 400

LOOK = (
    "Look at the videos of the row's failed episodes, and at the warnings of preflight if there are any. "
    f"{rejected_rows.STAYS}; {rejected_rows.OTHER_CAMPAIGN}"
)
CHANGE = "Mend what the message names, then run the row again"
REMEDIES = {  # reason -> what helps; docs/contracts.md says what each reason means
    "timeout": "Give the row more time ([timeouts] row_secs), fewer episodes, or a smaller batch",
    "flood": "Find what prints so much in the log, or allow more ([limits] log_mib)",
    "weights": "The policy that ran is not the one that was saved: see `tracka check` for its tensors",
    "device": "Give the row a GPU that this host has, and see that torch finds it (`nvidia-smi`)",
    "oom": "Lower the row's batch_size (`tracka propose` says by how much), or free the memory that others use",
    "rendering": "Run preflight again: it tries each backend on each GPU",
    "hub": "See the preflight's checks of the hub, then bring the model to this host",
    "import": "Install the package that the message names, then run the row again",
    **system_errors.REMEDIES,
    "killed": "Find out who ended the process (`dmesg` names the out-of-memory killer), then run the row again",
    "crash": CHANGE,
    "bad_action": "The policy gave an action that is not a number: check its statistics with `tracka check`",
    "no_result": "See the log: lerobot-eval ended before it wrote its result",
    "invalid_result": "See the message: the result has other episodes than the row asks for",
    "interrupted": "Run the row again",
    "not_started": CHANGE,
    "checkpoint": "Run `tracka check` on the checkpoint: it names what is missing or refused",
    "not_run": "Run the campaign",
    "stopped": "The campaign was decided before; to run the row all the same, set early = 'off' under [verdict]",
    "session_stop": "Run what is left with `--lf`: rows that have passed are not run again",
    "budget": "Run the tier again: rows that have passed are not run again; or raise its budget_minutes",
    rejected_rows.BELOW_THRESHOLD: LOOK,
    known_answers.REASON: known_answers.REMEDY,
    **slurm_outcome.REMEDIES,
}


@dataclass(frozen=True)
class ShownRow:
    """One enabled row. `reason` says why it is not accepted, None where it is.

    `is_counted` says whether its episodes count in the rates of the tasks: it has passed and is not the baseline.

    `played` has its settings as results.md shows them, empty for a row that has not begun. `log` has the last lines of
    its stderr.log where it failed.
    """

    result: EvalRunResult
    tasks: Sequence[int]
    threshold: float | None
    is_counted: bool
    folder: Path
    reason: str | None
    device: str
    rate: str
    interval: tuple[float, float] | None
    played: Mapping[str, Any]
    replay: str | None
    message: str
    log: Sequence[str]
    remedy: str
    rerun: str


def read(
    campaign: Campaign,
    results: Sequence[EvalRunResult],
    reasons: Mapping[str, str],
    manifests: Sequence[Manifest],
) -> list[ShownRow]:
    """Returns the enabled rows in the order of the matrix.

    `reasons` are those of `collect.failure_reasons`, and `manifests` are those of the rows that have begun.
    """
    played = {each["run_id"]: each for each in results_page.rows(campaign, manifests)}
    replays = {manifest["run_id"]: report.replay(manifest, campaign.layout.tier) for manifest in manifests}
    return [
        _row(campaign, result, reasons.get(result.run_id), played.get(result.run_id, {}), replays.get(result.run_id))
        for result in results
    ]


def _row(
    campaign: Campaign, result: EvalRunResult, reason: str | None, played: Mapping[str, Any], replay: str | None
) -> ShownRow:
    has_episodes = result.episodes and result.successes is not None
    row = campaign.row(result.run_id)
    return ShownRow(
        result,
        campaign.task_ids(row),
        campaign.threshold(row) or None,
        result.status == "pass" and campaign.is_compared(row),
        campaign.layout.run(result.run_id).path,
        reason,
        gpu.device_name(result.gpu_id),
        collect.rate(result),
        collect.wilson(result.successes or 0, result.episodes or 1) if has_episodes else None,
        played,
        _from_here(campaign, replay),
        rejected_rows.in_words(campaign, result.run_id, reason),
        _log(campaign, result.run_id) if reason and result.status == "fail" else (),
        REMEDIES.get(reason or "", CHANGE) if reason else "",
        rejected_rows.rerun(campaign, reason) if reason else "",
    )


def _from_here(campaign: Campaign, replay: str | None) -> str | None:
    """Returns a row's command with the folder in which it has to be run."""
    return replay and f"cd {shlex.quote(campaign.layout.display_name)} && {replay}"


def _log(campaign: Campaign, run_id: str) -> list[str]:
    """Returns the last lines of a row's stderr.log; of a progress bar, which overwrites its line, the last state."""
    text = log_cause.without_ignored(reading.tail(campaign.layout.run(run_id).stderr, LOG_BYTES))
    lines = [line for line in text.split("\n") if line.strip()]
    return [escaping.plain(line)[:LINE_LENGTH] for line in lines[-LOG_LINES:]]
