"""Defines the contracts of each phase as named functions that take a campaign and yield findings about its artifacts.

`CONTRACTS` is the whole list, phase by phase; a contract that yields no findings holds. Nothing here runs anything or
looks at which tests ran: the disk is held against the campaign's definition.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..campaign.layout import Layout
from ..campaign.matrix import AUTO, Row
from ..core import files, schema
from ..core.errors import Finding, TrackaError, UsageError, joined_names, shortened
from ..core.reports import PreflightReport
from ..engines import cli_capabilities, lerobot_eval
from ..preflight import preflight
from ..reporting import collect, report
from ..runs import parity, run
from .row_contracts import ROW_CONTRACTS, RUN_CONTRACTS

Contract = Callable[[Campaign], Iterator[Finding]]


def _rewrite(layout: Layout) -> str:
    """Returns the remedy for a table that is missing or outdated."""
    return f"Rewrite the tables: {commands.gates(layout)}, which runs no passed row again"


# ---- phase 1: contracts before anything expensive


def _capabilities(campaign: Campaign) -> Iterator[Finding]:
    path, raw = campaign.layout.capabilities, campaign.layout.state / "lerobot_eval_help.txt"
    if not path.exists() and raw.exists():
        yield Finding(
            str(path),
            f"phase 1 could not read lerobot-eval's flags: {files.tail(raw).strip()}",
            f"Mend the cause, then run phase 1: {commands.gates(campaign.layout, '-m phase1')}",
        )
        return
    value = files.read_json(path)
    yield from schema.findings("cli_capabilities", value, str(path))
    yield from _missing_file(campaign.layout, path.parent / str(value.get("lerobot_eval_help_text_path")), "phase1")


def _run_schema(campaign: Campaign) -> Iterator[Finding]:
    path = campaign.layout.run_schema
    if files.read_json(path) != schema.run_schema():
        yield Finding(
            str(path),
            "the file is not the run schema of this Track A",
            f"Rewrite the file: tracka schema --root {campaign.layout.root}",
        )


def _commands(campaign: Campaign) -> Iterator[Finding]:
    if not campaign.layout.capabilities.exists():
        return  # the contract cli_capabilities reports that
    capabilities = schema.read("cli_capabilities", campaign.layout.capabilities)
    for row in campaign.enabled:
        argv = lerobot_eval.command(
            capabilities["executable"],
            row,
            campaign.settings(row),
            policy=Path(row.policy_path),
            device="cpu",
            batch_size=row.batch_size,
            output=Path("eval"),
        )
        try:
            lerobot_eval.check_flags(argv, capabilities)
        except TrackaError as error:
            yield from (Finding(f"row {row.run_id}, {item.where}", item.what, item.remedy) for item in error.findings)


def _larger_rows(campaign: Campaign) -> Iterator[Finding]:
    if not [row for row in campaign.enabled if row.run_id != campaign.baseline]:
        yield Finding(str(campaign.layout.matrix), "the matrix enables only the baseline", "Enable another row")


def _baseline_row(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding where the baseline, which is to be small, is disabled or runs several LIBERO tasks."""
    baseline = campaign.row(campaign.baseline)
    where = f"{campaign.layout.settings}, row {baseline.run_id}"
    if not baseline.enabled:
        yield Finding(where, "the baseline is disabled", "Enable it in the matrix, or name another row as baseline")
    if len(tasks := campaign.task_ids(baseline)) != 1:
        yield Finding(where, f"the baseline runs {len(tasks)} LIBERO tasks", "Pin one, such as task_ids = [0]")


def _gpus(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding for each enabled row that asks for a GPU beyond those that the campaign expects."""
    expected = campaign.expected_gpus
    for row in campaign.enabled:
        least = 1 if row.gpu_id == AUTO else row.gpu_id + 1  # 0 for the CPU
        if least > expected:
            asked = "any GPU" if row.gpu_id == AUTO else f"GPU {row.gpu_id}"
            what = f"row {row.run_id} asks for {asked}, and the campaign expects {expected or 'no'} GPUs"
            remedy = f"Set expected_gpus in {campaign.layout.settings.name} to {least} or more, or name another gpu_id"
            yield Finding(f"{campaign.layout.matrix}, line {row.line}, column gpu_id", what, f"{remedy}, or cpu")


def _help_text(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding where the recorded flags are not those of the raw help text beside them."""
    value = schema.read("cli_capabilities", campaign.layout.capabilities)
    raw = campaign.layout.state / value["lerobot_eval_help_text_path"]
    if raw.is_file() and cli_capabilities.flags(files.read_text(raw)) != value["supported_flags"]:
        yield Finding(str(raw), "cli_capabilities.json lists other flags", _run_phase(campaign.layout, "phase1"))


# ---- phase 2: the host


def _preflight_report(campaign: Campaign) -> Iterator[Finding]:
    path = campaign.layout.preflight_report
    yield from schema.findings("preflight", files.read_json(path), str(path))


def _preflight_checks(campaign: Campaign) -> Iterator[Finding]:
    path = campaign.layout.preflight_report
    preflight_report = schema.read("preflight", path)
    failures = preflight.findings(preflight_report, str(path))
    yield from failures
    if preflight_report["status"] != "pass" and not failures:
        yield Finding(
            str(path),
            f"preflight is {preflight_report['status']} ({preflight_report['blocker']})",
            _run_phase(campaign.layout, "phase2"),
        )
    # After a failed check, doubts would only be its consequences and no further cause.
    for key, what in () if failures else _contradictions(campaign, preflight_report):
        yield Finding(f"{path}, key {key}", what, _run_phase(campaign.layout, "phase2"))


def _contradictions(campaign: Campaign, preflight_report: PreflightReport) -> Iterator[tuple[str, str]]:
    """Yields (key, reason) for each value that contradicts a report whose status is pass."""
    for key in ("lerobot_import_ok", "lerobot_eval_help_ok", "policy_resolve_ok"):
        if preflight_report[key] is not True:
            yield key, "the value is not true"
    if preflight_report["gpu_count"] < campaign.expected_gpus:
        yield (
            "gpu_count",
            f"the host has {preflight_report['gpu_count']} GPUs, but the campaign expects {campaign.expected_gpus}",
        )
    names = {check["name"] for check in preflight_report["checks"]}
    policies = dict.fromkeys(files.redacted(f"policy_resolve:{row.policy_path}") for row in campaign.enabled)
    if missing := [name for name in (*preflight.REQUIRED, *policies) if name not in names]:
        yield "checks", f"preflight did not make these checks: {joined_names(missing)}"


def _backend(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding where no attempt of preflight rendered a frame with the backend that the report names."""
    path = campaign.layout.preflight_report
    report = schema.read("preflight", path)
    attempts = report["backend_attempts"]
    if report["mujoco_gl_effective"] not in [attempt["backend"] for attempt in attempts if attempt["ok"]]:
        tried = joined_names([attempt["backend"] for attempt in attempts]) or "none"
        backend = report["mujoco_gl_effective"]
        what = f"preflight rendered no frame with {backend or 'any backend'}, and tried {tried}"
        remedy = f"See the failed checks. {_run_phase(campaign.layout, 'phase2')}"
        yield Finding(f"{path}, key mujoco_gl_effective", what, remedy)


def _gpu_list(campaign: Campaign) -> Iterator[Finding]:
    path = campaign.layout.preflight / "nvidia_smi.txt"
    count = sum(line.startswith("GPU ") for line in files.read_text(path).splitlines())
    if count < campaign.expected_gpus:
        what = f"the file lists {count} GPUs, but the campaign expects {campaign.expected_gpus}"
        yield Finding(str(path), what, f"Run phase 2 on a host with {campaign.expected_gpus} GPUs")


def _snapshots(campaign: Campaign) -> Iterator[Finding]:
    for name in ("nvidia_smi.txt", "pip_freeze.txt", "env_snapshot.json", "setup.log"):
        yield from _missing_file(campaign.layout, campaign.layout.preflight / name, "phase2")
    schema.read("env_snapshot", campaign.layout.preflight / "env_snapshot.json")


# ---- phases 3 and 4: runs


def _parity(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding for each checkpoint with which the engine is not proven to play lerobot-eval's episodes here."""
    yield from _row_findings(parity.rows_to_prove(campaign), "parity", campaign)


def _baseline(name: str) -> Contract:
    return lambda campaign: ROW_CONTRACTS[name](campaign, campaign.row(campaign.baseline))


def _all_rows(name: str) -> Contract:
    def contract(campaign: Campaign) -> Iterator[Finding]:
        """Yields the findings of the row contract for each enabled row.

        A row that never ran because of its checkpoint gives one finding, which is the same in each contract.
        """
        refusals = {row.run_id: refusal for row in campaign.enabled if (refusal := run.recorded_refusal(campaign, row))}
        yield from refusals.values()
        yield from _row_findings([row for row in campaign.enabled if row.run_id not in refusals], name, campaign)

    return contract


def _row_findings(rows: Iterable[Row], name: str, campaign: Campaign) -> Iterator[Finding]:
    """Yields the findings of the row contract `name` for each row; a row that cannot be checked hides no other row."""
    for row in rows:
        try:
            yield from ROW_CONTRACTS[name](campaign, row)
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


def _failed_run_ids(layout: Layout) -> list[str]:
    path = layout.summary / "failures.csv"
    if not path.is_file():
        raise UsageError(Finding(str(path), "the file does not exist", _rewrite(layout)))
    with path.open(newline="", encoding="utf-8") as file:
        return [str(record.get("run_id")) for record in csv.DictReader(file)]


# ---- phase 5: closure


def _no_failures(campaign: Campaign) -> Iterator[Finding]:
    for run_id in _failed_run_ids(campaign.layout):
        yield Finding(
            f"row {run_id}",
            "the row is not accepted",
            f"Read the reason in failures.csv, then rerun: {commands.gates(campaign.layout, '--lf')}",
        )


RUNBOOK_WORDS = ("lerobot-eval", "success rate", "artifacts", "MUJOCO_GL", "rerun")
RESULTS_WORDS = ("success rate", "artifacts")


def _runbook(campaign: Campaign) -> Iterator[Finding]:
    words = (*RUNBOOK_WORDS, *dict.fromkeys(row.task_suite for row in campaign.enabled))
    yield from _missing_words(campaign.layout, campaign.layout.runbook, words)
    replays = [report.replay(manifest) for manifest in report.manifests(campaign)]
    yield from _missing_words(campaign.layout, campaign.layout.runbook, replays)


def _results(campaign: Campaign) -> Iterator[Finding]:
    rows = campaign.enabled
    words = [*RESULTS_WORDS, *(row.run_id for row in rows), *(row.policy_path for row in rows)]
    yield from _missing_words(
        campaign.layout, campaign.layout.results, tuple(dict.fromkeys([*words, *(row.task_suite for row in rows)]))
    )
    path = campaign.layout.results
    if path.is_file() and (text := files.read_text(path)) != files.redacted(report.results_as(campaign, text)):
        yield Finding(str(path), "the page does not match the run folders", _run_phase(campaign.layout, "phase5"))


def _missing_words(layout: Layout, path: Path, words: Sequence[str]) -> Iterator[Finding]:
    if not path.is_file():
        yield Finding(str(path), "the file does not exist", _run_phase(layout, "phase5"))
        return
    text = files.read_text(path)
    # Most words are in this set. Searching the whole page for each word would grow with the square of the rows.
    parts = {part for line in text.splitlines() for part in (*line.split(), *line.split(" && "))}
    for word in files.redacted(list(words)):
        if word not in parts and word not in text:
            what = f"the page does not mention {shortened(word)!r}"
            yield Finding(str(path), what, _run_phase(layout, "phase5"))


def _missing_file(layout: Layout, path: Path, phase: str) -> Iterator[Finding]:
    if not path.is_file():
        yield Finding(str(path), "the file does not exist", _run_phase(layout, phase))


def _run_phase(layout: Layout, phase: str) -> str:
    """Returns the remedy for what a phase leaves, where this is missing or outdated."""
    return f"Run {phase}: {commands.gates(layout, f'-m {phase}')}"


CONTRACTS: dict[str, dict[str, Contract]] = {
    "phase1": {
        "cli_capabilities": _capabilities,
        "help_text": _help_text,
        "run_schema": _run_schema,
        "commands": _commands,
        "baseline": _baseline_row,
        "gpus": _gpus,
        "scales": _larger_rows,
    },
    "phase2": {
        "preflight_report": _preflight_report,
        "preflight_checks": _preflight_checks,
        "backend": _backend,
        "gpu_list": _gpu_list,
        "snapshots": _snapshots,
    },
    "phase3": {
        "parity": _parity,
        **{f"baseline_{name}": _baseline(name) for name in RUN_CONTRACTS},
        "baseline_summary": _baseline_summary,
    },
    "phase4": {
        **{f"rows_{name}": _all_rows(name) for name in RUN_CONTRACTS},
        "summaries": _summaries,
    },
    "phase5": {"no_failures": _no_failures, "runbook": _runbook, "results": _results},
}
