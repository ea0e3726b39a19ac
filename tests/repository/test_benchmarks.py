"""The benchmarks, small: they run to their end, and fail beyond a limit."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import processes
import pytest
import torch
from campaigns import REPOSITORY

from benchmarks import handover, suite_figures
from benchmarks.suite_figures import Played, Row
from fixtures import parity
from tracka.campaign.matrix import COLUMNS
from tracka.core import files

pytestmark = pytest.mark.slow


def bench(name: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command, environ = [sys.executable, "-m", f"benchmarks.{name}", *words], os.environ | variables
    return subprocess.run(
        command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environ
    )


@pytest.mark.repeated
def test_a_matrix_within_its_limits_passes_with_a_figure_for_every_step() -> None:
    ended = bench("matrix", "--rows", "120", "--seconds", "60")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "120 runs in " in ended.stdout
    assert re.findall(r"^(\w+) +[0-9.]+ s .* MB", ended.stdout, re.MULTILINE) == ["import", "parse", "collect", "both"]
    assert ended.stdout.endswith(": holds\n")


@pytest.mark.parametrize("limit", [("--seconds", "0"), ("--megabytes", "1")], ids=["time", "memory"])
def test_a_matrix_beyond_a_limit_fails(limit: tuple[str, str]) -> None:
    ended = bench("matrix", "--rows", "3", *limit)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert ended.stdout.endswith(": BROKEN\n")


@pytest.mark.repeated
def test_the_overhead_of_a_row_is_what_the_run_takes_beyond_lerobot_eval() -> None:
    ended = bench("overhead", "--runs", "1", "--percent", "1000")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (figures,) = re.findall(r"^run 1: ([0-9.]+) s, lerobot-eval ([0-9.]+) s, harness ([0-9.]+) s$", ended.stdout, re.M)
    whole, evaluation, harness = map(float, figures)
    assert evaluation > 1  # the second that the stand-in waits
    assert harness == pytest.approx(whole - evaluation, abs=0.002)
    assert "of a row of 63.0 s" in ended.stdout


def test_an_overhead_beyond_the_limit_fails() -> None:
    ended = bench("overhead", "--runs", "1", "--percent", "0")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert ended.stdout.startswith("run 1: ")


@pytest.mark.repeated
def test_the_gates_dealing_is_judged_by_the_lower_bound_beside_xdists_own() -> None:
    ended = bench("schedule", "--modes", "ours", "load", "--scale", "0.1", "--limit", "20")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "16 rows, 3.8 s of sleep, 4 workers: lower bound 0.95 s" in ended.stdout
    ratios = dict(re.findall(r"^(\w+) +[0-9.]+ s +([0-9.]+) +[0-9.]+ s$", ended.stdout, re.MULTILINE))
    assert list(ratios) == ["ours", "load"] and all(1 <= float(ratio) < 20 for ratio in ratios.values())


def test_a_dealing_beyond_the_limit_fails() -> None:
    ended = bench("schedule", "--modes", "ours", "--scale", "0.02", "--limit", "0.9")
    assert ended.returncode == 1, ended.stdout + ended.stderr


@pytest.mark.simulator
@pytest.mark.repeated
@pytest.mark.timeout(1800)
def test_both_engines_are_timed_on_one_row_whose_actions_are_the_same_and_a_ratio_too_small_fails() -> None:
    ended = bench("engines", "--episodes", "2", "--whole", "0", "--steady", "1000")
    assert re.search(r"^ratio .*\(2 of 2 the same\)$", ended.stdout, re.MULTILINE), ended.stdout + ended.stderr
    assert re.search(r"^resident, seconds: .*policy_load", ended.stdout, re.MULTILINE)
    assert ended.returncode == 1


@pytest.mark.simulator
@pytest.mark.repeated
@pytest.mark.timeout(1800)
def test_a_row_that_shares_a_process_is_quicker_and_plays_the_same_episodes() -> None:
    ended = bench("standby", "--rows", "2")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (quicker,) = re.findall(r"all but the first ([0-9.]+)x$", ended.stdout, re.MULTILINE)
    assert float(quicker) > 1


@pytest.mark.simulator
@pytest.mark.repeated
@pytest.mark.timeout(1800)
def test_growth_has_a_line_a_pair_of_slots_and_batch_size(tmp_path: Path) -> None:
    policy = str(parity.checkpoint(parity.RANDOM))
    words = ("--device", "cpu", "--tasks", "0", "--pairs", "1:1:2", "2:2:2")
    ended = bench("growth", "measure", policy, str(tmp_path / "growth.csv"), *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = list(csv.DictReader((tmp_path / "growth.csv").read_text().splitlines()))
    assert [(line["slots"], line["batch_size"], line["episodes"]) for line in lines] == [
        ("1", "1", "2"),
        ("2", "2", "2"),
    ]
    assert all(float(line["per_minute"]) > 0 for line in lines)


def test_growth_is_drawn_from_the_tables_of_the_page(tmp_path: Path) -> None:
    tables = (str(REPOSITORY / "docs" / "growth.csv"), str(tmp_path / "growth.png"))
    ended = bench("growth", "plot", *tables, "--sampling", str(REPOSITORY / "docs" / "sampling.csv"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_the_calls_of_a_policy_are_timed_on_a_gpu_alone(tmp_path: Path) -> None:
    ended = bench("policy_calls", str(tmp_path))
    assert ended.returncode == (1 if torch.cuda.is_available() else 2)
    assert torch.cuda.is_available() or ended.stderr == "error: this benchmark needs a GPU\n"


SUITE_ROWS = ("--suites", "libero_object", "--tasks", "2", "--tasks-a-row", "1", "--episodes", "1", "--pixels", "64")
SMALL = ("--device", "cpu", "--batch-size", "1", "--slots", "1", "--flags", "resident.videos=0")


@pytest.mark.simulator
@pytest.mark.repeated
@pytest.mark.timeout(1800)
def test_rows_of_whole_suites_have_a_line_each_and_share_a_process(tmp_path: Path) -> None:
    policy, figures = str(parity.checkpoint(parity.RANDOM)), tmp_path / "figures.json"
    ended = bench("suites", policy, *SUITE_ROWS, *SMALL, "--output", str(figures))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    first_line, second_line, last_line = ended.stdout.splitlines()
    assert first_line.startswith("GPU 0 libero_object tasks 0 to 0, 1 episodes: began at ")
    assert "; all workers: " in second_line
    assert last_line.startswith("1 GPU: 2 episodes in ")
    first, second = json.loads(figures.read_text())["rows"]
    assert (first["tasks"], second["tasks"]) == ([0], [1])
    assert first["stages"]["policy_load"] > 0 and second["stages"]["policy_load"] == 0


@pytest.mark.simulator
@pytest.mark.repeated
@pytest.mark.timeout(1800)
def test_two_gpus_play_rows_side_by_side(tmp_path: Path) -> None:
    policy, figures = str(parity.checkpoint(parity.RANDOM)), tmp_path / "figures.json"
    ended = bench("suites", policy, *SUITE_ROWS, *SMALL, "--gpus", "2", "--output", str(figures))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1].startswith("2 GPU: 2 episodes in ")
    assert sorted(row["gpu"] for row in json.loads(figures.read_text())["rows"]) == [0, 1]


@pytest.mark.simulator
@pytest.mark.repeated
@pytest.mark.timeout(1800)
def test_rows_that_are_cut_off_are_said_to_be_and_leave_no_process(tmp_path: Path) -> None:
    policy = str(parity.checkpoint(parity.RANDOM))
    ended = bench("suites", policy, *SUITE_ROWS, *SMALL, "--seconds", "1", TMPDIR=str(tmp_path))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    row, whole, extrapolated = ended.stdout.splitlines()
    assert row.startswith("GPU 0 libero_object tasks 0 to 0, 0 of 1 episodes: ") and "cut off after" in row
    assert whole.startswith("1 GPU: 0 episodes in ")
    assert extrapolated == (
        "EXTRAPOLATED, not measured: fewer than two rounds of 1 slots have ended, which tells nothing of 2 episodes"
    )
    processes.wait_until(lambda: not list(processes.below(tmp_path)))


def test_all_rows_are_extrapolated_at_the_pace_after_the_first_round_of_slots() -> None:
    rows = [Row("libero_object", (0,), 4), Row("libero_object", (1,), 2)]
    ended = [(30.0, 280), (40.0, 280), (50.0, 280)]  # the first round began at 30 s; then 28 steps a second
    played = Played(0, "libero_object", (0,), 4, True, 0.0, 55.0, ended, {}, {}, {}, 0, 0.0)
    whole, extrapolated = suite_figures.whole(rows, [played], 1, 1, 55.0)
    assert whole == "1 GPU: 3 episodes in 55.0 s, 196 an hour"
    assert extrapolated.startswith("EXTRAPOLATED, not measured: 6 episodes take about 85 s, ")  # 55 + 3 * 280 / 28


@pytest.mark.simulator
@pytest.mark.repeated
@pytest.mark.timeout(1800)
def test_slots_are_built_for_two_rows_and_show_the_same_pictures_with_renderers_and_without() -> None:
    small = ("--slots", "2", "--tasks", "1", "--workers", "2", "--pixels", "64")
    hashes = []
    for renderers in ("0", "1"):
        ended = bench("environments", *small, "--renderers", renderers)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert re.search(r"^  next row: the first picture after ", ended.stdout, re.MULTILINE)
        hashes += re.findall(r"^pictures: all the same \((\w+)\)$", ended.stdout, re.MULTILINE)
    assert len(hashes) == 2 and hashes[0] == hashes[1]


@pytest.mark.simulator
@pytest.mark.repeated
@pytest.mark.timeout(1800)
def test_slots_are_timed_beside_a_pretended_policy_and_another_version_has_the_same_pictures_and_states() -> None:
    size = ("--slots", "2", "--tasks", "1", "--workers", "2", "--renderers", "1", "--pixels", "64", "--batch", "2")
    ended = bench("slots", *size, "--episodes", "3", "--steps", "60", "--call", "0.01", "--tree", str(REPOSITORY))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"^  one more reset: .* for 2; each: worker [\d.]+ ms CPU and ", ended.stdout, re.MULTILINE)
    assert re.search(r"^  rollout: .* s for 3 episodes, \d+ steps/s; \d+ calls of ", ended.stdout, re.MULTILINE)
    assert ended.stdout.endswith("pictures and final states: all the same\n")


def test_a_simulated_row_keeps_its_policy_busy_though_places_have_unequal_numbers_of_episodes() -> None:
    ended = bench("batching")
    assert ended.returncode == 0, ended.stderr
    busy = re.findall(r"the policy is busy for (\d+)%", ended.stdout)
    assert len(busy) == 2 and min(map(int, busy)) >= 90, ended.stdout


@pytest.fixture(scope="module")
def two_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign whose second row began 1 s after the first was judged, with the files that tell so."""
    root = tmp_path_factory.mktemp("handover")
    files.write_text(root / "configs" / "campaign.toml", handover.SETTINGS)
    files.write_text(root / "configs" / "eval_matrix.csv", "\n".join([",".join(COLUMNS), *handover.ROWS[:2], ""]))
    for number, start in enumerate((1000.0, 1020.0)):
        folder = root / "artifacts" / "runs" / f"row{number}" / "attempts" / "1"
        stages = {"import": 0.25, "load": 0.5, "rollout": 4.0, "film": 2.0, "total": 6.75, "policy_load": 0.4}
        contents = {"eval/timings.json": {"stages": stages, "evaluation": number + 1}, "eval/episodes.jsonl": {}}
        contents |= {"eval/eval_info.json": {}, "result.json": {}, "identity.json": {}}
        contents |= {"run_manifest.json": {"gpu_id": -1, "worker": "gw0"}}
        times = {"identity.json": 0.0, "eval/episodes.jsonl": 9.0, "eval/timings.json": 10.0}
        times |= {"eval/eval_info.json": 13.0, "result.json": 19.0, "run_manifest.json": 19.0}
        for name, content in contents.items():
            files.write_json(folder / name, content)
            os.utime(folder / name, (start + times[name], start + times[name]))
    return root


def test_the_stages_between_two_rows_follow_from_the_files_that_they_left(two_rows: Path) -> None:
    ended = bench("handover", str(two_rows))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[:2] == [
        "row0 -> row1: 15.00 s, films 4.00, program ends, row judged 6.00, next row planned 1.00, "
        "program starts 3.25, flags read 0.25, policy 0.50",
        "median of 1: films 4.00, program ends, row judged 6.00, next row planned 1.00, "
        "program starts 3.25, flags read 0.25, policy 0.50; without films 11.00 s",
    ]


def test_rows_that_did_not_share_a_process_have_no_hand_over(two_rows: Path, tmp_path: Path) -> None:
    root = shutil.copytree(two_rows, tmp_path / "campaign")
    timings = root / "artifacts" / "runs" / "row1" / "attempts" / "1" / "eval" / "timings.json"
    files.write_json(timings, files.read_json(timings) | {"evaluation": 1})
    assert bench("handover", str(root)).returncode == 1
