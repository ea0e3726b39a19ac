"""However a session of the gates ends, its jobs end with it, and the clone of a campaign touches no job of another."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY, SETTINGS, Made
from processes import wait_until
from slurm_cluster import Cluster
from test_outcomes import ROW, ROWS, end_of, nothing_is_left, playing

from fixtures import terminal
from fixtures.terminal import Terminal, close_terminal, press_twice
from tracka.core import files
from tracka.execution import slurm_launch
from tracka.gates import handoff

pytestmark = pytest.mark.slurm
BASELINE, FAILING, SLOW = "baseline_b1_e2", "row1_b1_e2", ("row2_b1_e2", "row3_b1_e2")
LATER = "row4_b1_e1"  # the shortest, so the last to begin
LINES = [f"{run_id},libero_object,1,2,cpu,7,egl,checkpoints/fake,1" for run_id in (BASELINE, FAILING, *SLOW)]
LINES.append(f"{LATER},libero_object,1,1,cpu,7,egl,checkpoints/fake,1")
PLAYED = (FAILING, *SLOW)
PHASE = ("-m", "phase4", "-n3", "--launcher", "slurm", "-p", "no:cacheprovider")
PATIENT = SETTINGS.replace("row_secs = 60", "row_secs = 900")
NOBODY = 65534
START_SECS = 240.0  # for a session to begin its rows, and to end, on a machine that does much else


@pytest.fixture
def begun(cluster: Cluster, make_campaign: Callable[..., Made]) -> Made:
    """A campaign after phases 1 to 3, which ran on this host, with rows that would take minutes."""
    made = make_campaign(LINES, f"{PATIENT}\n[slurm]\ncpus = 1\nmemory_mib = 200\nlost_secs = 5\n")
    made.behave(**{run_id: ["slow:200"] for run_id in PLAYED})
    made.pass_preflight()
    assert made.run_row(BASELINE)["status"] == "pass"
    assert handoff.hand_over(made.spec, "phase3")["status"] == "pass"
    return made


@contextmanager
def session(made: Made) -> Iterator[Terminal]:
    """Runs phase 4 on a terminal of its own, with a worker a row, until all rows play."""
    command = [sys.executable, "-m", "pytest", "acceptance", "--campaign", str(made.root), *PHASE]
    environ = {**os.environ, **made.environ}
    with terminal.opened(command, REPOSITORY, environ) as screen:
        wait_until(lambda: set(PLAYED) <= set(made.started()) or screen.process.poll() is not None, START_SECS)
        assert screen.process.poll() is None, screen.end()
        yield screen


@pytest.mark.parametrize("end", [press_twice, close_terminal], ids=["two_ctrl_c", "closed_terminal"])
def test_a_session_that_is_ended_takes_its_jobs_along(
    begun: Made, cluster: Cluster, end: Callable[[Terminal], None]
) -> None:
    with session(begun) as screen:
        end(screen)
        nothing_is_left(begun, cluster, 60)
    assert {begun.results(run_id)[-1] for run_id in SLOW} == {("fail", "interrupted")}


def test_after_the_first_failure_under_x_no_further_row_takes_a_job_and_those_under_way_are_ended(
    begun: Made, cluster: Cluster
) -> None:
    gates = begun.start(*PHASE, "-x")
    try:
        wait_until(lambda: FAILING in begun.started() or gates.poll() is not None, START_SECS)
        (job,) = [line for line in cluster.ask("squeue", "-h", "-o", "%i %j").splitlines() if FAILING in line]
        wait_until(lambda: set(PLAYED) <= set(begun.started()), START_SECS)
        cluster.ask("scancel", job.split()[0])  # this row fails, and is not tried again
        assert gates.wait(START_SECS) != 0
    finally:
        gates.terminate()
    nothing_is_left(begun, cluster, 60)
    assert begun.results(FAILING) == [("fail", "job_cancelled")]
    assert [begun.results(run_id) for run_id in SLOW] == [[("fail", "session_stop")]] * 2
    assert LATER not in begun.started() and begun.statuses()[LATER] == ("pending", None)


def test_a_row_on_a_node_that_is_drained_plays_to_its_end_and_the_next_one_goes_elsewhere(
    on_slurm: Callable[..., Made], cluster: Cluster
) -> None:
    made = on_slurm(ROWS, **{ROW: ["slow:4"]})
    with playing(made, cluster) as harness:
        node = cluster.ask("squeue", "-h", "-o", "%N").strip()
        cluster.ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
        end_of(harness)
    assert made.results(ROW) == [("pass", None)]
    assert made.run_row(BASELINE)["status"] == "pass"
    assert files.read_json(made.layout.run(BASELINE).manifest)["slurm"]["node"] != node
    cluster.heal()


def test_a_clone_of_a_campaign_leaves_the_jobs_of_the_other_alone(
    on_slurm: Callable[..., Made], cluster: Cluster, tmp_path: Path
) -> None:
    """The clone has the same name, the same marker of a row under way and the same token file; its path differs."""
    made = on_slurm(ROWS, **{ROW: ["slow:200"]})
    with playing(made, cluster):
        (before,) = cluster.ask("squeue", "-h", "-o", "%i %j").splitlines()
        root = Path(shutil.copytree(made.root, tmp_path / "elsewhere" / made.root.name))
        clone = Made(root, campaigns.environment(root))
        clone.behave()
        end_of(clone.start_row(ROW))
        assert clone.results(ROW)[-1] == ("pass", None)
        assert cluster.ask("squeue", "-h", "-o", "%i %j").splitlines() == [before]
    nothing_is_left(made, cluster, 60)
    assert clone.results(ROW)[0] == ("fail", "interrupted")  # as the copy shows it: without its harness


def test_a_job_of_another_user_with_the_same_name_is_left_alone(
    on_slurm: Callable[..., Made], cluster: Cluster
) -> None:
    made = on_slurm(ROWS)
    name = slurm_launch.name(made.layout.artifacts, ROW)
    words = ("sbatch", "--parsable", f"--uid={NOBODY}", "-D", "/", "-n1", "-J", name, "-o", "/dev/null")
    job = cluster.ask(*words, "--begin=now+1hour", "--wrap", "sleep 90").strip()
    assert made.run_row(ROW)["status"] == "pass"
    assert cluster.ask("squeue", "-h", "-o", "%i %j").split() == [job, name]
    cluster.heal()
