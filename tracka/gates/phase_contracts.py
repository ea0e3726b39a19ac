"""Defines the contracts of each phase as named functions that take a campaign and yield findings about its artifacts.

`CONTRACTS` is the whole list, phase by phase; a contract that yields no findings holds. Nothing here runs anything or
looks at which tests ran: the disk is held against the campaign's definition.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..campaign.layout import Layout
from ..campaign.matrix import REASON, Row
from ..core import files, schema
from ..core.errors import Finding, TrackaError, UsageError, shortened
from ..reporting import collect, rejected_rows, report, verdict_file
from ..runs import early_stop, parity, shared_evidence
from .host_contracts import HOST_CONTRACTS, Contract
from .row_contracts import QUICK_EVIDENCE, ROW_CONTRACTS, RUN_CONTRACTS, RowContract


def _rewrite(layout: Layout) -> str:
    """Returns the remedy for a table that is missing or outdated."""
    return f"Rewrite the tables: {commands.gates(layout)}, which runs no passed row again"


# ---- phases 3 and 4: runs


def _parity(contract: RowContract) -> Contract:
    """Returns the contract that the engine is proven to play lerobot-eval's episodes with each checkpoint here."""
    return lambda campaign: _row_findings(parity.rows_to_prove(campaign), contract, campaign)


def _baseline(contract: RowContract) -> Contract:
    return lambda campaign: contract(campaign, campaign.row(campaign.baseline))


@dataclass(frozen=True)
class AllRows:
    """A contract of a phase that yields the findings of a row contract for each enabled row."""

    of_row: RowContract

    def __call__(self, campaign: Campaign) -> Iterator[Finding]:
        return _row_findings(campaign.enabled, self.of_row, campaign)


def row_by_row(campaign: Campaign, contracts: Mapping[str, AllRows]) -> dict[str, list[Finding]]:
    """Returns the findings of each contract. A row is held against all of them before the next, so that what they ask
    of its files is read once."""
    found: dict[str, list[Finding]] = {name: [] for name in contracts}
    for row in campaign.enabled if contracts else ():
        for name, contract in contracts.items():
            found[name] += _row_findings([row], contract.of_row, campaign)
    return found


def _row_findings(rows: Iterable[Row], contract: RowContract, campaign: Campaign) -> Iterator[Finding]:
    """Yields the findings of a row contract for each row; a row that cannot be checked hides no other row."""
    for row in rows:
        try:
            yield from contract(campaign, row)
        except TrackaError as error:
            yield from error.findings


def _baseline_summary(campaign: Campaign) -> Iterator[Finding]:
    yield from _outdated_tables(campaign.layout, collect.baseline_tables(campaign))


def _summaries(campaign: Campaign) -> Iterator[Finding]:
    yield from _outdated_tables(campaign.layout, collect.tables(campaign))


def _outdated_tables(layout: Layout, expected: Mapping[str, str]) -> Iterator[Finding]:
    """Yields a finding for each of the campaign's tables that is not, to the letter, what the run folders give now."""
    for name in expected:
        path = layout.summary / name
        if not path.is_file():
            yield Finding(str(path), "the file does not exist", _rewrite(layout))
        elif (actual_text := files.read_text(path)) != (expected_text := files.redacted(expected[name])):
            different_lines = set(expected_text.splitlines()) ^ set(actual_text.splitlines())
            rows = sorted({re.split(r"[,|]", line.strip("| "))[0].strip() for line in different_lines})
            what = f"the table differs from the run folders in {', '.join(rows) or 'the order of the rows'}"
            yield Finding(str(path), what, _rewrite(layout))


def _early_stop(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding where the rows' files do not support the early stop, or not every claim had passed then."""
    yield from early_stop.unsupported(campaign)
    decision = early_stop.standing(campaign)
    if decision is not None and decision.outcome != "pass":
        yield Finding(str(campaign.layout.early_stop), early_stop.in_words(decision), early_stop.PLAY_ON)


def _listed_reasons(layout: Layout) -> dict[str, str]:
    """Returns run id -> reason by failures.csv. Raises UsageError where there is no such file."""
    path = layout.summary / "failures.csv"
    if not path.is_file():
        raise UsageError(Finding(str(path), "the file does not exist", _rewrite(layout)))
    table = csv.DictReader(io.StringIO(files.read_text(path, newline=""), newline=""))
    return {str(record.get("run_id")): str(record.get(REASON)) for record in table}


# ---- phase 5: closure


def _no_failures(campaign: Campaign) -> Iterator[Finding]:
    for run_id, reason in _listed_reasons(campaign.layout).items():
        again = rejected_rows.rerun(campaign, reason)
        measured = f"{rejected_rows.STAYS}; {rejected_rows.OTHER_CAMPAIGN}"
        table = campaign.layout.summary / "failures.csv"
        remedy = f"Read the reason in {table}, then rerun: {again}" if again else measured
        yield Finding(f"row {run_id}", "the row is not accepted", remedy)


RUNBOOK_WORDS = ("lerobot-eval", "success rate", "artifacts", "MUJOCO_GL", "rerun")
RESULTS_WORDS = ("success rate", "artifacts")


def _runbook(campaign: Campaign) -> Iterator[Finding]:
    words = (*RUNBOOK_WORDS, *dict.fromkeys(row.task_suite for row in campaign.enabled))
    yield from _missing_words(campaign.layout, campaign.layout.runbook, words)
    replays = [report.replay(manifest, campaign.layout.tier) for manifest in report.manifests(campaign)]
    yield from _missing_words(campaign.layout, campaign.layout.runbook, replays)


def _results(campaign: Campaign) -> Iterator[Finding]:
    rows = campaign.enabled
    words = [*RESULTS_WORDS, *(row.run_id for row in rows), *(row.policy_path for row in rows)]
    yield from _missing_words(
        campaign.layout, campaign.layout.results, tuple(dict.fromkeys([*words, *(row.task_suite for row in rows)]))
    )
    path = campaign.layout.results
    if path.is_file() and not report.is_up_to_date(campaign, files.read_text(path)):
        remedy = commands.run_phase(campaign.layout, "phase5")
        yield Finding(str(path), "the page does not match the run folders", remedy)


def _verdict(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding where verdict.json does not match the run folders, or is not a pass.

    Yields none where the campaign has no `[verdict]`.
    """
    if campaign.verdict is None:
        return
    path = campaign.layout.verdict
    verdict = schema.read("verdict", path)
    if not verdict_file.is_up_to_date(campaign, verdict):
        yield Finding(str(path), "the verdict does not match the run folders", _rewrite(campaign.layout))
    elif verdict["outcome"] != "pass":
        yield Finding(str(path), verdict["sentence"], _REMEDIES[verdict["outcome"]])


_REMEDIES = {
    "fail": "Evaluate another checkpoint; the page of results has every claim and every task",
    "underpowered": "Play more episodes (n_episodes, a tier's episodes, or more seeds); the sentence says how many",
    "invalid": "Run the rows that have no sound result again, then the verdict can be given",
}


def _missing_words(layout: Layout, path: Path, words: Sequence[str]) -> Iterator[Finding]:
    if not path.is_file():
        yield Finding(str(path), "the file does not exist", commands.run_phase(layout, "phase5"))
        return
    text = files.read_text(path)
    # Most words are in this set. Searching the whole page for each word would grow with the square of the rows.
    parts = {part for line in text.splitlines() for part in (*line.split(), *line.split(" && "))}
    for word in files.redacted(list(words)):
        if word not in parts and word not in text:
            what = f"the page does not mention {shortened(word)!r}"
            yield Finding(str(path), what, commands.run_phase(layout, "phase5"))


def contracts(of_rows: Mapping[str, RowContract]) -> dict[str, dict[str, Contract]]:
    """Returns the contracts of all phases, with these contracts of rows."""
    return {
        **HOST_CONTRACTS,
        "phase3": {
            "parity": _parity(of_rows["parity"]),
            **{f"baseline_{name}": _baseline(of_rows[name]) for name in RUN_CONTRACTS},
            "baseline_summary": _baseline_summary,
        },
        "phase4": {
            **{f"rows_{name}": AllRows(of_rows[name]) for name in RUN_CONTRACTS},
            "shared_evidence": shared_evidence.findings,
            "early_stop": _early_stop,
            "summaries": _summaries,
        },
        "phase5": {"no_failures": _no_failures, "runbook": _runbook, "results": _results, "verdict": _verdict},
    }


CONTRACTS = contracts(ROW_CONTRACTS)

# Contracts that a quick validation leaves out: they decode videos, as results.md tells of videos without a picture, or
# read more than the records of rows.
NOT_QUICK = ("baseline_videos", "rows_videos", "shared_evidence", "results")
_QUICK_OF_RUNS: dict[str, Contract] = {
    "baseline_evidence": _baseline(QUICK_EVIDENCE),
    "rows_evidence": AllRows(QUICK_EVIDENCE),
}
QUICK_CONTRACTS: dict[str, dict[str, Contract]] = {
    phase: {name: _QUICK_OF_RUNS.get(name, contract) for name, contract in of_phase.items() if name not in NOT_QUICK}
    for phase, of_phase in CONTRACTS.items()
}
