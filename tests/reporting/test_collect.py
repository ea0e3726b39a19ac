"""From run folders to tables: every row, no dry run, no rate without its episodes and interval."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from campaigns import ROWS, Made

from tracka.campaign import matrix
from tracka.core import files
from tracka.core.errors import UsageError
from tracka.engines import cli_capabilities
from tracka.execution import gpu
from tracka.reporting import collect
from tracka.reporting.collect import EvalRunResult
from tracka.runs import row_state, run
from tracka.runs.plan import Host

RESULT = EvalRunResult(
    run_id="r",
    task_suite="libero_object",
    batch_size=1,
    n_episodes=2,
    gpu_id=0,
    success_rate=0.5,
    successes=1,
    failures=1,
    exit_code=0,
    status="pass",
    stdout_log="artifacts/runs/r/stdout.log",
    stderr_log="artifacts/runs/r/stderr.log",
    video_path=None,
    episodes=2,
)


def host(made: Made) -> Host:
    """This host without its preflight, which these tests do without."""
    found = cli_capabilities.discover_for(made.spec)
    return Host("egl", tuple(found["executable"]), found)


def run_rows(made: Made, *run_ids: str) -> None:
    for run_id in run_ids:
        run.run_row(made.spec, made.spec.row(run_id), host(made))


def collected(made: Made) -> dict[str, EvalRunResult]:
    return {result.run_id: result for result in collect.collect_results(made.layout.runs)}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def failures(made: Made) -> list[dict[str, str]]:
    """failures.csv as it is written for the campaign now."""
    spec, path = made.spec, made.layout.summary / "failures.csv"
    collect.write_failures(spec, collect.failure_reasons(spec, collect.collect_results(made.layout.runs)), path)
    return table(path)


# which runs


def test_every_enabled_row_is_listed_in_the_order_of_the_matrix_run_or_not(made: Made) -> None:
    run_rows(made, "wide_b4_e4")
    found = collected(made)
    assert list(found) == ["baseline_b1_e2", "long_b1_e6", "wide_b4_e4"]
    idle = found["long_b1_e6"]
    assert (idle.status, idle.reason, idle.exit_code) == ("pending", "not_run", collect.NO_EXIT)
    assert (idle.episodes, idle.successes, idle.failures, idle.success_rate) == (None, None, None, None)


def test_a_campaign_before_its_first_run_is_a_table_of_pending_rows(made: Made) -> None:
    assert [result.status for result in collect.collect_results(made.layout.runs)] == ["pending"] * 3


def test_a_run_is_listed_with_what_it_did(made: Made) -> None:
    made.behave(long_b1_e6=["ok:3"])
    run_rows(made, "long_b1_e6")
    found = collected(made)["long_b1_e6"]
    assert (found.status, found.reason, found.exit_code, found.comparable) == ("pass", None, 0, True)
    assert (found.episodes, found.successes, found.failures, found.success_rate) == (6, 3, 3, 0.5)
    assert (found.batch_size, found.n_episodes, found.seed, found.gpu_id) == (1, 6, 7, matrix.CPU)
    assert found.stdout_log == "artifacts/runs/long_b1_e6/stdout.log"
    assert (made.root / str(found.video_path)).is_dir()


def test_a_run_that_failed_is_listed_with_its_reason(made: Made) -> None:
    made.behave(long_b1_e6=["crash"])
    run_rows(made, "long_b1_e6")
    found = collected(made)["long_b1_e6"]
    assert (found.status, found.reason, found.exit_code, found.success_rate) == ("fail", "crash", 1, None)


def test_runs_of_no_row_are_listed_after_the_rows(made: Made) -> None:
    spec = made.spec
    row = replace(spec.row("long_b1_e6"), run_id="a_guest")
    run.run_row(replace(spec, rows=(*spec.rows, row)), row, host(made))
    assert list(collected(made)) == ["baseline_b1_e2", "long_b1_e6", "wide_b4_e4", "a_guest"]


def test_without_a_campaign_the_run_folders_alone_are_listed(made: Made) -> None:
    run_rows(made, "wide_b4_e4")
    made.layout.settings.unlink()
    assert list(collected(made)) == ["wide_b4_e4"]


def test_a_dry_run_is_left_out(made: Made) -> None:
    spec = made.spec
    run.dry_run(spec, spec.row("long_b1_e6"), host(made))
    run.dry_run(spec, replace(spec.row("long_b1_e6"), run_id="dryrun"), host(made))
    found = collected(made)
    assert "dryrun" not in found
    assert (found["long_b1_e6"].status, found["long_b1_e6"].reason) == ("pending", "not_run")


def test_a_result_of_another_attempt_than_the_manifest_is_not_taken(made: Made) -> None:
    run_rows(made, "long_b1_e6")
    path = made.layout.run("long_b1_e6").manifest
    files.write_json(path, files.read_json(path) | {"attempt": 2})
    assert run.read_result(made.layout, "long_b1_e6") is None
    assert collected(made)["long_b1_e6"].success_rate is None


@pytest.mark.parametrize("name", ["result.json", "run_manifest.json"])
@pytest.mark.parametrize("content", [None, b"", b"\0\0", b'{"run_id": "long_b1_e6"}'])
def test_a_damaged_run_is_listed_without_a_rate(made: Made, name: str, content: bytes | None) -> None:
    run_rows(made, "long_b1_e6")
    path = made.layout.run("long_b1_e6").path / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    found = collected(made)["long_b1_e6"]
    assert (found.episodes, found.success_rate) == (None, None)


def test_a_row_that_is_running_is_listed_as_running(made: Made) -> None:
    row_state.ensure_pending(made.layout, made.spec.enabled)
    row_state.advance(made.layout, "long_b1_e6", "running", 1)
    assert collected(made)["long_b1_e6"].status == "running"


def test_a_manifest_or_result_with_keys_missing_is_refused_by_name(made: Made) -> None:
    run_rows(made, "long_b1_e6")
    folder = made.layout.run("long_b1_e6")
    assert collect.load_run_manifest(folder.manifest)["run_id"] == "long_b1_e6"
    assert collect.load_result(folder.result)["episodes"] == 6
    manifest, result = files.read_json(folder.manifest), files.read_json(folder.result)
    files.write_json(folder.manifest, {key: value for key, value in manifest.items() if key not in ("cwd", "seed")})
    files.write_json(folder.result, {key: value for key, value in result.items() if key != "episodes"})
    with pytest.raises(UsageError, match=r"run_manifest.json.*'cwd'(.|\n)*'seed'"):
        collect.load_run_manifest(folder.manifest)
    with pytest.raises(UsageError, match=r"result.json.*'episodes'"):
        collect.load_result(folder.result)


# CSV and Markdown


def test_the_csv_begins_with_the_plans_fields(tmp_path: Path) -> None:
    collect.write_csv([RESULT], tmp_path / "all.csv")
    (line,) = table(tmp_path / "all.csv")
    assert list(line)[:13] == [
        *("run_id", "task_suite", "batch_size", "n_episodes", "gpu_id", "success_rate", "successes", "failures"),
        *("exit_code", "status", "stdout_log", "stderr_log", "video_path"),
    ]
    assert (line["success_rate"], line["video_path"]) == ("0.5", "")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+cmd", "@SUM(A1)", "\t=1"])
def test_a_cell_that_a_spreadsheet_would_run_is_made_text(tmp_path: Path, text: str) -> None:
    collect.write_csv([replace(RESULT, policy_path=text)], tmp_path / "all.csv")
    assert table(tmp_path / "all.csv")[0]["policy_path"] == f"'{text}"


def test_numbers_below_zero_stay_numbers(tmp_path: Path) -> None:
    collect.write_csv([replace(RESULT, gpu_id=-1, exit_code=-9)], tmp_path / "all.csv")
    line = table(tmp_path / "all.csv")[0]
    assert (line["gpu_id"], line["exit_code"]) == ("-1", "-9")


@pytest.mark.parametrize("text", ['a,"b"', "two\nlines", "é"])
def test_any_text_comes_back_from_the_csv(tmp_path: Path, text: str) -> None:
    collect.write_csv([replace(RESULT, policy_path=text)], tmp_path / "all.csv")
    assert table(tmp_path / "all.csv")[0]["policy_path"] == text


def test_the_markdown_has_one_line_a_run_and_as_many_cells_in_each() -> None:
    head, rule, first, second = collect.markdown([RESULT, replace(RESULT, run_id="s")]).splitlines()
    assert {line.count("|") for line in (head, rule, first, second)} == {11}
    assert first.startswith("| r | libero_object | pass | 2 | 1 | 50.0% (9.5 to 90.5) |")


def test_pipes_and_line_ends_break_no_markdown_table() -> None:
    text = collect.markdown([replace(RESULT, reason="a|b\nc", status="fail")])
    assert r"fail (a\|b c)" in text
    assert len(text.splitlines()) == 3


@pytest.mark.parametrize(
    ("successes", "episodes", "rate"),
    [
        (1, 2, "50.0% (9.5 to 90.5)"),
        (0, 10, "0.0% (0.0 to 27.8)"),
        (10, 10, "100.0% (72.2 to 100.0)"),
        (45, 50, "90.0% (78.6 to 95.7)"),
        (None, 2, ""),
        (0, 0, ""),
        (None, None, ""),
    ],
)
def test_a_rate_stands_with_its_wilson_interval(successes: int | None, episodes: int | None, rate: str) -> None:
    assert collect.rate(replace(RESULT, successes=successes, episodes=episodes)) == rate


def test_every_interval_of_a_hundred_episodes_is_that_of_statsmodels() -> None:
    from statsmodels.stats.proportion import proportion_confint  # two seconds, which other processes need not spend

    for episodes in (1, 2, 7, 50, 100):
        for successes in range(episodes + 1):
            wanted = proportion_confint(successes, episodes, method="wilson")
            assert collect.wilson(successes, episodes) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("gpu_id", "word"), [(-1, "cpu"), (-2, "any GPU"), (0, "GPU 0"), (7, "GPU 7")])
def test_the_device_is_named(gpu_id: int, word: str) -> None:
    assert gpu.device_name(gpu_id) == word


# failures.csv


def test_failures_are_the_matrixs_lines_and_why(made: Made) -> None:
    made.behave(long_b1_e6=["crash"])
    run_rows(made, "long_b1_e6", "wide_b4_e4")
    lines = failures(made)
    assert [list(line) for line in lines] == [[*matrix.COLUMNS, "reason"]] * 2
    assert [(line["run_id"], line["reason"]) for line in lines] == [
        ("baseline_b1_e2", "not_run"),
        ("long_b1_e6", "crash"),
    ]


def test_a_rate_below_its_threshold_is_a_failure(made: Made) -> None:
    made.layout.settings.write_text(made.layout.settings.read_text() + "\n[thresholds]\nmin_success_rate = 0.6\n")
    made.behave(long_b1_e6=["ok:3"], wide_b4_e4=["ok:3"])
    run_rows(made, "long_b1_e6", "wide_b4_e4")
    assert [(line["run_id"], line["reason"]) for line in failures(made)][1:] == [("long_b1_e6", "below_threshold")]


def test_without_failures_the_header_stands_alone(made: Made) -> None:
    run_rows(made, *(row.run_id for row in made.spec.enabled))
    assert failures(made) == []
    text = (made.layout.summary / "failures.csv").read_text()
    assert text == ",".join([*matrix.COLUMNS, "reason"]) + "\n"


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        [line.replace(",cpu,", ",-1,") for line in ROWS],
        [line.replace("checkpoints/fake", '"my, ""own"" policy"') for line in ROWS],
    ],
    ids=["cpu", "-1", "quotes"],
)
def test_failures_can_be_read_back_as_rows(make_campaign: Callable[..., Made], rows: Sequence[str]) -> None:
    made = make_campaign(rows)
    read = [matrix.parse([line[name] for name in matrix.COLUMNS], "failures.csv") for line in failures(made)]
    assert read == [replace(row, line=0) for row in made.spec.enabled]


def test_the_summaries_of_a_campaign_are_written_where_the_plan_wants_them(made: Made) -> None:
    made.behave(baseline_b1_e2=["ok:1"])
    run_rows(made, "baseline_b1_e2")
    collect.write_tables(made.spec, collect.baseline_tables(made.spec) | collect.tables(made.spec))
    names = ["all_runs.csv", "all_runs.md", "baseline_summary.csv", "baseline_summary.md", "failures.csv"]
    assert sorted(path.name for path in made.layout.summary.iterdir()) == names
    lines: list[dict[str, Any]] = table(made.layout.summary / "baseline_summary.csv")
    assert [(line["run_id"], line["success_rate"]) for line in lines] == [("baseline_b1_e2", "0.5")]
    assert "50.0% (9.5 to 90.5)" in (made.layout.summary / "baseline_summary.md").read_text()
