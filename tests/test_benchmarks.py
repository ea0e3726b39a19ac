"""The benchmarks, small: they run to their end, and fail beyond a limit."""

import re
import subprocess
import sys

import pytest
from campaigns import REPOSITORY


def bench(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{name}", *words]
    return subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True)


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
