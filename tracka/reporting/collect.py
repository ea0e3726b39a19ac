"""Makes tables from run folders: `all_runs.csv` and `.md`, `baseline_summary.*`, `failures.csv`.

Guarantees: every enabled row of the campaign is in the table, whether it has run or not; dry runs are left out; a table
is written whole or not at all; every success rate stands beside its episode count, and in Markdown beside its interval.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..campaign import campaign, definition, matrix
from ..campaign.campaign import Campaign
from ..campaign.definition import Definition
from ..campaign.layout import Layout
from ..campaign.matrix import Row
from ..core import escaping, fact_cache, files, schema
from ..core.artifacts import Manifest, Result
from ..core.errors import Finding, UsageError
from ..core.files import Json
from ..engines import episode_lines, lerobot_eval
from ..engines.failure import STOPPED
from ..execution import gpu
from ..runs import early_stop, judgement, known_answers, row_state, run, time_budget

_Z = 1.959963984540054  # 95% of a normal distribution lie within this many standard deviations
BASELINE_SUMMARY = "baseline_summary"
NO_EXIT = 125  # stands for the exit code of an evaluation that never ended or never began


@dataclass
class EvalRunResult:
    """The table's line for one run.

    The fields up to `video_path` are those of the plan's own dataclass; the fields after it are what a reader of a
    table asks next.
    """

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
    episodes: int | None = None  # the number that really ran
    reason: str | None = None
    policy_path: str = ""
    mujoco_gl: str = ""
    seed: int = 0
    comparable: bool = True
    duration_sec: float | None = None
    invalid: str | None = None  # why the simulator does not match the benchmark's
    unproven: str | None = None  # why the engine is not known to play lerobot-eval's episodes
    engine: str = ""  # the engine that played the episodes, in the mode that was asked for
    precision: str | None = None  # the mode of the resident engine that answered: exact, fast, or both


def load_run_manifest(path: Path) -> Manifest:
    """Returns the manifest in the file `path`. Raises UsageError that names every missing or wrong key."""
    return schema.read("run_manifest", path)


def load_result(path: Path) -> Result:
    """Returns the result in the file `path`. Raises UsageError that names every missing or wrong key."""
    return schema.read("result", path)


def parse_success_metrics(stdout_log: Path) -> tuple[int | None, int | None, float | None]:
    """Returns (successes, episodes, success rate from 0 to 1) of lerobot-eval's overall metrics.

    A missing value is None. lerobot 0.6.1 logs its metrics on stderr, so the `stderr.log` beside `stdout_log` is read
    where `stdout_log` has none. lerobot 0.3 does not report the number of episodes; the success rate is then the only
    value.
    """
    for log in (stdout_log, stdout_log.with_name("stderr.log")):
        if metrics := lerobot_eval.parse_log(log):
            return metrics
    return None, None, None


def collect_results(runs_root: Path) -> list[EvalRunResult]:
    """Returns the results of the runs below `runs_root`: the campaign's in its matrix's order, then the others by name.

    Where a campaign lies beside `runs_root`, its enabled rows without a run are included with their marker's status.
    """
    layout = Layout.of_runs(runs_root)
    return _results(layout, campaign.load(layout.root, layout.tier).enabled if layout.has_settings else ())


def campaign_results(campaign: Campaign) -> list[EvalRunResult]:
    """Returns the same results for a loaded campaign, so that a file edited in the meantime does not mix in."""
    return [*_results_of(definition.of(campaign))]


@fact_cache.remembered
def _results_of(key: Definition) -> list[EvalRunResult]:
    return _results(key.layout, key.campaign.enabled)


def _results(layout: Layout, rows: Sequence[Row]) -> list[EvalRunResult]:
    row_ids = {row.run_id for row in rows}
    folders = layout.runs.iterdir() if layout.runs.is_dir() else ()
    other_ids = sorted(path.name for path in folders if path.name not in row_ids and path.is_dir())
    other_results = [_folder_result(layout, run_id) for run_id in other_ids]
    return [*(_row_result(layout, row) for row in rows), *(result for result in other_results if result)]


def _row_result(layout: Layout, row: Row) -> EvalRunResult:
    result = _folder_result(layout, row.run_id)
    if result is not None:
        return result
    state = row_state.read(layout, row.run_id)
    marker_status, marker_reason = (state["status"], state["reason"]) if state else ("pending", None)
    status = "pending" if marker_status == "pass" else marker_status  # a pass without its result does not count
    is_over_budget = time_budget.lost_start(layout, row.run_id) is not None
    not_run = time_budget.REASON if is_over_budget else "not_run"
    reason = not_run if status == "pending" else marker_reason or "interrupted"
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


def _folder_result(layout: Layout, run_id: str) -> EvalRunResult | None:
    """Returns the table's line for a run folder; None for a dry run, or where manifest or result cannot be read."""
    manifest, result = run.read_files(layout, run_id)
    if result is None or schema.findings("run_manifest", manifest, run_id) or manifest["dry_run"]:
        return None
    return _line(manifest, result)


def _line(manifest: Json, result: Result) -> EvalRunResult:
    episodes, successes = result["episodes"], result["successes"]
    return EvalRunResult(
        **{key: manifest[key] for key in ("run_id", "task_suite", "batch_size", "n_episodes", "gpu_id")},
        success_rate=result["success_rate"],
        successes=successes,
        failures=None if episodes is None or successes is None else episodes - successes,
        exit_code=NO_EXIT if result["exit_code"] is None else result["exit_code"],
        status=result["status"],
        stdout_log=result["stdout_log"],
        stderr_log=result["stderr_log"],
        video_path=result["video_path"],
        episodes=episodes,
        reason=result["reason"],
        **{key: manifest[key] for key in ("policy_path", "mujoco_gl", "seed", "comparable")},
        duration_sec=result["duration_sec"],
        invalid=result["invalid"],
        unproven=result["unproven"],
        engine=manifest["engine"],
        precision=result.get("precision"),
    )


def write_csv(results: list[EvalRunResult], out_path: Path) -> None:
    """Writes one CSV line per run, with the fields of `EvalRunResult` as columns."""
    files.write_text(out_path, csv_text(results))


def csv_text(results: Sequence[EvalRunResult]) -> str:
    """Returns the text that `write_csv` writes."""
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
    """Returns a cell that spreadsheets do not run: an apostrophe comes before a text that starts like a formula.

    A whole number in a text, such as -1, stays as it is.
    """
    if not isinstance(value, str):
        return value
    plain = value.replace("\r", " ")  # csv does not quote a carriage return, and readers take it for a line's end
    is_formula = plain.startswith(("=", "+", "-", "@", "\t")) and not re.fullmatch(r"-?[0-9]+", value)
    return f"'{plain}" if is_formula else plain


def write_markdown(results: list[EvalRunResult], out_path: Path) -> None:
    """Writes a Markdown table for people, one line per run."""
    files.write_text(out_path, markdown(results))


def markdown(results: Sequence[EvalRunResult]) -> str:
    """Returns the table that `write_markdown` writes."""
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
    lines += [tuple(map(escaping.cell, _cells(result))) for result in results]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(result: EvalRunResult) -> tuple[str, ...]:
    status = row_state.status_text(result.status, result.reason, result.invalid, result.unproven)
    counts = tuple("" if count is None else str(count) for count in (result.episodes, result.successes))
    logs = str(Path(result.stdout_log).parent)
    device = gpu.device_name(result.gpu_id)
    return (
        result.run_id,
        result.task_suite,
        status,
        *counts,
        rate(result),
        engine_in_words(result.engine, result.precision),
        result.mujoco_gl,
        device,
        logs,
    )


def engine_in_words(engine: str, precision: str | None) -> str:
    """Returns the engine of a run; where fast mode was asked for and exact mode answered, also what answered."""
    if engine != campaign.RESIDENT_FAST or precision in (None, episode_lines.FAST):
        return engine
    return f"{engine}, answered by {precision} mode"


def rate(result: EvalRunResult) -> str:
    """Returns the success rate in percent with its Wilson interval; an empty string where there were no episodes."""
    if not result.episodes or result.successes is None:
        return ""
    return rate_in_words(result.successes, result.episodes)


def rate_in_words(successes: int, episodes: int) -> str:
    """Returns the success rate of at least one episode in percent with its Wilson interval."""
    low, high = wilson(successes, episodes)
    return f"{100 * successes / episodes:.1f}% ({100 * low:.1f} to {100 * high:.1f})"


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """Returns the 95% Wilson interval of a success rate, with the values of statsmodels.

    statsmodels itself is not used, since its import takes longer than ten thousand rows.
    """
    rate, spread = successes / episodes, _Z**2 / episodes
    middle = (rate + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(rate * (1 - rate) / episodes + spread / (4 * episodes)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def write_failures(campaign: Campaign, reasons: dict[str, str], out_path: Path) -> None:
    """Writes `failures.csv`: the enabled rows named in `reasons`, as in the matrix, each with its reason.

    Only the header is written where no row is named.
    """
    files.write_text(out_path, _failures_text(campaign, reasons))


def _failures_text(campaign: Campaign, reasons: dict[str, str]) -> str:
    text = files.read_text(campaign.layout.matrix, newline="").removeprefix("\ufeff")
    records_of_matrix = csv.DictReader(io.StringIO(text, newline=""))
    failed = [record for record in records_of_matrix if record["run_id"] in reasons]
    episodes = {row.run_id: row.n_episodes for row in campaign.enabled}  # a tier may have fewer than the matrix
    records = (
        record | {"n_episodes": episodes[record["run_id"]], matrix.REASON: reasons[record["run_id"]]}
        for record in failed
    )
    return _table([*matrix.COLUMNS, matrix.REASON], records)


def failure_reasons(campaign: Campaign, results: Sequence[EvalRunResult]) -> dict[str, str]:
    """Returns run id -> why an enabled row is not accepted.

    A row that failed has the reason of its failure, a row that passed has `below_threshold` or `known_answer`. A row
    that an early stop ended or kept from starting has `stopped`, and is accepted where every claim had passed.
    """
    enabled = {row.run_id: row for row in campaign.enabled}
    with fact_cache.scope():
        reasons = {
            result.run_id: _reason(campaign, enabled[result.run_id], result)
            for result in results
            if result.run_id in enabled
        }
    return {run_id: reason for run_id, reason in reasons.items() if reason}


def _reason(campaign: Campaign, row: Row, result: EvalRunResult) -> str | None:
    """Returns why the row is not accepted; None where it is."""
    if result.status != "pass":
        decision = early_stop.excused(campaign, row)
        if decision is None:
            return result.reason or result.status
        return None if decision.outcome == "pass" else STOPPED
    if result.success_rate is None or result.success_rate < campaign.threshold(row):
        return "below_threshold"
    return known_answers.REASON if known_answers.differences(campaign, row) else None


def baseline_tables(campaign: Campaign) -> dict[str, str]:
    """Returns the summaries of phase 3, file name -> text: only the baseline's line."""
    results = [_row_result(campaign.layout, campaign.row(campaign.baseline))]
    return {f"{BASELINE_SUMMARY}.csv": csv_text(results), f"{BASELINE_SUMMARY}.md": markdown(results)}


def tables(campaign: Campaign) -> dict[str, str]:
    """Returns the summaries of phase 4, file name -> text."""
    results = campaign_results(campaign)
    failures = _failures_text(campaign, failure_reasons(campaign, results))
    return {"all_runs.csv": csv_text(results), "all_runs.md": markdown(results), "failures.csv": failures}


def require_unchanged(layout: Layout, run_ids: Iterable[str]) -> None:
    """Raises UsageError that names each result.json that has changed since its run wrote it.

    No table is made of such numbers.
    """
    findings = [
        Finding(str(path), "the file has changed since its run ended", judgement.run_again(layout))
        for run_id in run_ids
        if not _is_unchanged(layout, run_id, path := layout.run(run_id).result)
    ]
    if findings:
        raise UsageError(findings)


def _is_unchanged(layout: Layout, run_id: str, path: Path) -> bool:
    """Returns whether a result is as the row's marker says; a missing result or marker counts as unchanged."""
    # The marker is not held against its schema: one key is needed, of possibly thousands of markers.
    recorded_sha256 = files.read_or_empty(layout.marker(run_id)).get("result_sha256")
    return recorded_sha256 is None or not path.is_file() or files.sha256_file(path) == recorded_sha256


def results_sha256(layout: Layout, rows: Iterable[Row]) -> str:
    """Returns one hash over the result files of `rows` as they lie on the disk."""
    paths = {row.run_id: layout.run(row.run_id).result for row in rows}
    return files.sha256(
        files.canonical({run_id: files.sha256_file(path) for run_id, path in paths.items() if path.is_file()})
    )


def write_tables(campaign: Campaign, texts: dict[str, str]) -> None:
    """Writes the summaries `texts`, file name -> text, into the campaign's summary folder."""
    for name, text in texts.items():
        files.write_text(campaign.layout.summary / name, text)
