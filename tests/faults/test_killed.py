"""Whatever is killed, nothing of ours lives on, the row is no pass, and the next call ends it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
from campaigns import REPOSITORY, Made
from processes import is_alive, of_campaign, wait_for_the_end_of, wait_until

from tracka.core import reading
from tracka.execution import orphans
from tracka.runs import row_state

ROW = "long_b1_e6"
GPU_ROW = "gpu_b1_e1"


@pytest.fixture
def gpus(ready: Made, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """The usual campaign with a row on one pretended GPU."""
    monkeypatch.setenv("TRACKA_PRETEND_GPUS", "1")
    monkeypatch.setenv("TRACKA_GPU_LOCKS", str(ready.root.parent / "locks"))
    with ready.layout.matrix.open("a") as matrix:
        matrix.write(f"{GPU_ROW},libero_object,1,1,auto,7,egl,checkpoints/fake,1\n")
    yield ready


def status(made: Made, run_id: str = ROW) -> str:
    state = row_state.read(made.layout, run_id)
    assert state is not None
    return str(state["status"])


def started(made: Made, word: str, run_id: str = ROW) -> subprocess.Popen[str]:
    """A harness whose row has begun and left a grandchild behind that has its own session."""
    made.behave(**{run_id: [word, "ok"]})
    harness = made.start_row(run_id)
    wait_until(lambda: bool(made.started()) and len(left_by(made, run_id)) == 1)
    return harness


def left_by(made: Made, run_id: str = ROW) -> list[int]:
    """The process id that the stand-in printed of its own child."""
    words = reading.tail(made.layout.run(run_id).stdout).split()
    return [int(word) for word in words if word.isdigit()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_harness_leaves_no_process_and_the_next_call_ends_its_row(ready: Made, number: int) -> None:
    harness = started(ready, "hang")
    harness.send_signal(number)
    harness.communicate(timeout=20)
    wait_for_the_end_of(ready.root)
    assert status(ready) != "pass"
    assert ready.run_row(ROW)["status"] == "pass"
    assert ready.results(ROW) == [("fail", "interrupted"), ("pass", None)]


def test_a_killed_xdist_worker_leaves_no_process_and_its_row_is_no_pass(ready: Made) -> None:
    ready.behave(**{ROW: ["kill_harness", "ok"]})
    ready.pytest("-n2", "-m", "phase3 or phase4")
    wait_for_the_end_of(ready.root)
    assert ready.results(ROW)[0] == ("fail", "interrupted")
    assert ready.run_row(ROW)["status"] == "pass"


@pytest.mark.slow
def test_a_killed_pytest_leaves_no_process_and_starts_no_further_row(ready: Made) -> None:
    words = ["slow:60", "ok"]
    ready.behave(baseline_b1_e2=["ok"], **{ROW: words}, wide_b4_e4=words)
    session = ready.start("-n2")
    wait_until(lambda: len(ready.started()) == 3, 60)
    session.kill()
    session.wait()
    wait_for_the_end_of(ready.root)
    time.sleep(1)
    assert (len(ready.started()), of_campaign(ready.root)) == (3, [])
    assert ready.pytest("-n2").returncode == 0
    assert ready.results(ROW) == [("fail", "interrupted"), ("pass", None)]


def test_a_killed_evaluation_is_called_so_and_tried_once_more(ready: Made) -> None:
    ready.behave(**{ROW: ["killed", "ok"]})
    assert ready.run_row(ROW)["status"] == "pass"
    assert ready.results(ROW) == [("fail", "killed"), ("pass", None)]


def test_a_killed_supervisor_takes_its_row_along_and_the_row_is_tried_once_more(ready: Made) -> None:
    ready.behave(**{ROW: ["kill_supervisor", "ok"]})
    assert ready.run_row(ROW)["status"] == "pass"
    assert ready.results(ROW) == [("fail", "killed"), ("pass", None)]
    assert of_campaign(ready.root) == []


def test_what_a_killed_supervisor_and_harness_leave_is_ended_before_the_row_runs_again(ready: Made) -> None:
    harness = started(ready, "hang")
    kill_both(ready, harness)
    (left,) = left_by(ready)
    assert is_alive(left)  # nobody was there to end it
    assert ready.run_row(ROW)["status"] == "pass"
    assert not is_alive(left)
    assert ready.results(ROW) == [("fail", "interrupted"), ("pass", None)]


def test_what_they_leave_is_ended_before_another_row_uses_the_gpu(gpus: Made) -> None:
    with gpus.layout.matrix.open("a") as matrix:
        matrix.write("other_b1_e1,libero_object,1,1,0,7,egl,checkpoints/fake,1\n")
    gpus.pass_preflight()
    harness = started(gpus, "hang", GPU_ROW)
    kill_both(gpus, harness)
    (left,) = left_by(gpus, GPU_ROW)
    assert is_alive(left)
    assert gpus.run_row("other_b1_e1")["status"] == "pass"
    assert not is_alive(left)


def test_what_a_killed_supervisor_and_harness_leave_is_ended_by_the_guard(ready: Made) -> None:
    harness = started(ready, "hang")
    harness.send_signal(signal.SIGSTOP)
    psutil.Process(ready.pids()[-1]).parent().kill()
    harness.kill()
    harness.communicate()
    wait_for_the_end_of(ready.root, 5)


def kill_both(made: Made, harness: subprocess.Popen[str]) -> None:
    """The harness is stopped first, so that it cannot sweep behind the supervisor, and the guard is killed first."""
    harness.send_signal(signal.SIGSTOP)
    supervisor = psutil.Process(made.pids()[-1]).parent()
    supervisor.parent().kill()
    supervisor.kill()
    harness.kill()
    harness.communicate()
    wait_until(lambda: not is_alive(made.pids()[-1]), 5)


def test_a_gpu_is_leased_until_the_last_process_of_its_row_has_ended(gpus: Made) -> None:
    gpus.pass_preflight()
    harness = started(gpus, "hang", GPU_ROW)
    journal = gpus.root.parent / "locks" / "GPU-pretended-0.journal"
    harness.kill()
    harness.communicate()
    assert gpus.run_row(GPU_ROW)["status"] == "pass"
    events = [line.split('"event": "')[1].split('"')[0] for line in journal.read_text().splitlines()]
    assert events == ["start", "end", "start", "end"]


def test_a_stopped_process_of_a_killed_harness_is_ended_too(ready: Made) -> None:
    harness = started(ready, "hang")
    os.kill(left_by(ready)[0], signal.SIGSTOP)
    harness.kill()
    harness.communicate()
    wait_for_the_end_of(ready.root)


WAITS = "import time; time.sleep(60)"


def test_processes_of_other_rows_and_campaigns_are_left_alone(ready: Made) -> None:
    harness = started(ready, "hang")
    marks = {orphans.ROW: str(ready.layout.run("wide_b4_e4").path)}
    with subprocess.Popen([sys.executable, "-c", WAITS], env=os.environ | marks, cwd=REPOSITORY) as other:
        harness.kill()
        harness.communicate()
        ready.run_row(ROW)
        assert other.poll() is None
        other.kill()
