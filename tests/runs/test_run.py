"""A row's run, from its plan to its evidence: every end, the retry, what is there already, and what was cut short."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from campaigns import STANDIN, Made
from processes import is_alive, wait_until

from tracka.campaign import campaign
from tracka.campaign.layout import PHASES, Layout
from tracka.core import errors, files
from tracka.core.errors import ChangedRun
from tracka.core.files import Json
from tracka.gates import handoff, validate
from tracka.reporting import report
from tracka.runs import row_state, run
from tracka.runs.run import RerunPolicy

ROW, WIDE = "long_b1_e6", "wide_b4_e4"  # batch sizes 1 and 4


class End(NamedTuple):
    """How one attempt of the stand-in ends."""

    word: str
    status: str
    reason: str | None
    code: int | None


ENDS = {
    "pass": End("ok:2", "pass", None, 0),
    "witness": End("witness", "pass", None, 0),
    "crash": End("crash", "fail", "crash", 1),
    "killed": End("killed", "fail", "killed", -9),
    "oom": End("oom", "fail", "oom", 1),
    "rendering": End("egl", "fail", "rendering", 1),
    "hub": End("gated", "fail", "hub", 1),
    "import": End("unimportable", "fail", "import", 1),
    "no_result": End("no_result", "fail", "no_result", 0),
    "short": End("short", "fail", "invalid_result", 0),
    "extra": End("extra", "fail", "invalid_result", 0),
    "foreign": End("foreign:0=0,3", "fail", "invalid_result", 0),
    "late": End("late:0=0,3", "fail", "crash", 3),
    "nan": End("nan", "fail", "invalid_result", 0),
    "liar": End("liar", "fail", "invalid_result", 0),
    "hang": End("hang", "fail", "timeout", -15),
    "stubborn": End("stubborn", "fail", "timeout", -9),
}


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): files.sha256_file(path) for path in files.walk_files(folder)}


def manifests(made: Made, run_id: str, *keys: str) -> list[tuple[object, ...]]:
    """The values of `keys` in the manifest of each attempt."""
    folder = made.layout.run(run_id)
    found = [files.read_json(folder.attempt(number).manifest) for number in folder.numbers()]
    return [tuple(manifest[key] for key in keys) for manifest in found]


def marker(made: Made, run_id: str) -> Json:
    return files.read_json(made.layout.marker(run_id))


def history(made: Made, run_id: str) -> list[str]:
    return [step["status"] for step in marker(made, run_id)["history"]]


def interrupt(harness: subprocess.Popen[str]) -> str:
    """Ends a harness as Ctrl-C does, and returns what it said."""
    harness.send_signal(signal.SIGINT)
    return harness.communicate(timeout=20)[1]


# every end leaves its evidence


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_every_end_leaves_a_result_a_manifest_and_a_marker_that_agree(ready: Made, end: End) -> None:
    if end.reason == "timeout":
        ready.configure(f"[rows.{ROW}]\ntimeout_secs = 2")
    ready.behave(**{ROW: [end.word]})
    result = ready.run_row(ROW, retry_index=1)
    assert (result["status"], result["reason"], result["exit_code"]) == (end.status, end.reason, end.code)
    assert result == files.read_json(ready.layout.run(ROW).result)
    assert result == files.read_json(ready.layout.run(ROW).attempt(1).result)
    assert (marker(ready, ROW)["status"], marker(ready, ROW)["reason"]) == (end.status, end.reason)
    assert history(ready, ROW) == ["pending", "running", end.status]
    assert ready.evidence(ROW) == []
    if end.reason is not None:  # the message says more than that
        assert len(result["error_message"]) > len(end.reason) + 5
        assert marker(ready, ROW)["notes"] == result["error_message"]


def test_a_program_that_cannot_be_started_leaves_a_result_too(ready: Made) -> None:
    host = replace(run.load_host(ready.layout), executable=("/nowhere/lerobot-eval",))
    result = run.run_row(ready.spec, ready.spec.row(ROW), host, retry_index=1)
    assert (result["status"], result["reason"], result["exit_code"]) == ("fail", "not_started", None)
    assert "/nowhere/lerobot-eval" in result["error_message"]
    assert ready.evidence(ROW) == []


def test_a_pass_counts_its_episodes(ready: Made) -> None:
    ready.behave(**{ROW: ["ok:2"]})
    result = ready.run_row(ROW)
    assert (result["episodes"], result["successes"], result["success_rate"]) == (6, 2, pytest.approx(1 / 3))
    lines = [json.loads(line) for line in ready.layout.run(ROW).episodes.read_text().splitlines()]
    assert [line["success"] for line in lines] == [True, True, False, False, False, False]


def test_a_row_that_was_never_evaluated_has_no_rate(ready: Made) -> None:
    ready.behave(**{ROW: ["crash"]})
    result = ready.run_row(ROW)
    assert (result["episodes"], result["successes"], result["success_rate"]) == (None, None, None)


# while it runs


def test_manifest_and_marker_are_on_disk_before_every_launch(ready: Made) -> None:
    ready.behave(**{ROW: ["crash", "witness"]})
    assert ready.run_row(ROW)["status"] == "pass"
    assert ready.results(ROW) == [("fail", "crash"), ("pass", None)]


def test_the_logs_at_the_top_can_be_followed_while_the_row_runs(ready: Made) -> None:
    ready.behave(**{ROW: ["slow:20"]})
    top = ready.layout.run(ROW)
    harness = ready.start_row(ROW)
    wait_until(lambda: top.stdout.exists())
    with top.stdout.open() as out, top.stderr.open() as err:
        wait_until(lambda: "waiting for 20 seconds" in out.read())
        wait_until(lambda: f"stand-in {ROW} attempt 1" in err.read())
    assert marker(ready, ROW)["status"] == "running"
    assert files.read_json(top.manifest)["outcome"] is None and not top.result.exists()
    interrupt(harness)
    assert files.read_json(top.manifest)["outcome"] == {"status": "fail", "reason": "interrupted"}


def test_two_processes_never_run_one_row(ready: Made) -> None:
    ready.behave(**{ROW: ["slow:20"]})
    harness = ready.start_row(ROW)
    wait_until(lambda: bool(ready.started()))
    before = hashes(ready.layout.rows)
    with pytest.raises(errors.Busy, match=f"row {ROW} is held by process {harness.pid}") as caught:
        ready.run_row(ROW)
    assert caught.value.exit_code == 5
    assert hashes(ready.layout.rows) == before
    interrupt(harness)
    assert ready.started() == [ROW]


def test_another_row_may_run_meanwhile(ready: Made) -> None:
    ready.behave(**{ROW: ["slow:20"]})
    harness = ready.start_row(ROW)
    wait_until(lambda: bool(ready.started()))
    assert ready.run_row(WIDE)["status"] == "pass"
    interrupt(harness)


# the retry


@pytest.mark.parametrize("word", ["oom", "hang"])
def test_a_row_that_was_too_big_is_retried_once_with_half_the_batch(ready: Made, word: str) -> None:
    ready.configure(f"[rows.{WIDE}]\ntimeout_secs = 3")
    ready.behave(**{WIDE: [word, "ok"]})
    assert ready.run_row(WIDE)["status"] == "pass"
    keys = ("attempt", "retry_index", "batch_size", "batch_size_requested", "comparable")
    assert manifests(ready, WIDE, *keys) == [(1, 0, 4, 4, True), (2, 1, 2, 4, False)]
    assert (marker(ready, WIDE)["retry_index"], marker(ready, WIDE)["status"]) == (1, "pass")
    assert ready.evidence(WIDE) == []


def test_the_retry_is_really_launched_with_half_the_batch(ready: Made) -> None:
    ready.behave(**{WIDE: ["oom", "ok"]})
    ready.run_row(WIDE)
    (first,), (second,) = manifests(ready, WIDE, "command")
    assert "--eval.batch_size=4" in str(first) and "--eval.batch_size=2" in str(second)


def test_out_of_memory_at_batch_1_is_not_retried(ready: Made) -> None:
    ready.behave(**{ROW: ["oom", "ok"]})
    assert ready.run_row(ROW)["reason"] == "oom"
    assert ready.results(ROW) == [("fail", "oom")]


def test_a_timeout_at_batch_1_is_retried_unchanged(ready: Made) -> None:
    ready.configure(f"[rows.{ROW}]\ntimeout_secs = 3")
    ready.behave(**{ROW: ["hang", "ok"]})
    assert ready.run_row(ROW)["status"] == "pass"
    assert manifests(ready, ROW, "batch_size", "comparable") == [(1, True), (1, True)]


@pytest.mark.parametrize("word", ["crash", "killed", "no_result", "short"])
def test_another_failure_is_retried_unchanged(ready: Made, word: str) -> None:
    ready.behave(**{WIDE: [word, "ok"]})
    assert ready.run_row(WIDE)["status"] == "pass"
    assert manifests(ready, WIDE, "retry_index", "batch_size", "comparable") == [(0, 4, True), (1, 4, True)]


@pytest.mark.parametrize("word", ["crash", "oom"])
def test_there_are_at_most_two_attempts(ready: Made, word: str) -> None:
    ready.behave(**{WIDE: [word]})
    assert ready.run_row(WIDE)["status"] == "fail"
    assert ready.layout.run(WIDE).numbers() == [1, 2]
    assert history(ready, WIDE) == ["pending", "running", "fail", "running", "fail"]
    assert ready.evidence(WIDE) == []


def test_the_next_call_tries_a_failed_row_again_with_its_own_batch_size(ready: Made) -> None:
    ready.behave(**{WIDE: ["oom", "oom", "ok"]})
    assert [ready.run_row(WIDE)["status"] for _ in range(2)] == ["fail", "pass"]
    assert manifests(ready, WIDE, "retry_index", "batch_size") == [(0, 4), (1, 2), (0, 4)]


def test_what_is_somebodys_retry_already_is_not_retried(ready: Made) -> None:
    ready.behave(**{WIDE: ["crash"]})
    ready.run_row(WIDE, retry_index=1)
    assert manifests(ready, WIDE, "attempt", "retry_index") == [(1, 1)]


def test_a_second_attempt_leaves_the_first_as_it_was(ready: Made) -> None:
    ready.behave(**{ROW: ["no_result", "ok"]})
    ready.run_row(ROW, retry_index=1)
    before = hashes(ready.layout.run(ROW).attempt(1).path)
    ready.run_row(ROW, retry_index=1)
    assert ready.layout.run(ROW).numbers() == [1, 2]
    assert {"run_manifest.json", "result.json", "stdout.log", "stderr.log"} <= before.keys()
    assert hashes(ready.layout.run(ROW).attempt(1).path) == before


def test_the_top_of_a_run_shows_its_last_attempt(ready: Made) -> None:
    ready.behave(**{ROW: ["ok:3", "crash"]})
    ready.run_row(ROW)
    ready.run_row(ROW, RerunPolicy(allow_overwrite=True), retry_index=1)
    top, last = ready.layout.run(ROW), ready.layout.run(ROW).attempt(2)
    for name in ("manifest", "result", "stdout", "stderr", "episodes"):
        assert getattr(top, name).read_bytes() == getattr(last, name).read_bytes()


# what is there already


def test_a_passed_row_is_returned_without_a_process(ready: Made) -> None:
    first = ready.run_row(ROW)
    before = hashes(ready.layout.runs) | hashes(ready.layout.rows)
    assert ready.run_row(ROW) == first
    assert ready.started() == [ROW]
    assert hashes(ready.layout.runs) | hashes(ready.layout.rows) == before


def change_seed(made: Made) -> None:
    matrix = made.layout.matrix
    matrix.write_text(matrix.read_text().replace(f"{ROW},libero_object,1,6,cpu,7", f"{ROW},libero_object,1,6,cpu,8"))


def change_settings(made: Made) -> None:
    made.configure(f"[rows.{ROW}]\nepisode_length = 9")


CHANGES = {"row": change_seed, "settings": change_settings, "checkpoint": Made.change_weights}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_row_that_passed_with_other_inputs_is_refused_and_left_alone(
    ready: Made, change: Callable[[Made], None]
) -> None:
    ready.run_row(ROW)
    before = hashes(ready.layout.runs) | hashes(ready.layout.rows)
    change(ready)
    with pytest.raises(errors.ChangedRun, match="--allow-overwrite"):
        ready.run_row(ROW)
    assert hashes(ready.layout.runs) | hashes(ready.layout.rows) == before
    assert ready.started() == [ROW]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_allowed_to_overwrite_it_runs_again_beside_the_old_attempt(ready: Made, change: Callable[[Made], None]) -> None:
    old = ready.run_row(ROW)
    change(ready)
    new = ready.run_row(ROW, RerunPolicy(resume=True, allow_overwrite=True))
    assert (new["status"], new["attempt"]) == ("pass", 2)
    assert new["row_hash"] != old["row_hash"]
    assert files.read_json(ready.layout.run(ROW).attempt(1).result) == old
    assert ready.evidence(ROW) == []


def test_a_retry_halves_the_batch_that_was_played_not_the_one_that_was_asked_for(ready: Made) -> None:
    ready.behave(**{WIDE: ["oom", "ok:1"]})
    spec = ready.spec
    row = replace(spec.row(WIDE), n_episodes=2)  # of a batch of 4
    assert run.run_row(spec, row, run.load_host(ready.layout))["status"] == "pass"
    folder = ready.layout.run(WIDE)
    assert [files.read_json(folder.attempt(number).manifest)["batch_size"] for number in (1, 2)] == [4, 1]


def test_a_longer_timeout_is_no_other_input(ready: Made) -> None:
    ready.run_row(ROW)
    ready.configure(f"[rows.{ROW}]\ntimeout_secs = 99")
    assert ready.run_row(ROW)["attempt"] == 1


@pytest.mark.parametrize("word", ["ok", "crash"])
def test_a_run_folder_in_the_way_is_refused_and_left_alone(ready: Made, word: str) -> None:
    ready.behave(**{ROW: [word]})
    ready.run_row(ROW)
    before = hashes(ready.layout.runs) | hashes(ready.layout.rows)
    with pytest.raises(errors.RunExists, match="--allow-overwrite"):
        ready.run_row(ROW, RerunPolicy())
    assert hashes(ready.layout.runs) | hashes(ready.layout.rows) == before


def test_without_resuming_a_passed_row_is_run_again_where_overwriting_is_allowed(ready: Made) -> None:
    ready.run_row(ROW)
    assert ready.run_row(ROW, RerunPolicy(allow_overwrite=True))["attempt"] == 2
    assert history(ready, ROW) == ["pending", "running", "pass", "running", "pass"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_a_damaged_result_is_no_pass(ready: Made, damage: bytes) -> None:
    ready.run_row(ROW)
    files.write_atomic(ready.layout.run(ROW).result, damage)
    assert ready.run_row(ROW)["attempt"] == 2
    assert ready.evidence(ROW) == []


@pytest.mark.parametrize("damage", [None, b"", b"{}"], ids=["gone", "empty", "no_marker"])
def test_a_passed_row_whose_marker_is_lost_has_sound_evidence_after_the_next_call(
    ready: Made, damage: bytes | None
) -> None:
    ready.run_row(ROW)
    path = ready.layout.marker(ROW)
    path.unlink() if damage is None else path.write_bytes(damage)
    assert ready.run_row(ROW)["status"] == "pass"
    assert ready.evidence(ROW) == []


# cut short


def test_a_killed_harness_takes_its_row_with_it_and_leaves_an_attempt_that_the_next_call_closes(ready: Made) -> None:
    ready.behave(**{ROW: ["slow:20", "ok"]})
    harness = ready.start_row(ROW)
    wait_until(lambda: bool(ready.pids()))
    (evaluation,) = ready.pids()
    harness.kill()
    harness.communicate()
    wait_until(lambda: not is_alive(evaluation))
    assert not ready.layout.run(ROW).attempt(1).result.exists()
    assert ready.run_row(ROW)["attempt"] == 2
    assert ready.results(ROW) == [("fail", "interrupted"), ("pass", None)]
    assert manifests(ready, ROW, "retry_index") == [(0,), (0,)]
    assert history(ready, ROW) == ["pending", "running", "fail", "running", "pass"]
    assert ready.evidence(ROW) == []


def test_an_interrupt_leaves_a_result_and_no_process(ready: Made) -> None:
    ready.behave(**{ROW: ["hang"]})
    harness = ready.start_row(ROW)
    out = ready.layout.run(ROW).stdout
    wait_until(lambda: out.exists() and out.read_text().endswith("\n"))
    evaluation = psutil.Process(ready.pids()[0])
    assert "KeyboardInterrupt" in interrupt(harness)
    assert ready.results(ROW) == [("fail", "interrupted")]
    assert (marker(ready, ROW)["status"], marker(ready, ROW)["reason"]) == ("fail", "interrupted")
    assert ready.evidence(ROW) == []
    wait_until(lambda: not is_alive(evaluation.pid) and not is_alive(int(out.read_text())), 2)


def test_a_time_out_leaves_no_process(ready: Made) -> None:
    ready.configure(f"[rows.{ROW}]\ntimeout_secs = 2")
    ready.behave(**{ROW: ["stubborn"]})
    assert ready.run_row(ROW, retry_index=1)["reason"] == "timeout"
    child = int(ready.layout.run(ROW).stdout.read_text())
    wait_until(lambda: not is_alive(ready.pids()[0]) and not is_alive(child), 2)


def test_a_harness_killed_between_result_and_marker_leaves_what_the_next_call_mends(ready: Made) -> None:
    ready.run_row(ROW)
    last = marker(ready, ROW)
    ready.layout.run(ROW).result.unlink()
    files.write_json(ready.layout.marker(ROW), last | {"status": "running", "history": last["history"][:-1]})
    assert ready.run_row(ROW)["status"] == "pass"
    assert ready.evidence(ROW) == []


@pytest.mark.parametrize("before", [[], ["crash"]], ids=["the first attempt", "the retry"])
def test_a_harness_killed_between_manifest_and_marker_leaves_what_the_next_call_closes(
    ready: Made, monkeypatch: pytest.MonkeyPatch, before: list[str]
) -> None:
    ready.behave(**{ROW: [*before, "ok", "ok"]})
    advance, number = row_state.advance, len(before) + 1

    def killed(layout: Layout, run_id: str, status: str, attempt: int = 0, **values: Any) -> None:
        if (status, attempt) == ("running", number):
            raise KeyboardInterrupt
        advance(layout, run_id, status, attempt, **values)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("tracka.runs.row_state.advance", killed)
        ready.run_row(ROW)
    assert ready.run_row(ROW)["attempt"] == number + 1
    expected = ["pending", *["running", "fail"] * number, "running", "pass"]
    assert history(ready, ROW) == expected
    assert ready.evidence(ROW) == []


def test_folders_that_a_harness_was_killed_in_before_any_manifest_are_kept_and_stop_nothing(ready: Made) -> None:
    for _ in range(2):
        files.write_text(ready.layout.run(ROW).attempt(1).path / ".run_manifest.json.part", "{")
        assert ready.run_row(ROW)["attempt"] == 1
        shutil.rmtree(ready.layout.run(ROW).attempt(1).path)
    assert len(list(ready.layout.run(ROW).attempts.rglob("*.part"))) == 2


# paths


def test_a_run_folder_holds_the_plans_files_and_nothing_else(ready: Made) -> None:
    ready.behave(**{ROW: ["crash", "ok"]})
    ready.run_row(ROW)
    top, plans = ready.layout.run(ROW), {"run_manifest.json", "result.json", "stdout.log", "stderr.log"}
    assert {path.name for path in top.path.iterdir()} == plans | {"episodes.jsonl", "attempts"}
    assert {path.name for path in top.attempt(2).path.iterdir()} == plans | {"episodes.jsonl", "eval", "identity.json"}


def test_no_artifact_but_the_manifest_names_the_campaigns_place(ready: Made) -> None:
    ready.behave(**{ROW: ["crash", "ok"]})
    ready.run_row(ROW)
    named = [path for path in files.walk_files(ready.layout.runs) if str(ready.root).encode() in path.read_bytes()]
    assert all("run_manifest.json" in path.name for path in named)
    assert str(ready.root) not in ready.layout.marker(ROW).read_text()


def test_paths_in_artifacts_are_relative_to_the_campaign(ready: Made) -> None:
    result = ready.run_row(ROW)
    manifest = files.read_json(ready.layout.run(ROW).manifest)
    flags = dict(word.split("=", 1) for word in manifest["command"] if word.startswith("--"))
    named = [result["stdout_log"], result["stderr_log"], result["video_path"], *result["video_paths"]]
    named += [marker(ready, ROW)["result_path"], manifest["checkpoint"]["folder"], flags["--policy.path"]]
    for name in (*named, flags["--output_dir"]):
        assert not Path(name).is_absolute()
        assert (ready.root / name).exists()


def test_a_moved_campaign_stays_valid_and_runs_nothing_again(ready: Made) -> None:
    spec = ready.spec
    for row in spec.enabled:
        ready.run_row(row.run_id)
    report.write(spec)
    for phase in PHASES[2:]:
        handoff.hand_over(spec, phase)
    assert validate.validate(spec, strict=True) == []
    ready.root.rename(ready.root.with_name("moved"))
    moved = campaign.load(ready.root.with_name("moved"))
    assert validate.validate(moved, strict=True) == []
    assert run.run_row(moved, moved.row(ROW), run.load_host(moved.layout))["attempt"] == 1


def test_a_row_that_another_program_evaluated_is_refused(ready: Made) -> None:
    """The campaign's own lerobot-eval has changed since; its place has not."""
    own = ready.root / "my_eval.py"
    own.write_text(f"import runpy; runpy.run_path({str(STANDIN / 'lerobot_eval.py')!r}, run_name='__main__')\n")
    text = ready.layout.settings.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("executable")]
    ready.layout.settings.write_text(
        text.replace(line, f"executable = [{json.dumps(sys.executable)}, {json.dumps(str(own))}]")
    )
    ready.pass_preflight()
    assert ready.run_row("long_b1_e6")["status"] == "pass"
    own.write_text(own.read_text() + "# changed\n")
    with pytest.raises(ChangedRun):
        ready.run_row("long_b1_e6")
