"""The gates as a user runs them: `pytest acceptance` on a campaign whose lerobot-eval is a stand-in.

A scenario is run once and judged by many tests; a test that goes on with it does so with a copy.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import campaigns
import pytest
from campaigns import Made, judged
from processes import wait_until

from tracka.core import files
from tracka.gates import validate
from tracka.reporting import verdict

WORKERS = ["-n0", "-n2"]
LATER = ("-m", "phase3 or phase4 or phase5")
SOUND = {"baseline_b1_e2": ["slow:1"], "long_b1_e6": ["slow:2"], "wide_b4_e4": ["slow:2"]}
CRASHED = {"long_b1_e6": ["crash", "crash", "ok"], "wide_b4_e4": ["ok:3"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """Returns a campaign after its gates, which all tests share, so that none may meddle with it."""
    return partial(campaigns.finished, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def sound(finished: Callable[..., Made]) -> Mapping[str, Made]:
    """Sound campaigns after their gates without workers and with two; with two, each row takes its time."""
    return {"-n0": finished("passed"), "-n2": finished("sound", gates=("-n2",), **SOUND)}


@pytest.fixture(scope="module")
def crashed(finished: Callable[..., Made], prepared: Path) -> Mapping[str, Made]:
    """Campaigns whose longest row crashes twice, after their gates without workers and with two."""
    with_two = finished("crashed", gates=("-n2", *LATER), before=prepared, **CRASHED)
    return {"-n0": finished("partial", long_b1_e6=["crash"]), "-n2": with_two}


@pytest.fixture(scope="module")
def killed(finished: Callable[..., Made], prepared: Path) -> Made:
    """A campaign one of whose two workers was killed in a row, which passes when it is tried again."""
    return finished("killed", gates=("-n2", *LATER), before=prepared, wide_b4_e4=["kill_harness", "ok"])


@pytest.fixture(scope="module")
def odd(finished: Callable[..., Made]) -> Made:
    """A campaign after its gates with one worker, where EGL fails and the cache cannot be written."""
    environ = {"TRACKA_STANDIN_BROKEN_GL": "egl", "XDG_CACHE_HOME": os.devnull}
    return finished("odd", gates=("-n1",), environ=environ)


@pytest.fixture
def passed(sound: Mapping[str, Made], copy_of: Callable[[Made], Made]) -> Made:
    """A copy of a sound campaign after its gates, to go on with."""
    return copy_of(sound["-n0"])


def status(made: Made, phase: str) -> str:
    return str(files.read_json(made.layout.handoff(phase))["status"])


def statuses(made: Made) -> list[str]:
    return [status(made, f"phase{number}") for number in range(1, 6)]


def closing_line(ended: subprocess.CompletedProcess[str]) -> str:
    """pytest's closing line."""
    return ended.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("workers", WORKERS)
def test_a_sound_campaign_passes_all_five_gates(
    sound: Mapping[str, Made], workers: str, copy_of: Callable[[Made], Made]
) -> None:
    ended = judged(sound[workers])
    assert ended.returncode == 0, ended.stdout
    assert statuses(sound[workers]) == ["pass"] * 5
    assert f"verdict: {verdict.NO_THRESHOLD}" in ended.stdout
    assert validate.validate(copy_of(sound[workers]).spec, strict=True) == []


@pytest.mark.parametrize("workers", WORKERS)
def test_each_enabled_row_is_evaluated_once_and_the_baseline_is_not_repeated(
    sound: Mapping[str, Made], workers: str
) -> None:
    assert sorted(sound[workers].started()) == ["baseline_b1_e2", "long_b1_e6", "wide_b4_e4"]


def test_rows_wait_for_the_phase_before_and_run_side_by_side(sound: Mapping[str, Made]) -> None:
    journal = sound["-n2"].journal()
    assert journal[:2] == ["baseline_b1_e2 1 start", "baseline_b1_e2 1 end"]
    assert sorted(journal[2:4]) == ["long_b1_e6 1 start", "wide_b4_e4 1 start"]


@pytest.mark.slow
def test_the_longest_row_starts_first(odd: Made) -> None:
    assert odd.started() == ["baseline_b1_e2", "long_b1_e6", "wide_b4_e4"]


def test_a_killed_worker_costs_its_row_alone_and_the_next_call_resumes_it(
    killed: Made, copy_of: Callable[[Made], Made]
) -> None:
    assert judged(killed).returncode == 1
    assert statuses(killed) == ["pass", "pass", "pass", "partial", "partial"]
    made = copy_of(killed)
    assert made.pytest("-n0", "--lf").returncode == 0
    first = files.read_json(made.layout.run("wide_b4_e4").attempt(1).result)
    assert (first["status"], first["reason"]) == ("fail", "interrupted")
    assert made.started().count("long_b1_e6") == 1


@pytest.mark.parametrize("workers", WORKERS)
def test_a_failed_row_makes_phase_4_partial_and_phase_5_fail(crashed: Mapping[str, Made], workers: str) -> None:
    ended, made = judged(crashed[workers]), crashed[workers]
    assert ended.returncode == 1
    assert statuses(made) == ["pass", "pass", "pass", "partial", "partial"]
    assert "long_b1_e6" in (made.layout.summary / "failures.csv").read_text()
    assert "the run failed (crash)" in ended.stdout


@pytest.mark.parametrize("workers", WORKERS)
def test_a_failed_row_was_tried_twice_and_both_attempts_are_kept(crashed: Mapping[str, Made], workers: str) -> None:
    run = crashed[workers].layout.run("long_b1_e6")
    assert run.numbers() == [1, 2]
    assert [files.read_json(run.attempt(number).manifest)["retry_index"] for number in (1, 2)] == [0, 1]


def test_last_failed_runs_that_row_alone_and_then_closes(
    crashed: Mapping[str, Made], copy_of: Callable[[Made], Made]
) -> None:
    made = copy_of(crashed["-n2"])
    before = len(made.started())
    ended = made.pytest("-n2", "--lf")
    assert ended.returncode == 0, ended.stdout
    assert made.started()[before:] == ["long_b1_e6"]
    assert "| long_b1_e6 | libero_object | pass |" in made.layout.results.read_text()
    assert statuses(made) == ["pass"] * 5


def test_a_second_call_judges_passed_rows_without_running_them(passed: Made) -> None:
    before = passed.started()
    ended = passed.pytest("-n0")
    assert ended.returncode == 0
    assert passed.started() == before


@pytest.mark.slow
def test_phase_4_alone_takes_the_handoffs_from_the_disk(passed: Made) -> None:
    passed.behave(wide_b4_e4=["crash"])
    ended = passed.pytest("-n2", "-m", "phase4")
    assert ended.returncode == 0, ended.stdout
    assert "5 passed" in closing_line(ended)


def test_a_blocked_baseline_blocks_what_follows_and_says_why(ready: Made) -> None:
    ready.behave(baseline_b1_e2=["crash"])
    ended = ready.pytest("-n0", *LATER)
    assert ended.returncode == 1
    assert statuses(ready) == ["pass", "pass", "blocked", "blocked", "blocked"]
    assert set(ready.started()) == {"baseline_b1_e2"}
    assert "phase4 is blocked" in ended.stdout
    assert str(ready.layout.handoff("phase3")) in ended.stdout


def test_without_a_backend_preflight_blocks_with_both_attempts(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKA_STANDIN_BROKEN_GL", "egl,glx")
    ended = made.pytest("-n0")
    assert ended.returncode == 1
    assert statuses(made) == ["pass", "blocked", "blocked", "blocked", "blocked"]
    report = files.read_json(made.layout.preflight_report)
    assert [attempt["backend"] for attempt in report["backend_attempts"]] == ["egl", "glx"]
    assert report["mujoco_gl_effective"] is None
    assert made.started() == []


def test_where_egl_fails_the_rows_run_with_glx(odd: Made) -> None:
    assert judged(odd).returncode == 0
    manifest = files.read_json(odd.layout.run("long_b1_e6").manifest)
    assert (manifest["mujoco_gl"], manifest["mujoco_gl_requested"]) == ("glx", "egl")
    assert manifest["env"]["MUJOCO_GL"] == "glx"


def test_a_missing_predecessor_fails_with_the_marker_it_looked_for(made: Made) -> None:
    ended = made.pytest("-n0", "-m", "phase3")
    assert ended.returncode == 1
    assert "the handoff of phase2 does not exist" in ended.stdout
    assert str(made.layout.handoff("phase2")) in ended.stdout


@pytest.mark.slow
def test_a_matrix_that_changed_after_its_gates_blocks_until_they_run_again(passed: Made) -> None:
    with passed.layout.matrix.open("a") as matrix:
        matrix.write("new_b1_e1,libero_object,1,1,cpu,9,egl,checkpoints/fake,1\n")
    assert "has changed since phase3 was accepted" in passed.pytest("-n0", "-m", "phase4").stdout
    assert passed.pytest("-n0").returncode == 0
    assert passed.started()[-1] == "new_b1_e1"


@pytest.mark.slow
def test_a_row_that_passed_with_other_settings_is_refused_until_overwriting_is_allowed(passed: Made) -> None:
    passed.configure("[rows.long_b1_e6]\nepisode_length = 9")
    ended = passed.pytest("-n0")
    assert ended.returncode == 1
    assert "--allow-overwrite" in ended.stdout
    assert passed.pytest("-n2", *LATER, "--allow-overwrite").returncode == 0
    assert passed.started().count("long_b1_e6") == 2
    assert passed.layout.run("long_b1_e6").numbers() == [1, 2]


def test_a_rate_below_the_threshold_fails_the_gate_and_is_judged_again_without_a_run(
    tmp_path_factory: pytest.TempPathFactory, copy_of: Callable[[Made], Made]
) -> None:
    below = campaigns.below_threshold(tmp_path_factory.getbasetemp())
    assert judged(below).returncode == 1
    assert "the success rate is 0.500, but the threshold is 0.750" in judged(below).stdout
    assert "below_threshold" in (below.layout.summary / "failures.csv").read_text()
    made = copy_of(below)
    assert made.pytest("-n0", "--lf").returncode == 1
    assert made.started() == below.started()


def test_junit_carries_what_a_reader_asks_of_a_run(crashed: Mapping[str, Made]) -> None:
    root = crashed["-n2"].root
    cases = {case.get("name"): case for case in ElementTree.parse(root.parent / "junit.xml").iter("testcase")}
    found = {item.get("name"): item.get("value") for item in cases["test_row[wide_b4_e4]"].iter("property")}
    assert found["run_id"] == "wide_b4_e4"
    assert found["device"] == "cpu"
    assert float(found["success_rate"] or "nan") == 0.75
    assert (root / str(found["result"])).is_file()
    assert (root / str(found["stderr_log"])).is_file()


@pytest.mark.parametrize("workers", [pytest.param("-n0", marks=pytest.mark.slow), "-n2"])
def test_stopping_at_the_first_failure_still_hands_over_what_is_there(ready: Made, workers: str) -> None:
    ready.behave(baseline_b1_e2=["crash"])
    ready.pytest(workers, "-x", *LATER)
    assert status(ready, "phase3") == "blocked"


def test_a_bad_campaign_is_refused_whole_before_anything_starts(made: Made) -> None:
    made.layout.matrix.write_text(made.layout.matrix.read_text() + "long_b1_e6,moon,0,x,cpu,7,egl,p,1\n")
    ended = made.pytest("-n2")
    assert ended.returncode == 4
    for column in ("run_id", "task_suite", "batch_size", "n_episodes"):
        assert f"line 6, column {column}" in ended.stderr
    assert not made.layout.artifacts.exists()


def test_handoffs_say_what_was_given_made_and_found(crashed: Mapping[str, Made]) -> None:
    handoffs = [crashed["-n2"].layout.handoff(f"phase{number}") for number in range(1, 5)]
    one, two, three, four = map(files.read_json, handoffs)
    assert "artifacts/state/cli_capabilities.json" in one["outputs"]
    assert two["details"]["mujoco_gl_effective"] == "egl"
    assert (three["details"]["run_id"], three["details"]["exit_code"]) == ("baseline_b1_e2", 0)
    assert (four["details"]["completed_rows"], four["details"]["failed_rows"]) == (2, 1)
    assert json.dumps(four["notes"]).count("long_b1_e6") >= 1


@pytest.mark.slow
def test_a_matrix_edited_while_the_gates_run_is_not_accepted(ready: Made) -> None:
    ready.behave(baseline_b1_e2=["slow:2"])
    gates = ready.start("-n2", *LATER)
    wait_until(lambda: "baseline_b1_e2" in ready.started())
    with ready.layout.matrix.open("a") as matrix:
        matrix.write("late_b1_e1,libero_object,1,1,cpu,9,egl,checkpoints/fake,1\n")
    assert gates.wait() == 1
    assert "late_b1_e1" not in ready.started()
    assert ready.pytest("-n0").returncode == 0
    assert "late_b1_e1" in ready.started()


@pytest.mark.slow
def test_a_second_session_on_a_campaign_is_refused_and_names_the_first(ready: Made) -> None:
    ready.behave(baseline_b1_e2=["slow:2"])
    gates = ready.start("-n0", *LATER)
    wait_until(lambda: "baseline_b1_e2" in ready.started())
    gates.send_signal(signal.SIGSTOP)  # so that it is still there when the second has started, however long that takes
    second = ready.pytest("-n0")
    gates.send_signal(signal.SIGCONT)
    assert second.returncode == 4
    assert f"held by process {gates.pid}" in second.stderr
    assert gates.wait() == 0


def test_a_phase_that_fails_takes_back_the_handoffs_that_stood_on_it(passed: Made) -> None:
    shutil.rmtree(passed.layout.run("wide_b4_e4").path)
    passed.behave(wide_b4_e4=["crash"])
    passed.pytest("-n0", "-m", "phase4")
    assert status(passed, "phase4") == "partial"
    assert not passed.layout.handoff("phase5").exists()


def test_phase_4_never_runs_the_baseline(passed: Made) -> None:
    passed.change_weights()
    before = len(passed.started())
    ended = passed.pytest("-n0", "-m", "phase4", "--allow-overwrite")
    assert ended.returncode == 1
    assert "baseline_b1_e2" not in passed.started()[before:]


def test_a_killed_workers_row_is_closed_before_the_session_ends(killed: Made) -> None:
    result = files.read_json(killed.layout.run("wide_b4_e4").result)
    assert (result["status"], result["reason"]) == ("fail", "interrupted")
    assert "interrupted" in (killed.layout.summary / "failures.csv").read_text()


@pytest.mark.parametrize("workers", [pytest.param("-n0", marks=pytest.mark.slow), "-n2"])
def test_an_interrupt_closes_its_rows_before_it_hands_over(ready: Made, workers: str) -> None:
    ready.behave(wide_b4_e4=["slow:60"], long_b1_e6=["slow:60"])
    gates = ready.start(workers, *LATER)
    wait_until(lambda: len(ready.started()) > 1)
    gates.send_signal(signal.SIGTERM)
    gates.wait()
    assert status(ready, "phase4") == "partial"
    row = ready.started()[1]
    result = files.read_json(ready.layout.run(row).result)
    assert (result["status"], result["reason"]) == ("fail", "interrupted")
    assert validate.contract_findings(ready.spec, "phase4", "summaries") == []


def test_the_runbooks_commands_run_as_they_stand(ready: Made) -> None:
    ready.pytest("-n0", *LATER)
    blocks = re.findall(r"^```bash\n(cd .*?)^```", ready.layout.runbook.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "TRACKA_STANDIN": ready.environ["TRACKA_STANDIN"],
        }
        subprocess.run(["bash", "-euc", block], env=environ, check=True, capture_output=True)
    assert (ready.root / "replays" / "wide_b4_e4" / "eval_info.json").is_file()
    assert validate.validate(ready.spec, strict=True) == []


def test_a_cache_that_cannot_be_written_stops_nothing(odd: Made) -> None:
    assert judged(odd).returncode == 0
