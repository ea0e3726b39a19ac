"""Whatever ends a row on a cluster has a name of its own, and leaves no job and no process behind."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from campaigns import Made
from processes import of_campaign, wait_for_the_end_of, wait_until
from slurm_cluster import NODES, Cluster

from tracka.core import files
from tracka.execution import shared_folder, slurm, slurm_launch, slurm_outcome
from tracka.reporting.live_state import Watcher
from tracka.reporting.live_words import cells, line
from tracka.runs.session_rows import SessionRows

pytestmark = pytest.mark.slurm
ROW = "row_b2_e2"
ROWS = [
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    f"{ROW},libero_object,2,2,cpu,7,egl,checkpoints/fake,1",
]


@contextmanager
def playing(made: Made, cluster: Cluster) -> Iterator["subprocess.Popen[str]"]:
    """Starts the row in a process of its own, and waits until its program runs on a node."""
    harness = made.start_row(ROW)
    try:
        wait_until(lambda: ROW in made.started() or harness.poll() is not None, 60)
        assert harness.poll() is None, harness.communicate()
        yield harness
    finally:
        harness.kill()
        harness.communicate()
        wait_for_the_end_of(made.root)


def end_of(harness: "subprocess.Popen[str]", seconds: float = 120) -> str:
    """Waits for the end of a harness and returns what it printed."""
    out, errors = harness.communicate(timeout=seconds)
    return out + errors


def job_of(cluster: Cluster) -> str:
    """Returns the number of the one job that there is."""
    (job,) = cluster.ask("squeue", "-h", "-o", "%i").split()
    return job


def nothing_is_left(made: Made, cluster: Cluster, seconds: float = 20) -> None:
    wait_until(lambda: cluster.jobs() == [], seconds)
    wait_until(lambda: of_campaign(made.root) == [], seconds)


def test_a_job_that_is_cancelled_from_outside_is_called_so_and_not_tried_again(
    on_slurm: Callable[..., Made], cluster: Cluster
) -> None:
    made = on_slurm(ROWS, **{ROW: ["slow:60"]})
    with playing(made, cluster) as harness:
        cluster.ask("scancel", job_of(cluster))
        end_of(harness)
    assert made.results(ROW) == [("fail", "job_cancelled")]
    nothing_is_left(made, cluster)
    manifest = files.read_json(made.layout.run(ROW).manifest)
    assert manifest["slurm"]["node"] in NODES and manifest["slurm"]["job_id"].isdigit()


def test_a_job_that_takes_too_much_memory_is_tried_once_more_with_half_the_batch(
    on_slurm: Callable[..., Made], cluster: Cluster
) -> None:
    made = on_slurm(ROWS, **{ROW: ["hoard:600", "ok"]})
    with playing(made, cluster) as harness:
        end_of(harness)
    assert made.results(ROW) == [("fail", "job_memory"), ("pass", None)]
    assert files.read_json(made.layout.run(ROW).manifest)["batch_size"] == 1
    nothing_is_left(made, cluster)


def test_a_preempted_job_is_called_so_and_tried_once_more(on_slurm: Callable[..., Made], cluster: Cluster) -> None:
    made = on_slurm(ROWS, **{ROW: ["slow:60", "ok"]})
    with playing(made, cluster) as harness:
        cluster.ask("sbatch", "-p", "urgent", "-N2", "--exclusive", "--mem=0", "-o", "/dev/null", "--wrap", "sleep 4")
        end_of(harness)
    assert made.results(ROW) == [("fail", "preempted"), ("pass", None)]
    nothing_is_left(made, cluster)


def test_a_node_that_is_lost_is_called_so_and_the_row_runs_on_another(
    on_slurm: Callable[..., Made], cluster: Cluster
) -> None:
    made = on_slurm(ROWS, **{ROW: ["slow:90", "ok"]})
    with playing(made, cluster) as harness:
        node = cluster.ask("squeue", "-h", "-o", "%N").strip()
        cluster.kill(node)
        end_of(harness)
    assert made.results(ROW) == [("fail", "node_lost"), ("pass", None)]
    assert files.read_json(made.layout.run(ROW).manifest)["slurm"]["node"] != node
    cluster.heal()


def test_a_job_that_never_starts_says_for_what_it_waits_and_is_given_up(
    on_slurm: Callable[..., Made], cluster: Cluster
) -> None:
    made = on_slurm(ROWS, "wait_secs = 12\n")
    for node in NODES:
        cluster.ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    watch = Watcher(made.spec, SessionRows([made.spec.row(ROW)], ("gw0",), phase="phase4"))
    watch.session.begin(ROW)
    harness = made.start_row(ROW)
    wait_until(lambda: "is pending: " in line(watch.look()), 60)
    state = watch.look()
    (busy,) = state.busy
    end_of(harness)
    assert any(word in line(state) for word in ("DRAINED", "ReqNodeNotAvail", "Resources")), line(state)
    assert busy.device == "Slurm" and cells(busy)[3] == busy.doing and f"{ROW} job " in line(state)
    assert made.results(ROW) == [("fail", "never_started")]
    nothing_is_left(made, cluster)
    cluster.heal()


def test_what_slurm_refuses_is_told_in_its_own_words(on_slurm: Callable[..., Made], cluster: Cluster) -> None:
    made = on_slurm(ROWS, 'partition = "nowhere"\n')
    made.run_row(ROW)
    assert made.results(ROW) == [("fail", "slurm_refused")]
    assert "Invalid partition" in files.read_json(made.layout.run(ROW).result)["error_message"]


def test_a_lost_controller_keeps_a_row_from_starting(
    on_slurm: Callable[..., Made], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = on_slurm(ROWS)
    cluster.kill("slurmctld")
    monkeypatch.setattr(slurm, "PATIENCE_SECS", 2.0)
    with pytest.raises(slurm.TrackaError, match="controller cannot be asked"):
        made.run_row(ROW)
    assert made.results(ROW) == [("fail", "controller_lost")]
    cluster.heal()


def test_a_row_outlives_a_controller_that_is_restarted(on_slurm: Callable[..., Made], cluster: Cluster) -> None:
    made = on_slurm(ROWS, **{ROW: ["slow:4"]})
    with playing(made, cluster) as harness:
        cluster.kill("slurmctld")
        time.sleep(6)
        cluster.control("slurmctld")
        end_of(harness)
    assert made.results(ROW) == [("pass", None)]
    nothing_is_left(made, cluster)


def test_a_row_out_of_time_is_ended_on_its_node_by_its_own_deadline(
    on_slurm: Callable[..., Made], cluster: Cluster
) -> None:
    made = on_slurm(ROWS, f"[rows.{ROW}]\ntimeout_secs = 3\n", **{ROW: ["stubborn", "ok"]})
    with playing(made, cluster) as harness:
        end_of(harness)
    assert made.results(ROW) == [("fail", "timeout"), ("pass", None)]
    nothing_is_left(made, cluster)


@pytest.mark.slow
def test_the_limit_of_an_allocation_is_called_so(on_slurm: Callable[..., Made], cluster: Cluster) -> None:
    made = on_slurm(ROWS, f"[rows.{ROW}]\ntimeout_secs = 600\n", **{ROW: ["slow:600"]})
    with playing(made, cluster) as harness:
        cluster.ask("scontrol", "update", f"jobid={job_of(cluster)}", "timelimit=1")
        end_of(harness, 240)
    assert made.results(ROW) == [("fail", "time_limit")]
    nothing_is_left(made, cluster)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_harness_that_ends_takes_its_job_along(
    on_slurm: Callable[..., Made], cluster: Cluster, number: signal.Signals
) -> None:
    made = on_slurm(ROWS, **{ROW: ["slow:60", "ok"]})
    with playing(made, cluster) as harness:
        harness.send_signal(number)
        nothing_is_left(made, cluster)
    made.run_row(ROW)
    assert made.results(ROW) == [("fail", "interrupted"), ("pass", None)]


def test_a_job_that_loses_its_harness_and_its_node_at_once_is_ended_too(
    on_slurm: Callable[..., Made], cluster: Cluster
) -> None:
    """Neither harness nor step is left to end the job, and Slurm would keep it until its time limit."""
    made = on_slurm(ROWS, **{ROW: ["slow:60"]})
    with playing(made, cluster) as harness:
        node = cluster.ask("squeue", "-h", "-o", "%N").strip()
        harness.kill()
        cluster.kill(node)
        cluster.heal_daemons()
        nothing_is_left(made, cluster, 60)


def test_a_step_that_hears_nothing_of_its_harness_ends_by_itself(
    on_slurm: Callable[..., Made], cluster: Cluster
) -> None:
    """As when the login node loses its power: harness, supervisor, guard and srun are all gone at once."""
    made = on_slurm(ROWS, **{ROW: ["slow:90"]})
    with playing(made, cluster) as harness:
        on_nodes = {pid for node in NODES for pid in cluster.of_node(node)}
        for pid in [harness.pid, *(set(of_campaign(made.root)) - on_nodes)]:
            subprocess.run(["kill", "-STOP", str(pid)], capture_output=True)
        began = time.monotonic()
        wait_until(lambda: not any(pid in on_nodes for pid in of_campaign(made.root)), 30)
        assert time.monotonic() - began > 3
        for pid in [harness.pid, *of_campaign(made.root)]:
            subprocess.run(["kill", "-KILL", str(pid)], capture_output=True)
        nothing_is_left(made, cluster)


def test_a_resumed_row_ends_the_jobs_of_its_own_folder_alone(on_slurm: Callable[..., Made], cluster: Cluster) -> None:
    made = on_slurm(ROWS)
    own, others = slurm_launch.name(made.layout.artifacts, ROW), f"tracka-{'0' * 12}-{ROW}"
    for name in (own, others):
        cluster.ask("sbatch", "-n1", "-J", name, "-o", "/dev/null", "--wrap", "sleep 90")
    wait_until(lambda: sum("RUNNING" in job for job in cluster.jobs()) == 2)
    assert made.run_row(ROW)["status"] == "pass"
    left = cluster.ask("squeue", "-h", "-o", "%j").split()
    assert left == [others]
    cluster.heal()


def test_files_that_are_never_seen_here_are_no_pass(
    on_slurm: Callable[..., Made], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = on_slurm(ROWS, "shared_secs = 1\n")
    monkeypatch.setattr(shared_folder, "_size", lambda path: -1)
    made.run_row(ROW)
    assert made.results(ROW) == [("fail", "not_shared")]


def test_each_outcome_has_a_remedy() -> None:
    assert all(len(remedy) > 20 for remedy in slurm_outcome.REMEDIES.values())
