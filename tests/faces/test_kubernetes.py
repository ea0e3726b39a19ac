"""`tracka k8s-manifest`: Jobs that Kubernetes' own schemas accept, and whose commands sweep and close a campaign."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from campaigns import REPOSITORY, Made, contents

VERSION = "1.33"  # the first in which retries of an index are stable
ROWS = ["baseline_b1_e2", "long_b1_e6", "wide_b4_e4"]
WORDS = ("--image", "example.org/tracka:1", "--shards", "2", "--gpus", "0")
Job = dict[str, Any]


def manifest(made: Made, *more: str) -> list[Job]:
    printed = made.call("k8s-manifest", str(made.root), *WORDS, *more)
    assert (printed.returncode, printed.stderr) == (0, "")
    return list(yaml.safe_load_all(printed.stdout))


def refused(job: Job) -> bool:
    try:
        kubernetes_validate.validate(job, VERSION, strict=True)
    except kubernetes_validate.ValidationError:
        return True
    return False


def container(job: Job) -> Job:
    (only,) = job["spec"]["template"]["spec"]["containers"]
    return dict(only)


def test_kubernetes_own_schemas_accept_every_job_and_know_a_wrong_one(made: Made) -> None:
    for more in ((), ("--queue", "gpus", "--secret", "hub", "--pods", "1"), ("--gpus", "8")):
        jobs = manifest(made, *more)
        assert [refused(job) for job in jobs] == [False, False, False]
    jobs[1]["spec"]["backoffLimitPerIndexes"] = 1
    container(jobs[0])["resources"]["limits"]["memory"] = [1]
    assert [refused(job) for job in jobs] == [True, True, False]


def test_the_sweep_is_an_indexed_job_with_a_shard_an_index(made: Made) -> None:
    prepare, sweep, close = manifest(made, "--shards", "16", "--pods", "4", "--gpus", "2")
    assert [job["metadata"]["name"] for job in (prepare, sweep, close)] == [
        "campaign-prepare",
        "campaign-sweep",
        "campaign-close",
    ]
    spec = sweep["spec"]
    assert [spec[key] for key in ("completionMode", "completions", "parallelism")] == ["Indexed", 16, 4]
    assert container(sweep)["command"][-1].endswith('--resume --shard "$((JOB_COMPLETION_INDEX + 1))/16"')
    assert "--max-parallel 2" in container(sweep)["command"][-1]


def test_an_index_is_tried_again_unless_its_rows_failed_or_the_input_is_bad(made: Made) -> None:
    spec = manifest(made)[1]["spec"]
    assert spec["backoffLimitPerIndex"] == 2
    actions = [
        (rule["action"], rule.get("onExitCodes", {}).get("values")) for rule in spec["podFailurePolicy"]["rules"]
    ]
    assert actions == [("Ignore", None), ("FailJob", [2]), ("FailIndex", [1])]


def test_gpus_are_limits_of_the_pods_that_play_and_not_of_the_one_that_judges(made: Made) -> None:
    limits = [container(job)["resources"]["limits"] for job in manifest(made, "--gpus", "4")]
    assert [each.get("nvidia.com/gpu") for each in limits] == [4, 4, None]


def test_kueue_queues_the_jobs_that_need_gpus_and_starts_them_itself(made: Made) -> None:
    jobs = manifest(made, "--queue", "gpus")
    labels = [job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") for job in jobs]
    assert (labels, [job["spec"].get("suspend") for job in jobs]) == (["gpus", "gpus", None], [True, True, None])
    assert [job["spec"].get("suspend") for job in manifest(made)] == [None, None, None]


def test_all_pods_have_the_volume_with_the_campaign_and_time_to_close_their_rows(made: Made) -> None:
    for job in manifest(made, "--claim", "evals", "--mount", "/data"):
        pod = job["spec"]["template"]["spec"]
        assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "evals"}
        assert container(job)["volumeMounts"][0]["mountPath"] == "/data"
        assert "/data/campaign" in container(job)["command"][-1]
        assert pod["terminationGracePeriodSeconds"] > made.spec.grace_secs


def test_what_a_cluster_cannot_give_is_refused_all_at_once(made: Made) -> None:
    with made.layout.matrix.open("a") as matrix:
        matrix.write("pinned,libero_object,1,1,3,7,egl,checkpoints/fake,1\n")
    before = contents(made.root)
    words = ("--claim", "My Volume", "--mount", "here", "--gpus", "1")
    ended = made.call("k8s-manifest", str(made.root), *WORDS, *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert [line.split(":")[1].split(",")[-1].strip() for line in ended.stderr.splitlines()] == [
        "column gpu_id",
        "--mount",
        "--claim",
    ]
    assert "rows pinned ask for a GPU that a pod with 1 does not have. Write auto" in ended.stderr
    assert contents(made.root) == before


@pytest.mark.slow
def test_the_commands_of_the_pods_take_a_campaign_from_nothing_to_its_verdict(made: Made, tmp_path: Path) -> None:
    """Each pod is a process here; the volume is this test's folder."""
    prepare, sweep, close = manifest(made, "--mount", str(tmp_path))
    assert pod(made, prepare).returncode == 0
    ended = [pod(made, sweep, index) for index in (0, 1)]
    assert [process.returncode for process in ended] == [0, 0], ended
    assert sorted(made.started()) == ROWS
    again = pod(made, sweep, 1)  # a pod that was started once more resumes
    assert again.returncode == 0 and sorted(made.started()) == ROWS
    closed = pod(made, close)
    assert closed.returncode == 0, closed.stdout + closed.stderr
    assert closed.stdout.splitlines()[:2] == ["phase4: pass", "phase5: pass"]
    assert sorted(made.started()) == ROWS


def pod(made: Made, job: Job, index: int = 0) -> subprocess.CompletedProcess[str]:
    words: Sequence[str] = container(job)["command"]
    environ = {**os.environ, **made.environ, "JOB_COMPLETION_INDEX": str(index)}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(words, cwd=REPOSITORY, env=environ, capture_output=True, text=True)
