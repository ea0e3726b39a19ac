"""What a cluster says, judged without one: how a step ended, how jobs are named, what reaches a node."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from campaigns import REPOSITORY

from tracka.campaign.campaign import Campaign
from tracka.campaign.layout import Layout
from tracka.campaign.slurm_settings import SlurmSettings
from tracka.core.artifacts import StepEnd, StepRecord
from tracka.core.errors import ToolMissing
from tracka.execution import slurm, slurm_launch, slurm_outcome
from tracka.execution.process import Exit
from tracka.execution.slurm_launch import Launch
from tracka.execution.slurm_step import Step, StepRequest
from tracka.runs import slurm_row


def record(end: StepEnd | None) -> StepRecord:
    return {
        "schema_version": 1,
        "node": "node1",
        "job_id": "7",
        "step_id": "0",
        "restarts": 0,
        "gpu": None,
        "gpu_uuid": None,
        "variables": {},
        "started_at": 1.0,
        "end": end,
    }


def end(code: int = 0, stopped: str = "") -> StepEnd:
    return {"code": code, "stopped": stopped, "seconds": 5.0, "files": {}}


def outcome(tmp_path: Path, said: str, found: StepRecord | None, is_own: bool = True) -> str:
    (tmp_path / "stderr.log").write_text(said)
    return slurm_outcome.of(Exit(1, "", 9.0), found, [tmp_path / "stderr.log"], is_own).stopped


@pytest.fixture(autouse=True)
def stateless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_outcome, "_state", lambda job: "")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "slurmstepd: error: *** STEP 7.0 ON node1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***",
            "time_limit",
        ),
        (
            "slurmstepd-node1: error: *** JOB 7 ON node1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***",
            "preempted",
        ),
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM",
            "job_memory",
        ),
        ("slurmstepd-n: error: StepId=7.0 exceeded memory limit (328159232 > 52428800), being killed", "job_memory"),
        ("srun: error: Node failure on node1", "node_lost"),
        ("slurmstepd: error: *** STEP 7.0 ON node1 CANCELLED AT 2026-01-01T00:00:00 ***", "job_cancelled"),
    ],
)
def test_a_step_that_was_ended_from_outside_is_named_by_what_slurm_said(tmp_path: Path, said: str, reason: str) -> None:
    assert outcome(tmp_path, f"a line of the policy\n{said}\n", record(None)) == reason
    assert outcome(tmp_path, f"{said}\n", record(end(-15, "terminated"))) == reason


def test_what_a_program_prints_itself_names_nothing(tmp_path: Path) -> None:
    said = "srun: error: Node failure on node1\nslurmstepd: error: DUE TO PREEMPTION\n"
    assert outcome(tmp_path, said, record(end(1))) == ""
    assert outcome(tmp_path, "my log: oom-kill\n", record(end(-9))) == ""


def test_a_program_that_the_kernel_ended_for_its_memory_is_called_so_though_its_step_lived_on(tmp_path: Path) -> None:
    said = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0 cgroup.\n"
    assert outcome(tmp_path, said, record(end(-9))) == "job_memory"


def test_a_deadline_that_an_allocation_cut_short_is_no_timeout_of_the_row(tmp_path: Path) -> None:
    assert outcome(tmp_path, "", record(end(-15, "timeout"))) == "timeout"
    assert outcome(tmp_path, "", record(end(-15, "timeout")), is_own=False) == "time_limit"


def test_a_step_that_never_began_is_refused_or_cancelled(tmp_path: Path) -> None:
    refused = "srun: error: Unable to allocate resources: Invalid account or account/partition combination\n"
    assert outcome(tmp_path, refused, None) == "slurm_refused"
    assert outcome(tmp_path, "srun: Job allocation 3 has been revoked\n", None) == "job_cancelled"


def test_a_copy_of_a_folder_names_its_jobs_otherwise(tmp_path: Path) -> None:
    own = tmp_path / "own" / "artifacts"
    own.mkdir(parents=True)
    first = slurm_launch.name(own, "row")
    shutil.copytree(tmp_path / "own", tmp_path / "clone")
    assert first == slurm_launch.name(own, "row") != slurm_launch.name(tmp_path / "clone" / "artifacts", "row")


@pytest.mark.parametrize(
    ("text", "seconds"), [("10:00", 600), ("1:00:00", 3600), ("2-01:00:05", 176405), ("0:59", 59), ("0", 0)]
)
def test_a_duration_of_slurms_is_read_in_seconds(text: str, seconds: float) -> None:
    assert slurm_launch._seconds(text) == seconds


REQUEST = StepRequest(("true",), "/", "/tmp/record", "/tmp/none", 5.0, 1.0, 5.0)
LAUNCH = Launch("tracka-x-row", "a comment", 3, 12, True)


def test_only_named_variables_reach_a_node_and_the_options_are_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_JOBID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    settings = SlurmSettings(
        "gpu", "team", "high", "h100", memory_mib=500, container_image="a.sqsh", extra=("--nice=5",)
    )
    words = slurm_launch.words(LAUNCH, settings, REQUEST, {"PATH": "/bin", "HOME": "/h"})
    assert {"--export=HOME,PATH", "--partition=gpu", "--account=team", "--qos=high", "--constraint=h100"} <= set(words)
    assert {"--mem=500M", "--time=12", "--gres=gpu:1", "--container-image=a.sqsh", "--nice=5"} <= set(words)
    assert "--exact" not in words and "--comment=a comment" in words
    assert slurm_launch.environment({"PATH": "/bin"}) == {"PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf"}
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    inside = slurm_launch.words(LAUNCH, settings, REQUEST, {"PATH": "/bin"})
    assert "--exact" in inside and "--partition=gpu" not in inside and "--time=12" not in inside


def test_a_host_without_slurm_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="srun, squeue"):
        slurm.ask("squeue")


@pytest.mark.parametrize(
    ("variables", "attempts", "asked"),
    [({}, 0, [False]), ({"SLURM_JOB_ID": "7"}, 0, [True]), ({}, 1, [False, True])],
    ids=["login_node", "allocation", "begun_before"],
)
def test_a_row_that_was_not_begun_before_asks_slurm_once_what_is_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], attempts: int, asked: list[bool]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    campaign = Campaign(Layout(tmp_path), (), "", 0, launcher="slurm")
    for number in range(attempts):
        campaign.layout.run("row").attempt(number + 1).path.mkdir(parents=True)
    questions: list[tuple[str, ...]] = []
    monkeypatch.setattr(slurm, "ask", lambda *words: questions.append(words) or "")
    slurm_row.end_left_behind(campaign, "row")
    assert [question[0] for question in questions] == ["squeue"] * len(asked)
    assert ["-s" in question for question in questions] == asked  # whether steps are asked for, or jobs


def test_a_step_that_asks_for_a_gpu_and_gets_none_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    path = tmp_path / "step.json"
    values = (str(path), str(tmp_path / "none"), 5.0, 1.0, 5.0, False, True)
    assert Step(StepRequest((sys.executable, "-c", ""), str(tmp_path), *values)).run() == 3
    assert json.loads(path.read_text())["end"]["stopped"] == "no_device"


def test_without_a_cluster_the_tests_that_need_one_say_that_they_did_not_run(tmp_path: Path) -> None:
    words = ["-m", "pytest", "tests/slurm", "-m", "slurm", "-k", "refuses", "-rs", "-p", "no:cacheprovider"]
    environ = {**os.environ, "PATH": str(tmp_path)}
    ended = subprocess.run([sys.executable, *words], cwd=REPOSITORY, env=environ, capture_output=True, text=True)
    assert ended.returncode == 0 and "did not run: " in ended.stdout, ended.stdout + ended.stderr
