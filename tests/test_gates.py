"""The gates as a user runs them: `pytest acceptance` on a campaign whose lerobot-eval is a stand-in."""

import json
import os
import re
import shutil
import signal
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest
from campaigns import Made
from processes import wait_until

from tracka import files, validate

WORKERS = ["-n0", "-n2"]


def status(made: Made, phase: str) -> str:
    return str(files.read_json(made.layout.handoff(phase))["status"])


def statuses(made: Made) -> list[str]:
    return [status(made, f"phase{number}") for number in range(1, 6)]


def closing_line(ended: subprocess.CompletedProcess[str]) -> str:
    """pytest's closing line."""
    return ended.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("workers", WORKERS)
def test_a_sound_campaign_passes_all_five_gates(made: Made, workers: str) -> None:
    ended = made.pytest(workers)
    assert ended.returncode == 0, ended.stdout
    assert statuses(made) == ["pass"] * 5
    assert "verdict: accepted" in ended.stdout
    assert validate.validate(made.spec, strict=True) == []


def test_each_enabled_row_is_evaluated_once_and_the_baseline_is_not_repeated(made: Made) -> None:
    made.pytest("-n2")
    assert sorted(made.started()) == ["baseline_b1_e2", "long_b1_e6", "wide_b4_e4"]


def test_rows_wait_for_the_phase_before_and_run_side_by_side(made: Made) -> None:
    made.behave(baseline_b1_e2=["slow:1"], long_b1_e6=["slow:2"], wide_b4_e4=["slow:2"])
    made.pytest("-n3")
    journal = made.journal()
    assert journal[:2] == ["baseline_b1_e2 1 start", "baseline_b1_e2 1 end"]
    assert sorted(journal[2:4]) == ["long_b1_e6 1 start", "wide_b4_e4 1 start"]


def test_the_longest_row_starts_first(made: Made) -> None:
    made.pytest("-n1")
    assert made.started() == ["baseline_b1_e2", "long_b1_e6", "wide_b4_e4"]


def test_a_killed_worker_costs_its_row_alone_and_the_next_call_resumes_it(made: Made) -> None:
    made.behave(wide_b4_e4=["kill_harness", "ok"])
    ended = made.pytest("-n2")
    assert ended.returncode == 1
    assert statuses(made) == ["pass", "pass", "pass", "partial", "partial"]
    assert made.pytest("-n2", "--lf").returncode == 0
    first = files.read_json(made.layout.run("wide_b4_e4").attempt(1).result)
    assert (first["status"], first["reason"]) == ("fail", "interrupted")
    assert made.started().count("long_b1_e6") == 1


@pytest.mark.parametrize("workers", WORKERS)
def test_a_failed_row_makes_phase_4_partial_and_phase_5_fail(made: Made, workers: str) -> None:
    made.behave(long_b1_e6=["crash"])
    ended = made.pytest(workers)
    assert ended.returncode == 1
    assert statuses(made) == ["pass", "pass", "pass", "partial", "partial"]
    assert "long_b1_e6" in (made.layout.summary / "failures.csv").read_text()
    assert "the run failed (crash)" in ended.stdout


def test_a_failed_row_was_tried_twice_and_both_attempts_are_kept(made: Made) -> None:
    made.behave(long_b1_e6=["crash"])
    made.pytest("-n2")
    run = made.layout.run("long_b1_e6")
    assert run.numbers() == [1, 2]
    assert [files.read_json(run.attempt(number).manifest)["retry_index"] for number in (1, 2)] == [0, 1]


def test_last_failed_runs_that_row_alone_and_then_closes(made: Made) -> None:
    made.behave(long_b1_e6=["crash", "crash", "ok"])
    assert made.pytest("-n2").returncode == 1
    before = len(made.started())
    ended = made.pytest("-n2", "--lf")
    assert ended.returncode == 0, ended.stdout
    assert made.started()[before:] == ["long_b1_e6"]
    assert "| long_b1_e6 | libero_object | pass |" in made.layout.results.read_text()
    assert statuses(made) == ["pass"] * 5


def test_a_second_call_judges_passed_rows_without_running_them(made: Made) -> None:
    made.pytest("-n2")
    before = made.started()
    ended = made.pytest("-n2")
    assert ended.returncode == 0
    assert made.started() == before


def test_phase_4_alone_takes_the_handoffs_from_the_disk(made: Made) -> None:
    made.pytest("-n2")
    made.behave(wide_b4_e4=["crash"])
    ended = made.pytest("-n2", "-m", "phase4")
    assert ended.returncode == 0, ended.stdout
    assert "4 passed" in closing_line(ended)


def test_a_blocked_baseline_blocks_what_follows_and_says_why(made: Made) -> None:
    made.behave(baseline_b1_e2=["crash"])
    ended = made.pytest("-n2")
    assert ended.returncode == 1
    assert statuses(made) == ["pass", "pass", "blocked", "blocked", "blocked"]
    assert set(made.started()) == {"baseline_b1_e2"}
    assert "phase4 is blocked" in ended.stdout
    assert str(made.layout.handoff("phase3")) in ended.stdout


def test_without_a_backend_preflight_blocks_with_both_attempts(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKA_STANDIN_BROKEN_GL", "egl,glx")
    ended = made.pytest("-n2")
    assert ended.returncode == 1
    assert statuses(made) == ["pass", "blocked", "blocked", "blocked", "blocked"]
    report = files.read_json(made.layout.preflight_report)
    assert [attempt["backend"] for attempt in report["backend_attempts"]] == ["egl", "glx"]
    assert report["mujoco_gl_effective"] is None
    assert made.started() == []


def test_where_egl_fails_the_rows_run_with_glx(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKA_STANDIN_BROKEN_GL", "egl")
    assert made.pytest("-n2").returncode == 0
    manifest = files.read_json(made.layout.run("long_b1_e6").manifest)
    assert (manifest["mujoco_gl"], manifest["mujoco_gl_requested"]) == ("glx", "egl")
    assert manifest["env"]["MUJOCO_GL"] == "glx"


def test_a_missing_predecessor_fails_with_the_marker_it_looked_for(made: Made) -> None:
    ended = made.pytest("-n0", "-m", "phase3")
    assert ended.returncode == 1
    assert "phase2 has handed nothing over" in ended.stdout
    assert str(made.layout.handoff("phase2")) in ended.stdout


def test_a_matrix_that_changed_after_its_gates_blocks_until_they_run_again(made: Made) -> None:
    made.pytest("-n2")
    with made.layout.matrix.open("a") as matrix:
        matrix.write("new_b1_e1,libero_object,1,1,cpu,9,egl,checkpoints/fake,1\n")
    assert "has changed since phase3 was accepted" in made.pytest("-n0", "-m", "phase4").stdout
    assert made.pytest("-n2").returncode == 0
    assert made.started()[-1] == "new_b1_e1"


def test_a_row_that_passed_with_other_settings_is_refused_until_overwriting_is_allowed(made: Made) -> None:
    made.pytest("-n2")
    settings = made.layout.settings
    settings.write_text(settings.read_text() + "\n[rows.long_b1_e6]\nepisode_length = 9\n")
    ended = made.pytest("-n2")
    assert ended.returncode == 1
    assert "--allow-overwrite" in ended.stdout
    assert made.pytest("-n2", "--allow-overwrite").returncode == 0
    assert made.started().count("long_b1_e6") == 2
    assert made.layout.run("long_b1_e6").numbers() == [1, 2]


def test_a_rate_below_the_threshold_fails_the_gate_and_is_judged_again_without_a_run(made: Made) -> None:
    settings = made.layout.settings
    settings.write_text(settings.read_text() + "\n[thresholds.rows]\nwide_b4_e4 = 0.75\n")
    made.behave(wide_b4_e4=["ok:2"])
    ended = made.pytest("-n2")
    assert ended.returncode == 1
    assert "the success rate is 0.500, at least 0.750 is asked for" in ended.stdout
    assert "below_threshold" in (made.layout.summary / "failures.csv").read_text()
    before = made.started()
    assert made.pytest("-n2", "--lf").returncode == 1
    assert made.started() == before


def test_junit_carries_what_a_reader_asks_of_a_run(made: Made) -> None:
    made.behave(wide_b4_e4=["ok:3"])
    report = made.root / "junit.xml"
    made.pytest("-n2", f"--junitxml={report}")
    cases = {case.get("name"): case for case in ElementTree.parse(report).iter("testcase")}
    found = {item.get("name"): item.get("value") for item in cases["test_row[wide_b4_e4]"].iter("property")}
    assert found["run_id"] == "wide_b4_e4"
    assert found["device"] == "cpu"
    assert float(found["success_rate"] or "nan") == 0.75
    assert (made.root / str(found["result"])).is_file()
    assert (made.root / str(found["stderr_log"])).is_file()


def test_stopping_at_the_first_failure_still_hands_over_what_is_there(made: Made) -> None:
    made.behave(baseline_b1_e2=["crash"])
    for workers in WORKERS:
        made.pytest(workers, "-x")
        assert status(made, "phase3") == "blocked"


def test_a_bad_campaign_is_refused_whole_before_anything_starts(made: Made) -> None:
    made.layout.matrix.write_text(made.layout.matrix.read_text() + "long_b1_e6,moon,0,x,cpu,7,egl,p,1\n")
    ended = made.pytest("-n2")
    assert ended.returncode == 4
    for column in ("run_id", "task_suite", "batch_size", "n_episodes"):
        assert f"line 6, column {column}" in ended.stderr
    assert not made.layout.artifacts.exists()


def test_handoffs_say_what_was_given_made_and_found(made: Made) -> None:
    made.behave(long_b1_e6=["crash"])
    made.pytest("-n2")
    one, two, three, four = (files.read_json(made.layout.handoff(f"phase{number}")) for number in range(1, 5))
    assert "artifacts/state/cli_capabilities.json" in one["outputs"]
    assert two["details"]["mujoco_gl_effective"] == "egl"
    assert (three["details"]["run_id"], three["details"]["exit_code"]) == ("baseline_b1_e2", 0)
    assert (four["details"]["completed_rows"], four["details"]["failed_rows"]) == (2, 1)
    assert json.dumps(four["notes"]).count("long_b1_e6") >= 1


def test_a_matrix_edited_while_the_gates_run_is_not_accepted(made: Made) -> None:
    made.behave(baseline_b1_e2=["slow:3"])
    gates = made.start("-n2")
    wait_until(lambda: "baseline_b1_e2" in made.started())
    with made.layout.matrix.open("a") as matrix:
        matrix.write("late_b1_e1,libero_object,1,1,cpu,9,egl,checkpoints/fake,1\n")
    assert gates.wait() == 1
    assert "late_b1_e1" not in made.started()
    assert made.pytest("-n2").returncode == 0
    assert "late_b1_e1" in made.started()


def test_a_second_session_on_a_campaign_is_refused_and_names_the_first(made: Made) -> None:
    made.behave(baseline_b1_e2=["slow:5"])
    gates = made.start("-n2")
    wait_until(lambda: "baseline_b1_e2" in made.started())
    second = made.pytest("-n0")
    assert second.returncode == 4
    assert f"held by process {gates.pid}" in second.stderr
    assert gates.wait() == 0


def test_a_phase_that_fails_takes_back_the_handoffs_that_stood_on_it(made: Made) -> None:
    made.pytest("-n2")
    shutil.rmtree(made.layout.run("wide_b4_e4").path)
    made.behave(wide_b4_e4=["crash"])
    made.pytest("-n2", "-m", "phase4")
    assert status(made, "phase4") == "partial"
    assert not made.layout.handoff("phase5").exists()


def test_phase_4_never_runs_the_baseline(made: Made) -> None:
    made.pytest("-n2")
    made.change_weights()
    before = len(made.started())
    ended = made.pytest("-n2", "-m", "phase4", "--allow-overwrite")
    assert ended.returncode == 1
    assert "baseline_b1_e2" not in made.started()[before:]


def test_a_killed_workers_row_is_closed_before_the_session_ends(made: Made) -> None:
    made.behave(wide_b4_e4=["kill_harness"])
    made.pytest("-n2")
    result = files.read_json(made.layout.run("wide_b4_e4").result)
    assert (result["status"], result["reason"]) == ("fail", "interrupted")
    assert "interrupted" in (made.layout.summary / "failures.csv").read_text()


@pytest.mark.parametrize("workers", WORKERS)
def test_an_interrupt_closes_its_rows_before_it_hands_over(made: Made, workers: str) -> None:
    made.behave(wide_b4_e4=["slow:60"], long_b1_e6=["slow:60"])
    gates = made.start(workers)
    wait_until(lambda: len(made.started()) > 1)
    gates.send_signal(signal.SIGTERM)
    gates.wait()
    assert status(made, "phase4") == "partial"
    row = made.started()[1]
    result = files.read_json(made.layout.run(row).result)
    assert (result["status"], result["reason"]) == ("fail", "interrupted")
    assert validate.holds(made.spec, "phase4", "summaries") == []


def test_the_runbooks_commands_run_as_they_stand(made: Made) -> None:
    made.pytest("-n2")
    blocks = re.findall(r"^```bash\n(cd .*?)^```", made.layout.runbook.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "TRACKA_STANDIN": made.environ["TRACKA_STANDIN"],
        }
        subprocess.run(["bash", "-euc", block], env=environ, check=True, capture_output=True)
    assert (made.root / "replays" / "wide_b4_e4" / "eval_info.json").is_file()
    assert validate.validate(made.spec, strict=True) == []


def test_a_cache_that_cannot_be_written_stops_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(made.environ, "XDG_CACHE_HOME", str(made.layout.matrix))  # type: ignore[arg-type]
    assert made.pytest("-n2").returncode == 0
