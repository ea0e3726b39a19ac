"""From run folders to tables: `all_runs.csv` and `.md`, `baseline_summary.*`, `failures.csv`.

Guarantees: every enabled row of the campaign is in the table, run or not; dry runs are not; a table is written whole
or not at all; no success rate stands without its episode count and its interval.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..campaign import campaign, matrix
from ..campaign.campaign import Campaign
from ..campaign.layout import Layout
from ..campaign.matrix import Row
from ..core import files, markup, schema
from ..core.errors import Finding, UsageError
from ..engines import engine
from ..execution import gpu
from ..runs import answer, judgement, marker, run

_Z = 1.959963984540054  # of a normal distribution, 95% lie within as many standard deviations
NO_EXIT = 125  # stands for the exit code of an evaluation that never ended or never began


@dataclass
class EvalRunResult:
    """The plan's own dataclass, and after `video_path` what a reader of a table asks next."""

    run_id: str
    task_suite: str
    batch_size: int
    n_episodes: int  # of each LIBERO task
    gpu_id: int
    success_rate: float | None  # 0 to 1
    successes: int | None
    failures: int | None
    exit_code: int
    status: str  # the marker's: pending, running, pass or fail
    stdout_log: str
    stderr_log: str
    video_path: str | None
    episodes: int | None = None  # that really ran
    reason: str | None = None
    policy_path: str = ""
    mujoco_gl: str = ""
    seed: int = 0
    comparable: bool = True
    duration_sec: float | None = None
    invalid: str | None = None  # why the simulator was not the benchmark's
    unproven: str | None = None  # why the engine is not known to play lerobot-eval's episodes
    engine: str = ""  # that played


def load_run_manifest(path: Path) -> dict[str, Any]:
    """The manifest in the file `path`. Raises UsageError naming every key that is missing or wrong."""
    return schema.read("run_manifest", path)


def load_result(path: Path) -> dict[str, Any]:
    """The result in the file `path`. Raises UsageError naming every key that is missing or wrong."""
    return schema.read("result", path)


def parse_success_metrics(stdout_log: Path) -> tuple[int | None, int | None, float | None]:
    """(successes, episodes, success rate from 0 to 1) of lerobot-eval's overall metrics; None for what is missing.

    lerobot 0.6.1 logs its metrics on stderr, so the `stderr.log` beside `stdout_log` is read where that has none.
    lerobot 0.3 does not tell the number of episodes; a rate alone is then all there is.
    """
    for log in (stdout_log, stdout_log.with_name("stderr.log")):
        if metrics := engine.parse_log(log):
            return metrics
    return None, None, None


def collect_results(runs_root: Path) -> list[EvalRunResult]:
    """The runs below `runs_root`, in the order of the campaign's matrix, then by name.

    Rows of the campaign beside `runs_root` that have no run are there with their marker's status.
    """
    layout = Layout.of_runs(runs_root)
    return _results(layout, campaign.load(layout.root).enabled if layout.settings.is_file() else ())


def campaign_results(spec: Campaign) -> list[EvalRunResult]:
    """The same for a campaign that is loaded, so that a file edited meanwhile does not mix in."""
    return _results(spec.layout, spec.enabled)


def _results(layout: Layout, rows: Sequence[Row]) -> list[EvalRunResult]:
    known = {row.run_id for row in rows}
    folders = layout.runs.iterdir() if layout.runs.is_dir() else ()
    unknown = sorted(path.name for path in folders if path.name not in known and path.is_dir())
    others = [_other_result(layout, run_id) for run_id in unknown]
    return [*(_row_result(layout, row) for row in rows), *(result for result in others if result)]


def _row_result(layout: Layout, row: Row) -> EvalRunResult:
    result = _other_result(layout, row.run_id)
    if result is not None:
        return result
    state = marker.read(layout, row.run_id) or {"status": "pending", "reason": None}
    status = "pending" if state["status"] == "pass" else state["status"]  # without a result there is no pass
    reason = "not_run" if status == "pending" else state["reason"] or "interrupted"
    folder = layout.run(row.run_id)
    return EvalRunResult(
        run_id=row.run_id,
        task_suite=row.task_suite,
        batch_size=row.batch_size,
        n_episodes=row.n_episodes,
        gpu_id=row.gpu_id,
        success_rate=None,
        successes=None,
        failures=None,
        exit_code=NO_EXIT,
        status=status,
        stdout_log=layout.relative(folder.stdout),
        stderr_log=layout.relative(folder.stderr),
        video_path=None,
        reason=reason,
        policy_path=row.policy_path,
        mujoco_gl=row.mujoco_gl,
        seed=row.seed,
    )


def _other_result(layout: Layout, run_id: str) -> EvalRunResult | None:
    """The table's line for a run folder; None for a dry run, or without a readable manifest and result."""
    manifest, result = run.read_files(layout, run_id)
    if result is None or schema.findings("run_manifest", manifest, run_id) or manifest["dry_run"]:
        return None
    return _line(manifest, result)


def _line(manifest: dict[str, Any], result: dict[str, Any]) -> EvalRunResult:
    episodes, successes = result["episodes"], result["successes"]
    return EvalRunResult(
        **{key: manifest[key] for key in ("run_id", "task_suite", "batch_size", "n_episodes", "gpu_id")},
        success_rate=result["success_rate"],
        successes=successes,
        failures=None if episodes is None or successes is None else episodes - successes,
        exit_code=NO_EXIT if result["exit_code"] is None else result["exit_code"],
        **{key: result[key] for key in ("status", "stdout_log", "stderr_log", "video_path", "episodes", "reason")},
        **{key: manifest[key] for key in ("policy_path", "mujoco_gl", "seed", "comparable")},
        duration_sec=result["duration_sec"],
        invalid=result["invalid"],
        unproven=result["unproven"],
        engine=manifest["engine"],
    )


def write_csv(results: list[EvalRunResult], out_path: Path) -> None:
    """One line a run, the fields of `EvalRunResult` as columns."""
    files.write_text(out_path, csv_text(results))


def csv_text(results: Sequence[EvalRunResult]) -> str:
    names = [item.name for item in fields(EvalRunResult)]
    return _table(names, (vars(result) for result in results))


def _table(columns: Sequence[str], records: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({key: _cell(value) for key, value in record.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Spreadsheets run a text that starts like a formula, so such a text gets an apostrophe; -1 stays a number."""
    if not isinstance(value, str):
        return value
    plain = value.replace("\r", " ")  # csv does not quote it, and readers take it for the end of a line
    is_formula = plain.startswith(("=", "+", "-", "@", "\t")) and not re.fullmatch(r"-?[0-9]+", value)
    return f"'{plain}" if is_formula else plain


def write_markdown(results: list[EvalRunResult], out_path: Path) -> None:
    """A table for people: one line a run."""
    files.write_text(out_path, markdown(results))


def markdown(results: Sequence[EvalRunResult]) -> str:
    head = (
        "run",
        "suite",
        "status",
        "episodes",
        "successes",
        "success rate (95% interval)",
        "engine",
        "backend",
        "device",
        "logs",
    )
    lines = [head, tuple("---" for _ in head)]
    lines += [tuple(map(markup.cell, _cells(result))) for result in results]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(result: EvalRunResult) -> tuple[str, ...]:
    status = marker.status_text(result.status, result.reason, result.invalid, result.unproven)
    counts = tuple("" if count is None else str(count) for count in (result.episodes, result.successes))
    logs = str(Path(result.stdout_log).parent)
    device = gpu.device_name(result.gpu_id)
    return (
        result.run_id,
        result.task_suite,
        status,
        *counts,
        rate(result),
        result.engine,
        result.mujoco_gl,
        device,
        logs,
    )


def rate(result: EvalRunResult) -> str:
    """The success rate in percent with its Wilson interval; empty where there were no episodes."""
    if not result.episodes or result.successes is None:
        return ""
    return rate_in_words(result.successes, result.episodes)


def rate_in_words(successes: int, episodes: int) -> str:
    """The success rate of at least one episode in percent with its Wilson interval."""
    low, high = wilson(successes, episodes)
    return f"{100 * successes / episodes:.1f}% ({100 * low:.1f} to {100 * high:.1f})"


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """The 95% interval of a success rate, as statsmodels has it, whose import takes longer than ten thousand rows."""
    rate, spread = successes / episodes, _Z**2 / episodes
    middle = (rate + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(rate * (1 - rate) / episodes + spread / (4 * episodes)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def write_failures(spec: Campaign, reasons: dict[str, str], out_path: Path) -> None:
    """`failures.csv`: the enabled rows named in `reasons`, as in the matrix, and why. A header alone if none."""
    files.write_text(out_path, _failures(spec, reasons))


def _failures(spec: Campaign, reasons: dict[str, str]) -> str:
    with spec.layout.matrix.open(newline="", encoding="utf-8-sig") as file:
        asked = [record for record in csv.DictReader(file) if record["run_id"] in reasons]
    return _table([*matrix.COLUMNS, "reason"], (record | {"reason": reasons[record["run_id"]]} for record in asked))


def failure_reasons(spec: Campaign, results: Sequence[EvalRunResult]) -> dict[str, str]:
    """Why enabled rows are not accepted: their failure, or `below_threshold` or `known_answer` if they passed."""
    enabled = {row.run_id: row for row in spec.enabled}
    reasons: dict[str, str] = {}
    for result in results:
        if result.run_id not in enabled:
            continue
        if result.status != "pass":
            reasons[result.run_id] = result.reason or result.status
        elif result.success_rate is None or result.success_rate < spec.threshold(enabled[result.run_id]):
            reasons[result.run_id] = "below_threshold"
        elif answer.differences(spec, enabled[result.run_id]):
            reasons[result.run_id] = answer.REASON
    return reasons


def baseline_tables(spec: Campaign) -> dict[str, str]:
    """The summaries of phase 3, name -> text: the baseline's line alone."""
    results = [result for result in campaign_results(spec) if result.run_id == spec.baseline]
    return {"baseline_summary.csv": csv_text(results), "baseline_summary.md": markdown(results)}


def tables(spec: Campaign) -> dict[str, str]:
    """The summaries of phase 4, name -> text."""
    results = campaign_results(spec)
    failures = _failures(spec, failure_reasons(spec, results))
    return {"all_runs.csv": csv_text(results), "all_runs.md": markdown(results), "failures.csv": failures}


def require_unchanged(layout: Layout, run_ids: Iterable[str]) -> None:
    """Raises UsageError naming each result.json that is not as its run wrote it: no table is made of such numbers."""
    findings = [
        Finding(str(path), "it has changed since its run ended", judgement.AGAIN)
        for run_id in run_ids
        if not _as_written(layout, run_id, path := layout.run(run_id).result)
    ]
    if findings:
        raise UsageError(findings)


def _as_written(layout: Layout, run_id: str, path: Path) -> bool:
    """Whether a result, where there is one, is as the row's marker says; a run without a marker counts as unchanged."""
    wanted = files.read_or_empty(layout.marker(run_id)).get("result_sha256")  # one key, of maybe thousands of markers
    return wanted is None or not path.is_file() or files.sha256_file(path) == wanted


def results_sha256(layout: Layout, rows: Iterable[Row]) -> str:
    """One hash over the results of these rows as they lie on the disk."""
    paths = {row.run_id: layout.run(row.run_id).result for row in rows}
    return files.sha256(
        files.canonical({run_id: files.sha256_file(path) for run_id, path in paths.items() if path.is_file()})
    )


def write_tables(spec: Campaign, texts: dict[str, str]) -> None:
    """Puts summaries into the campaign's summary folder."""
    for name, text in texts.items():
        files.write_text(spec.layout.summary / name, text)
