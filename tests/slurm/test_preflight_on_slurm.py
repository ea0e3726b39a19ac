"""Preflight of a cluster: each type of node answers through the shared folder, and unlike nodes are named."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from campaigns import Made
from slurm_cluster import Cluster
from test_outcomes import ROWS

from tracka.core import files, schema
from tracka.preflight import blank_report, node_jobs, preflight
from tracka.preflight import cluster as cluster_checks
from tracka.preflight.node_jobs import Answer, NodeType

pytestmark = pytest.mark.slurm


def statuses(report: files.Json) -> dict[str, str]:
    return {check["name"]: check["status"] for check in report["checks"] if check["name"].startswith("slurm:")}


def evidence(report: files.Json, name: str) -> str:
    (found,) = [check["evidence"] for check in report["checks"] if check["name"] == name]
    return str(found)


def test_each_type_of_node_is_tried_by_a_job_that_answers_through_the_shared_folder(
    on_slurm: Callable[..., Made], cluster: Cluster
) -> None:
    made = on_slurm(ROWS)
    made.layout.settings.write_text(made.layout.settings.read_text().replace("memory_mib = 200", "memory_mib = 1800"))
    report = preflight.run_preflight(preflight.config_of(made.spec))
    preflight.write_preflight_report(report, made.layout.preflight_report)
    assert schema.read("preflight", made.layout.preflight_report)["status"] == "pass", report["blocker"]
    assert statuses(report) == dict.fromkeys(
        [
            *("slurm:controller", "slurm:job", "slurm:accounting", "slurm:node:node1", "slurm:node:node2"),
            *("slurm:shared", "slurm:locks", "slurm:alike"),
        ],
        "pass",
    )
    assert "no slurmdbd" in evidence(report, "slurm:accounting")
    assert "2 nodes and came back" in evidence(report, "slurm:shared")
    assert preflight.is_current(preflight.config_of(made.spec)) and cluster.jobs() == []
    ours = [made.layout.preflight / name for name in node_jobs.SNAPSHOTS]
    assert all(path.is_file() for path in ours)
    cluster.ask("scontrol", "update", "nodename=node2", "state=drain", "reason=test")
    assert not preflight.is_current(preflight.config_of(made.spec))
    cluster.heal()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('partition = "nowhere"', "Invalid partition"),
        ('gres = "gpu:99"', "Requested node configuration is not available"),
        ('constraint = "no_such_feature"', "Invalid feature"),
    ],
)
def test_a_job_that_slurm_would_refuse_blocks_before_anything_is_queued(
    on_slurm: Callable[..., Made], cluster: Cluster, line: str, said: str
) -> None:
    made = on_slurm([line.replace(",cpu,", ",auto,") for line in ROWS])
    made.layout.settings.write_text(made.layout.settings.read_text() + line + "\n")
    report = preflight.run_preflight(preflight.config_of(made.spec))
    assert report["status"] == "blocked" and statuses(report)["slurm:job"] == "fail"
    assert said in evidence(report, "slurm:job")
    assert schema.findings("preflight", report, "report") == [] and cluster.jobs() == []


def test_a_controller_that_is_away_blocks(on_slurm: Callable[..., Made], cluster: Cluster) -> None:
    made = on_slurm(ROWS)
    cluster.kill("slurmctld")
    report = preflight.run_preflight(preflight.config_of(made.spec))
    assert report["status"] == "blocked" and "controller" in (report["blocker"] or "")
    cluster.heal()


def answer(name: str, lock: str = "held", **facts: object) -> Answer:
    report = blank_report.make("egl")
    return Answer(NodeType((name,), "8 cores"), "", report, {"nonce": "x", "lock": lock, **facts})


def test_unlike_nodes_are_named_with_what_differs() -> None:
    checks = cluster_checks.node_checks(
        [answer("a", driver="550"), answer("b", driver="535"), answer("c", driver="550")]
    )
    (alike,) = [check for check in checks if check.name == "slurm:alike"]
    assert alike.status == "warn" and alike.evidence == "driver: a has 550, b has 535"


def test_locks_that_do_not_hold_across_nodes_and_a_folder_that_is_not_shared_block() -> None:
    loose, unseen = answer("a", lock="free"), replace(answer("b"), said={}, problem="its answer was not seen")
    checks = {check.name: check for check in cluster_checks.node_checks([loose, unseen])}
    assert checks["slurm:locks"].status == "fail" and "a could lock" in checks["slurm:locks"].evidence
    assert checks["slurm:shared"].status == "fail" and checks["slurm:node:b"].status == "fail"
    assert "flock" in (checks["slurm:locks"].remedy or "")


def test_no_node_that_takes_jobs_blocks() -> None:
    (check,) = cluster_checks.node_checks([])
    assert check.status == "fail" and check.required
