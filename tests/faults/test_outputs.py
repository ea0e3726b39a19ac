"""What an evaluation prints and leaves behind: only exit 0 with exactly the episodes asked for is a pass."""

import time

import pytest
from campaigns import Made

from tracka.core import files

ROW, WIDE = "long_b1_e6", "wide_b4_e4"

ENDS = {
    "nan": ("invalid_result", "episodes by task are {}"),
    "short": ("invalid_result", "{0: 5}, expected {0: 6}"),
    "foreign": ("invalid_result", "expected libero_object"),
    "no_result": ("no_result", "exit code 0, but"),
    "liar": ("invalid_result", "overall.pc_success is 100.0"),
    "nan_action": ("bad_action", "not a number"),
    "crash": ("crash", "exit code 1"),
    "egl": ("rendering", "EGL_NOT_INITIALIZED"),
    "gated": ("hub", "gated repo"),
    "unimportable": ("import", "a_module_that_nobody_has"),
}


@pytest.mark.parametrize("word", ENDS)
def test_what_is_no_result_fails_with_a_reason_of_its_own_and_is_tried_again_unchanged(ready: Made, word: str) -> None:
    ready.behave(**{ROW: [word]})
    result = ready.run_row(ROW)
    reason, message = ENDS[word]
    assert (result["status"], result["reason"]) == ("fail", reason) and message in result["error_message"]
    folder = ready.layout.run(ROW)
    assert [files.read_json(folder.attempt(k).manifest)["batch_size"] for k in folder.numbers()] == [1, 1]


def test_an_attempt_that_leaves_nothing_does_not_pass_on_the_files_of_the_one_before(ready: Made) -> None:
    ready.behave(**{ROW: ["short", "no_result"]})
    result = ready.run_row(ROW)
    assert (result["attempt"], result["reason"], result["metrics_source"]) == (2, "no_result", "log")


def test_memory_that_runs_out_is_tried_once_more_with_half_the_batch_in_a_new_folder(ready: Made) -> None:
    ready.behave(**{WIDE: ["oom", "ok"]})
    assert ready.run_row(WIDE)["status"] == "pass"
    folder = ready.layout.run(WIDE)
    manifests = [files.read_json(folder.attempt(number).manifest) for number in folder.numbers()]
    assert [(each["batch_size"], each["comparable"]) for each in manifests] == [(4, True), (2, False)]
    assert files.read_json(folder.attempt(1).result)["reason"] == "oom"


def test_memory_that_runs_out_at_batch_1_is_not_tried_again(ready: Made) -> None:
    ready.behave(**{ROW: ["oom", "ok"]})
    assert ready.run_row(ROW)["reason"] == "oom"
    assert ready.layout.run(ROW).numbers() == [1]


def test_a_gigabyte_of_output_ends_the_run_and_leaves_a_short_log(ready: Made) -> None:
    ready.behave(**{ROW: ["gigabyte"]})
    result = ready.run_row(ROW)
    assert (result["status"], result["reason"]) == ("fail", "flood")
    assert ready.layout.run(ROW).stdout.stat().st_size < 9 << 20


def test_a_gigabyte_of_output_that_is_allowed_leaves_a_short_log_and_a_pass(ready: Made) -> None:
    ready.configure("[limits]\nlog_mib = 2000")
    ready.behave(**{ROW: ["gigabyte"]})
    assert ready.run_row(ROW)["status"] == "pass"
    assert ready.layout.run(ROW).stdout.stat().st_size < 9 << 20


def test_output_that_is_no_text_is_kept_and_stops_nothing(ready: Made) -> None:
    ready.behave(**{ROW: ["broken_text"]})
    assert ready.run_row(ROW)["status"] == "pass"
    assert b"\xff\xfe\x00 caf\xe9\n" in ready.layout.run(ROW).stdout.read_bytes()


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_a_clock_that_jumps_changes_no_duration(ready: Made, jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now, start = time.time, time.monotonic()
    monkeypatch.setattr(time, "time", lambda: now() + jump * (time.monotonic() - start))
    ready.behave(**{ROW: ["slow:1"]})
    result = ready.run_row(ROW)
    assert result["status"] == "pass" and 1 <= result["duration_sec"] < 30
