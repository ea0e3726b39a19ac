"""Judging a row ends in a stated time: reading and hashing by a clock between the files, all else by bounds of size."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import Made

from tracka.campaign.layout import RunFolder
from tracka.core import reading, tree
from tracka.engines import failure, lerobot_eval
from tracka.execution.process import Exit
from tracka.gates import video_contract
from tracka.runs import judgement

ROW = "long_b1_e6"
MOST_SECS = 120.0  # on a machine that does nothing else; measured: below
PATIENCE = float(os.environ.get("SOAK_PATIENCE", "6"))


def test_files_that_take_too_long_to_hash_fail_their_attempt(ready: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgement, "HASHING_SECS", -1.0)
    result = ready.run_row(ROW)
    assert (result["status"], result["reason"], result["files"]) == ("fail", "invalid_result", {})
    assert "took longer than" in result["error_message"]
    monkeypatch.undo()


def test_videos_that_take_too_long_to_decode_are_a_finding(ready: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ready.run_row(ROW)["status"] == "pass"
    spec = ready.spec
    assert list(video_contract.videos(spec, spec.row(ROW))) == []
    monkeypatch.setattr(video_contract, "VIDEOS_SECS", -1.0)
    (found,) = video_contract.videos(spec, spec.row(ROW))
    assert "take longer than" in found.what


def nested(size: int) -> bytes:
    """As much JSON as an evaluation may leave, and as deep."""
    unit = b"[" * 60 + b"]" * 60 + b","
    return b'{"per_task": [' + unit * (size // len(unit) - 1) + b"0]}"


def episodes(size: int) -> bytes:
    """An eval_info.json of as many episodes as may be there."""
    head, tail = b'{"per_task": [{"task_group": "libero_object", "task_id": 0, "metrics": {"successes": [', b"true]}}]}"
    return head + b"true, " * ((size - len(head) - len(tail)) // 6) + tail


WORST_INFO = {"nested": nested, "episodes": episodes}
WORST_LOGS = {
    "numbers": b"'pc_success': 1e-1e-1e-1 'n_episodes': 9 'eval_s' ",
    "signs": b"EGL EGLE eglInitializ CUDA out of memor\r",
    "one line": b"Traceback (most recent call last): File ",
    "lines": b'  File "x", line 1\nValueError: x\n',
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("info", WORST_INFO)
@pytest.mark.parametrize("log", WORST_LOGS)
def test_the_worst_text_that_the_bounds_allow_is_judged_in_time(tmp_path: Path, info: str, log: str) -> None:
    folder = RunFolder(tmp_path)
    folder.output.mkdir(parents=True)
    make: Callable[[int], bytes] = WORST_INFO[info]
    (folder.output / "eval_info.json").write_bytes(make(reading.RESULTS - 1000))
    (folder.output / "episodes.jsonl").write_bytes(b'{"task":0,"episode":0}\n' * (reading.RESULTS // 24))
    for path in (folder.stdout, folder.stderr):
        path.write_bytes(WORST_LOGS[log] * (reading.LOG // len(WORST_LOGS[log])))
    seconds = judged(folder)
    print(f"{info}, {log}: {seconds:.1f} s")
    assert seconds < MOST_SECS * PATIENCE


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_most_files_and_bytes_that_the_bounds_allow_are_judged_in_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.output.mkdir(parents=True)
    for number in range(tree.MOST - 10):
        (folder.output / f"{number}.txt").touch()
    for name in ("a.mp4", "b.mp4"):
        with (folder.output / name).open("wb") as file:
            file.truncate(reading.OUTPUT - 1)
    seconds = judged(folder)
    print(f"{seconds:.1f} s")
    assert seconds < MOST_SECS * PATIENCE


def judged(folder: RunFolder) -> float:
    """Judges what an evaluation has left as a row's end does, and returns the seconds that it took."""
    start = time.monotonic()
    logs = (folder.stdout, folder.stderr)
    metrics = lerobot_eval.read_metrics(folder.output, logs)
    failure.diagnose(Exit(0, "", 1.0), metrics, "libero_object", {0: 1}, logs)
    judgement.unsound_output(folder)
    lerobot_eval.episode_records(metrics, 1, 1, 0)
    judgement.file_hashes(folder)
    return time.monotonic() - start
