"""The contracts of each phase: what its artifacts must be, as named functions from a campaign to findings.

`CONTRACTS` is the whole list, phase by phase; no findings means that a contract holds. Nothing here runs anything or
looks at which tests ran: the disk is held against the spec.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from . import collect, engine, files, preflight, report, schema
from .campaign import Campaign
from .errors import Finding, TrackaError, UsageError
from .evidence import ROW_CONTRACTS

Contract = Callable[[Campaign], Iterator[Finding]]
REWRITE = "Run pytest acceptance again: what has passed is not run again, and the tables are written anew"


# ---- phase 1: contracts before anything expensive


def _capabilities(campaign: Campaign) -> Iterator[Finding]:
    path, raw = campaign.layout.capabilities, campaign.layout.state / "lerobot_eval_help.txt"
    if not path.exists() and raw.exists():
        yield Finding(
            str(path), f"lerobot-eval was not understood: {files.tail(raw).strip()}", "Mend that, run phase 1"
        )
        return
    value = files.read_json(path)
    yield from schema.findings("cli_capabilities", value, str(path))
    yield from _exists(path.parent / str(value.get("lerobot_eval_help_text_path")), "lerobot_eval_help_text_path")


def _run_schema(campaign: Campaign) -> Iterator[Finding]:
    path = campaign.layout.run_schema
    if files.read_json(path) != schema.run_schema():
        yield Finding(
            str(path),
            "it is not the schema of this Track A",
            f"Write it anew: tracka schema --root {campaign.layout.root}",
        )


def _commands(campaign: Campaign) -> Iterator[Finding]:
    if not campaign.layout.capabilities.exists():
        return  # said by the contract before
    capabilities = schema.read("cli_capabilities", campaign.layout.capabilities)
    for row in campaign.enabled:
        argv = engine.command(
            capabilities["executable"],
            row,
            campaign.settings(row),
            policy=Path(row.policy_path),
            device="cpu",
            batch_size=row.batch_size,
            output=Path("eval"),
        )
        try:
            engine.check_flags(argv, capabilities)
        except TrackaError as error:
            yield from (Finding(f"row {row.run_id}, {item.where}", item.what, item.remedy) for item in error.findings)


# ---- phase 2: the host


def _preflight_report(campaign: Campaign) -> Iterator[Finding]:
    path = campaign.layout.preflight_report
    yield from schema.findings("preflight", files.read_json(path), str(path))


def _preflight_checks(campaign: Campaign) -> Iterator[Finding]:
    path = campaign.layout.preflight_report
    report = schema.read("preflight", path)
    failed = preflight.findings(report, str(path))
    yield from failed
    if report["status"] != "pass" and not failed:
        yield Finding(str(path), f"preflight is {report['status']} ({report['blocker']})", "Run preflight again")


def _snapshots(campaign: Campaign) -> Iterator[Finding]:
    for name in ("nvidia_smi.txt", "pip_freeze.txt", "env_snapshot.json", "setup.log"):
        yield from _exists(campaign.layout.preflight / name, "preflight")


# ---- phases 3 and 4: runs


def _baseline(name: str) -> Contract:
    return lambda campaign: ROW_CONTRACTS[name](campaign, campaign.row(campaign.baseline))


def _all_rows(name: str) -> Contract:
    """The row contract `name` of every enabled row: one that cannot be checked hides no other."""

    def contract(campaign: Campaign) -> Iterator[Finding]:
        for row in campaign.enabled:
            try:
                yield from ROW_CONTRACTS[name](campaign, row)
            except TrackaError as error:
                yield from error.findings

    return contract


def _baseline_summary(campaign: Campaign) -> Iterator[Finding]:
    yield from _up_to_date(campaign.layout.summary, collect.baseline_tables(campaign))


def _summaries(campaign: Campaign) -> Iterator[Finding]:
    yield from _up_to_date(campaign.layout.summary, collect.tables(campaign))


def _up_to_date(folder: Path, wanted: Mapping[str, str]) -> Iterator[Finding]:
    """The tables in `folder` say what the run folders say now, to the letter."""
    for name, text in wanted.items():
        path = folder / name
        if not path.is_file():
            yield Finding(str(path), "the file does not exist", REWRITE)
        elif (found := path.read_text(encoding="utf-8")) != text:
            wrong = set(text.splitlines()) ^ set(found.splitlines())
            rows = sorted({re.split(r"[,|]", line.strip("| "))[0].strip() for line in wrong})
            what = f"the run folders say otherwise of {', '.join(rows) or 'the order of its rows'}"
            yield Finding(str(path), what, REWRITE)


def _run_ids(path: Path) -> list[str]:
    if not path.is_file():
        raise UsageError(Finding(str(path), "the file does not exist", REWRITE))
    with path.open(newline="", encoding="utf-8") as file:
        return [str(record.get("run_id")) for record in csv.DictReader(file)]


# ---- phase 5: closure


def _no_failures(campaign: Campaign) -> Iterator[Finding]:
    for run_id in _run_ids(campaign.layout.summary / "failures.csv"):
        yield Finding(
            f"row {run_id}", "it is not accepted", "See failures.csv for the reason; rerun: pytest acceptance --lf"
        )


RUNBOOK_WORDS = ("lerobot-eval", "success rate", "artifacts", "MUJOCO_GL", "rerun")
RESULTS_WORDS = ("success rate", "artifacts")


def _runbook(campaign: Campaign) -> Iterator[Finding]:
    words = (*RUNBOOK_WORDS, *dict.fromkeys(row.task_suite for row in campaign.enabled))
    yield from _mentions(campaign.layout.runbook, words)


def _results(campaign: Campaign) -> Iterator[Finding]:
    rows = campaign.enabled
    wanted = [*RESULTS_WORDS, *(row.run_id for row in rows), *(row.policy_path for row in rows)]
    yield from _mentions(campaign.layout.results, tuple(dict.fromkeys([*wanted, *(row.task_suite for row in rows)])))
    path, table = campaign.layout.results, collect.markdown(report.enabled_results(campaign))
    if path.is_file() and table not in path.read_text(encoding="utf-8"):
        yield Finding(str(path), "its table is not what the run folders say", "Run phase 5: pytest acceptance")


def _mentions(path: Path, words: Sequence[str]) -> Iterator[Finding]:
    if not path.is_file():
        yield Finding(str(path), "the file does not exist", "Run phase 5: pytest acceptance -m phase5")
        return
    text = path.read_text(encoding="utf-8")
    for word in words:
        if word not in text:
            yield Finding(str(path), f"it does not mention {word!r}", "Run phase 5: pytest acceptance -m phase5")


def _exists(path: Path, what: str) -> Iterator[Finding]:
    if not path.is_file():
        yield Finding(str(path), f"the file of {what} does not exist", "Run the step that writes it")


CONTRACTS: dict[str, dict[str, Contract]] = {
    "phase1": {"cli_capabilities": _capabilities, "run_schema": _run_schema, "commands": _commands},
    "phase2": {
        "preflight_report": _preflight_report,
        "preflight_checks": _preflight_checks,
        "snapshots": _snapshots,
    },
    "phase3": {
        "baseline_evidence": _baseline("evidence"),
        "baseline_backend": _baseline("backend"),
        "baseline_result": _baseline("result"),
        "baseline_videos": _baseline("videos"),
        "baseline_verdict": _baseline("verdict"),
        "baseline_summary": _baseline_summary,
    },
    "phase4": {
        "rows_evidence": _all_rows("evidence"),
        "rows_backend": _all_rows("backend"),
        "rows_result": _all_rows("result"),
        "rows_videos": _all_rows("videos"),
        "rows_verdict": _all_rows("verdict"),
        "summaries": _summaries,
    },
    "phase5": {"no_failures": _no_failures, "runbook": _runbook, "results": _results},
}
