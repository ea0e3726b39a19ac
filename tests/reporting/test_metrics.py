"""`parse_success_metrics` on what real evaluations of several lerobot versions left, whole and damaged."""

import json
import shutil
from pathlib import Path

import pytest
from campaigns import REPOSITORY

from tracka.reporting import collect

DATA = REPOSITORY / "tests" / "data" / "lerobot-eval-logs"
Metrics = tuple[int | None, int | None, float | None]
RUNS: dict[str, Metrics] = {
    "0.3.3-pusht": (None, None, 0.0),  # this version does not say how many episodes there were
    "0.4.0-libero": (0, 10, 0.0),
    "0.4.4-libero": (0, 4, 0.0),
    "0.4.4-libero-half-success": (2, 4, 0.5),
    "0.4.4-libero-two-suites": (0, 4, 0.0),
    "0.5.1-libero": (0, 4, 0.0),
    "0.6.0-libero": (0, 4, 0.0),
    "0.6.1-libero": (0, 2, 0.0),
}
CRASHES = ("0.4.4-libero-crash-policy-path", "0.4.4-libero-crash-in-rollout")
NOTHING: Metrics = (None, None, None)


@pytest.fixture
def stdout_log(tmp_path: Path) -> Path:
    return tmp_path / "stdout.log"


def place(name: str, stdout_log: Path) -> Path:
    """Puts the two logs of an evaluation where a run folder has them."""
    for stream in ("stdout", "stderr"):
        shutil.copy(DATA / f"lerobot-{name}.{stream}.log", stdout_log.with_name(f"{stream}.log"))
    return stdout_log


@pytest.mark.parametrize(("name", "metrics"), RUNS.items())
def test_the_logs_of_every_version_tell_their_metrics(name: str, metrics: Metrics, stdout_log: Path) -> None:
    assert collect.parse_success_metrics(place(name, stdout_log)) == metrics


@pytest.mark.parametrize("name", [name for name in RUNS if not name.startswith("0.3")])
def test_what_the_logs_tell_is_what_eval_info_tells(name: str, stdout_log: Path) -> None:
    info = json.loads((DATA / f"lerobot-{name}.eval_info.json").read_text())
    outcomes = [success for task in info["per_task"] for success in task["metrics"]["successes"]]
    expected = (sum(outcomes), len(outcomes), sum(outcomes) / len(outcomes))
    assert collect.parse_success_metrics(place(name, stdout_log)) == expected


@pytest.mark.parametrize("name", CRASHES)
def test_the_logs_of_a_crash_tell_nothing(name: str, stdout_log: Path) -> None:
    assert collect.parse_success_metrics(place(name, stdout_log)) == NOTHING


def test_metrics_that_come_after_the_end_are_found(stdout_log: Path) -> None:
    """Both streams in one file: stdout is written when the process ends, after the last line of the log."""
    shutil.copy(DATA / "lerobot-0.4.4-pusht-merged.log", stdout_log)
    text = stdout_log.read_text()
    assert text.index("End of eval") < text.index("pc_success")
    assert collect.parse_success_metrics(stdout_log) == (0, 2, 0.0)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("lost", ["tail", "head"])
def test_a_log_that_lost_a_part_tells_the_truth_or_nothing(name: str, lost: str, stdout_log: Path) -> None:
    place(name, stdout_log)
    log = stdout_log.with_name("stderr.log") if name.startswith("0.6.1") else stdout_log
    content, allowed = log.read_bytes(), [{None, value} for value in RUNS[name]]
    start = content.index(b"pc_success") - 40
    for cut in {*range(start, min(start + 200, len(content))), *range(0, len(content), 97)}:
        log.write_bytes(content[:cut] if lost == "tail" else content[cut:])
        found = collect.parse_success_metrics(stdout_log)
        assert all(value in values for value, values in zip(found, allowed, strict=True)), (cut, found)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"\r\n\r\n", b"{'pc_success': 'half'}", b"\x00" * 4096])
def test_rubbish_tells_nothing(content: bytes, stdout_log: Path) -> None:
    stdout_log.write_bytes(content)
    assert collect.parse_success_metrics(stdout_log) == NOTHING


def test_a_missing_log_tells_nothing(stdout_log: Path) -> None:
    assert collect.parse_success_metrics(stdout_log) == NOTHING
