"""A job of a row that nobody plays is ended by the next session, and no other job is."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from campaigns import Made
from processes import wait_until
from slurm_cluster import Cluster
from test_outcomes import ROW, ROWS, nothing_is_left, playing

from tracka.execution import slurm_launch
from tracka.runs import unplayed_jobs

pytestmark = pytest.mark.slurm
BASELINE = "baseline_b1_e2"
SAVE_SECS = 6.0  # after which the controller saves the next change at once


@pytest.fixture
def made(on_slurm: Callable[..., Made]) -> Made:
    return on_slurm(ROWS)


@contextmanager
def left_behind(cluster: Cluster, *names: str) -> Iterator[None]:
    """Has the cluster run a job of each name for as long as nobody ends it."""
    with ExitStack() as stack:
        for name in names:
            words = ["srun", "--mem=100M", f"--job-name={name}", "sleep", "1000"]
            srun = stack.enter_context(subprocess.Popen(words, stderr=subprocess.DEVNULL))
            stack.callback(srun.terminate)
        wait_until(lambda: running(cluster) >= set(names))
        yield


def running(cluster: Cluster) -> set[str]:
    return set(cluster.ask("squeue", "-h", "-t", "RUNNING", "-o", "%j").splitlines())


def name(made: Made, run_id: str) -> str:
    return slurm_launch.name(made.layout.artifacts, run_id)


def test_a_sweep_ends_the_job_of_a_row_that_has_passed_and_says_so(made: Made, cluster: Cluster) -> None:
    assert made.run_row(ROW)["status"] == "pass"
    with left_behind(cluster, name(made, ROW)):
        ended = made.tracka(*made.sweep_words("--rows", ROW, "--resume"))
        nothing_is_left(made, cluster)
    assert ended.returncode == 0, ended.stderr
    assert f"of row {ROW} was played by nobody and is ended" in ended.stderr


def test_gates_end_it_too_before_their_first_phase(made: Made, cluster: Cluster) -> None:
    with left_behind(cluster, name(made, ROW)):
        ended = made.pytest("-m", "phase1", "--launcher", "slurm")
        nothing_is_left(made, cluster)
    assert f"of row {ROW} was played by nobody and is ended" in ended.stdout


def test_jobs_of_other_folders_and_other_names_and_of_a_row_that_is_played_go_on(made: Made, cluster: Cluster) -> None:
    others = [name(made, ROW).replace("-", "-other", 1), name(made, f"{BASELINE}x"), "of_somebody"]
    made.behave(**{ROW: ["slow:60"]})
    with playing(made, cluster), left_behind(cluster, *others):
        assert unplayed_jobs.end(made.spec, made.spec.enabled) == []
        assert running(cluster) == {*others, name(made, ROW)}


def test_a_job_that_a_restarted_controller_takes_for_running_is_ended(
    on_slurm: Callable[..., Made], cluster: Cluster
) -> None:
    """The controller saves its state at most every five seconds: the job's start, and then not its end.

    A busy machine may be too slow for that, so there are several tries.
    """
    names = [f"row{number}_b1_e2" for number in range(4)]
    rows = [f"{run_id},libero_object,1,2,cpu,7,egl,checkpoints/fake,1" for run_id in (BASELINE, *names)]
    made = on_slurm(rows, **{run_id: ["slow:1.5"] for run_id in names})
    for run_id in names:
        time.sleep(SAVE_SECS)
        assert made.run_row(run_id)["status"] == "pass"
        cluster.kill("slurmctld")
        cluster.heal_daemons()
        if running(cluster) == {name(made, run_id)}:
            break
    else:
        raise AssertionError("no job was taken for running")
    assert len(unplayed_jobs.end(made.spec, made.spec.enabled)) == 1
    nothing_is_left(made, cluster)


def test_a_controller_that_does_not_answer_is_named_and_keeps_nothing_from_going_on(
    made: Made, cluster: Cluster
) -> None:
    cluster.kill("slurmctld")
    (line,) = unplayed_jobs.end(made.spec, made.spec.enabled)
    assert line.startswith("warning: jobs that nobody plays may be left of this campaign: slurmctld: ")
