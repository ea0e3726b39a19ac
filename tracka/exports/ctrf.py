"""Writes a campaign's rows as tests in the Common Test Report Format (CTRF, https://ctrf.io)."""

import mimetypes
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .. import __version__
from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core import escaping, files
from ..core.artifacts import Result
from ..core.errors import Finding
from ..core.files import Json
from ..engines.failure import STOPPED
from ..execution import gpu
from ..report_page import episodes
from ..reporting import blocked_phase, collect, report
from ..reporting.collect import EvalRunResult
from ..runs import run

SPEC_VERSION = "0.0.0"  # that of the schema at https://github.com/ctrf-io/ctrf
PASSED, FAILED, SKIPPED, PENDING, OTHER = "passed", "failed", "skipped", "pending", "other"
_NAMESPACE = uuid.UUID("6d0f5b1e-3c39-5f3c-9a41-0c6f7a1f7c11")  # of Track A's reports, chosen once


def faults(campaign: Campaign) -> Iterator[Finding]:
    """Yields why the campaign cannot be exported."""
    if not any(run.read_result(campaign.layout, row.run_id) for row in campaign.enabled):
        blocked = blocked_phase.reason(campaign.layout)
        what = f"no row has a result, since {blocked}" if blocked else "no row has a result"
        yield Finding(str(campaign.layout.runs), what, blocked_phase.remedy(campaign.layout))


def make(campaign: Campaign) -> Json:
    """Returns the report: one test for each enabled row. The campaign must have no faults."""
    results = report.enabled_results(campaign)
    reasons = collect.failure_reasons(campaign, results)
    tests = [_test(campaign, result, reasons.get(result.run_id)) for result in results]
    counts = Counter(test["status"] for test in tests)
    times = [test[key] for test in tests for key in ("start", "stop") if key in test]
    value: Json = {
        "reportFormat": "CTRF",
        "specVersion": SPEC_VERSION,
        "reportId": str(uuid.uuid5(_NAMESPACE, collect.results_sha256(campaign.layout, campaign.enabled))),
        "generatedBy": f"Track A {__version__}",
        "results": {
            "tool": {"name": "Track A", "version": __version__},
            "summary": {
                "tests": len(tests),
                **{status: counts[status] for status in (PASSED, FAILED, SKIPPED, PENDING, OTHER)},
                "start": min(times),
                "stop": max(times),
            },
            "tests": tests,
            "environment": {"reportName": escaping.line(campaign.name)},
        },
    }
    return files.redacted(value)


def _test(campaign: Campaign, shown: EvalRunResult, reason: str | None) -> Json:
    row, result = campaign.row(shown.run_id), run.read_result(campaign.layout, shown.run_id)
    return {
        "name": shown.run_id,
        "status": _status(shown, reason),
        "rawStatus": shown.status,
        "suite": [campaign.layout.root.name, row.task_suite],
        "tags": sorted({row.task_suite, *(["baseline"] if row.run_id == campaign.baseline else [])}),
        "parameters": _parameters(campaign, row),
        **({"message": _message(result, reason)} if reason else {}),
        **(_ended(campaign, shown, result) if result else {"duration": 0}),
    }


def _status(shown: EvalRunResult, reason: str | None) -> str:
    if reason is None:
        return PASSED
    if reason == STOPPED:
        return SKIPPED
    return {"pending": PENDING, "running": OTHER}.get(shown.status, FAILED)


def _parameters(campaign: Campaign, row: Row) -> Json:
    return {
        "policy_path": escaping.line(row.policy_path),
        "task_ids": list(campaign.task_ids(row)),
        "batch_size": row.batch_size,
        "n_episodes": row.n_episodes,
        "seed": row.seed,
        "threshold": campaign.threshold(row),
    }


def _message(result: Result | None, reason: str) -> str:
    words = (result["error_message"] or "") if result else ""
    return f"{reason}: {escaping.line(words)}" if words else reason


def _ended(campaign: Campaign, shown: EvalRunResult, result: Result) -> Json:
    """Returns what is known of a row that has a result: times, counts, attempts and files."""
    stop = round(1000 * files.timestamp(result["end_time_utc"]))
    duration = round(1000 * result["duration_sec"])
    counts = {key: result[key] for key in ("episodes", "successes", "success_rate")}
    return {
        "start": stop - duration,
        "stop": stop,
        "duration": duration,
        "device": gpu.device_name(shown.gpu_id),
        "retries": result["attempt"] - 1,
        "flaky": result["attempt"] > 1 and result["status"] == "pass",
        "extra": {key: value for key, value in counts.items() if value is not None},
        "attachments": [_attachment(campaign, path) for path in _files(campaign, shown.run_id)],
    }


def _files(campaign: Campaign, run_id: str) -> Iterator[Path]:
    """Yields the row's logs and records, and the videos of its episodes."""
    folder = campaign.layout.run(run_id)
    yield from (path for path in (folder.stderr, folder.stdout, folder.result, folder.manifest) if path.is_file())
    yield from (each.video.path for each in episodes.of_row(campaign, run_id) if each.video)


def _attachment(campaign: Campaign, path: Path) -> Json:
    kind = "text/plain" if path.suffix == ".log" else mimetypes.guess_type(path)[0]
    return {
        "name": path.name,
        "contentType": kind or "application/octet-stream",
        "path": campaign.layout.relative(path),
    }
