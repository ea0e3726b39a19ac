"""The contracts of each phase: what its artifacts must be, as named functions from a campaign to findings.

`CONTRACTS` is the whole list, phase by phase; no findings means that a contract holds. Nothing here runs anything or
looks at which tests ran: the disk is held against the spec.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from . import collect, engine, files, marker, preflight, run, schema, video
from .campaign import Campaign
from .errors import Finding, TrackaError, UsageError
from .files import Json
from .matrix import Row

Contract = Callable[[Campaign], Iterator[Finding]]


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
        yield Finding(str(path), "it is not the schema of this Track A", "Write it anew: tracka init --schema")


def _commands(campaign: Campaign) -> Iterator[Finding]:
    if not campaign.layout.capabilities.exists():
        return  # said by the contract before
    capabilities = files.read_json(campaign.layout.capabilities)
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
    yield from preflight.findings(files.read_json(path), str(path))


def _snapshots(campaign: Campaign) -> Iterator[Finding]:
    for name in ("nvidia_smi.txt", "pip_freeze.txt", "env_snapshot.json"):
        yield from _exists(campaign.layout.preflight / name, "preflight")


# ---- phases 3 and 4: runs


def row_evidence(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """The files of one row: there, of the right form, agreeing with each other."""
    folder = campaign.layout.run(row.run_id)
    for path in (folder.stdout, folder.stderr):
        yield from _exists(path, f"row {row.run_id}")
    manifest, result = collect.load_run_manifest(folder.manifest), collect.load_result(folder.result)
    state = marker.read(campaign.layout, row.run_id)
    if state is None:
        yield Finding(str(campaign.layout.marker(row.run_id)), "the row's marker is missing or damaged", "Run the row")
        return
    yield from _agreement(campaign, row, manifest, result, state)


def _agreement(campaign: Campaign, row: Row, manifest: Json, result: Json, state: Json) -> Iterator[Finding]:
    where = str(campaign.layout.run(row.run_id).path)
    for broken in marker.broken_steps(state):
        yield Finding(str(campaign.layout.marker(row.run_id)), f"an impossible step: {broken}", "Run the row again")
    facts = {
        "run_id": {manifest["run_id"], result["run_id"], state["run_id"], row.run_id},
        "status": {result["status"], state["status"]},
        "attempt": {manifest["attempt"], result["attempt"]},
        "row_hash": {manifest["row_hash"], result["row_hash"]},
        "retry_index": {manifest["retry_index"], state["retry_index"]},
    }
    for key, values in facts.items():
        if len(values) > 1:
            yield Finding(
                where, f"manifest, result and marker disagree on {key}: {sorted(map(str, values))}", "Run the row"
            )
    lines = [line for line in files.tail(campaign.layout.run(row.run_id).episodes, 1 << 28).splitlines() if line]
    if result["status"] == "pass" and len(lines) != result["episodes"]:
        yield Finding(where, f"episodes.jsonl has {len(lines)} lines for {result['episodes']} episodes", "Run the row")


def row_backend(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """The row ran with the backend that preflight chose."""
    manifest = collect.load_run_manifest(campaign.layout.run(row.run_id).manifest)
    chosen = files.read_json(campaign.layout.preflight_report).get("mujoco_gl_effective")
    if manifest["mujoco_gl"] != chosen:
        what = f"the run used {manifest['mujoco_gl']}, preflight chose {chosen}"
        yield Finding(str(campaign.layout.run(row.run_id).manifest), what, "Run the row again with --allow-overwrite")


def row_result(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """The row passed, with inputs that are still today's."""
    path = campaign.layout.run(row.run_id).result
    result = collect.load_result(path)
    if result["status"] != "pass":
        remedy = f"Read {result['stderr_log']}, mend it, and rerun: pytest acceptance --lf"
        yield Finding(str(path), f"the run failed ({result['reason']}): {result['error_message']}", remedy)
    elif result["row_hash"] != _today(campaign, row):
        what = "it passed with another row, settings, checkpoint or software than today's"
        yield Finding(
            str(path), what, "Run it again with --allow-overwrite, or give the changed row a run id of its own"
        )


def _today(campaign: Campaign, row: Row) -> str:
    return run.plan_row(campaign, row, run.load_host(campaign.layout)).row_hash


def row_videos(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """The videos of a row that passed are there and play to their end."""
    path = campaign.layout.run(row.run_id).result
    result = collect.load_result(path)
    if result["status"] == "pass" and not result["video_paths"]:
        yield Finding(str(path), "the run has no videos", "Look for video errors in its stderr.log")
    for name in result["video_paths"] if result["status"] == "pass" else ():
        if not video.frame_count(campaign.layout.root / name):
            yield Finding(str(campaign.layout.root / name), "the video does not play", "Run the row again")


def row_verdict(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """The policy succeeded often enough."""
    path = campaign.layout.run(row.run_id).result
    rate, least = collect.load_result(path)["success_rate"], campaign.threshold(row)
    if rate is not None and rate < least:
        what = f"the success rate is {rate:.3f}, at least {least:.3f} is asked for"
        yield Finding(str(path), what, "Look at the videos; the threshold stands in campaign.toml")


ROW_CONTRACTS = {
    "evidence": row_evidence,
    "backend": row_backend,
    "result": row_result,
    "videos": row_videos,
    "verdict": row_verdict,
}


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
    yield from _exists(campaign.layout.summary / "baseline_summary.md", "phase3")
    yield from _listed(campaign.layout.summary / "baseline_summary.csv", {campaign.baseline})


def _summaries(campaign: Campaign) -> Iterator[Finding]:
    folder = campaign.layout.summary
    yield from _exists(folder / "all_runs.md", "phase4")
    yield from _listed(folder / "all_runs.csv", {row.run_id for row in campaign.enabled})
    reasons = collect.failure_reasons(campaign, collect.collect_results(campaign.layout.runs))
    if (listed := set(_run_ids(folder / "failures.csv"))) != set(reasons):
        what = f"it lists {sorted(listed)}, not accepted are {sorted(reasons)}"
        yield Finding(str(folder / "failures.csv"), what, "Write it anew: tracka collect")


def _listed(path: Path, wanted: set[str]) -> Iterator[Finding]:
    for run_id in sorted(wanted - set(_run_ids(path))):
        yield Finding(str(path), f"the row {run_id} is missing", "Write it anew: tracka collect")


def _run_ids(path: Path) -> list[str]:
    if not path.is_file():
        raise UsageError(Finding(str(path), "the file does not exist", "Write it: tracka collect"))
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
