"""Processes of the resident engine that stand by: what rows share, what they do not, and how such a process ends."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import campaigns
import psutil
import pytest
from campaigns import REPOSITORY, Made

from fixtures.parity import environ
from tracka.core import files, lock
from tracka.core.errors import Busy
from tracka.execution import harness_session, lease, orphans, warm_process, warm_request

pytestmark = pytest.mark.simulator

SLOW = pytest.mark.slow
FLAGS = {
    "policy.device": "cpu",
    "policy.n_action_steps": 10,
    "env.type": "libero",
    "resident.workers": 1,
}
FIRST = {"env.task": "libero_object", "env.task_ids": "[1]", "eval.n_episodes": 2, "seed": 7}
SECOND = {"env.task": "libero_goal", "env.task_ids": "[0]", "eval.n_episodes": 3, "seed": 11}
SMALL = {
    "env.observation_height": 64,
    "env.observation_width": 64,
    "env.episode_length": 12,
    "eval.batch_size": 1,
    "resident.slots": 1,
}
LARGE = {
    "env.observation_height": 128,
    "env.observation_width": 128,
    "env.episode_length": 20,
    "eval.batch_size": 2,
    "resident.slots": 2,
}
LONG = FIRST | {"env.episode_length": 280, "eval.n_episodes": 40}
in_both_sizes = pytest.mark.parametrize("size", [SMALL, pytest.param(LARGE, marks=SLOW)], ids=["small", "large"])
ROWS = (
    "baseline_b1_e1,libero_object,1,1,cpu,7,egl,checkpoints/act,1",
    "next_b1_e2,libero_goal,1,2,cpu,8,egl,checkpoints/act,1",
    "nan,libero_object,1,1,cpu,7,egl,checkpoints/nan,1",
)
SETTINGS = """
schema_version = 1
baseline = "baseline_b1_e1"
expected_gpus = 0
engine = "resident"

[resident]
workers = 1

[build]
"checkpoints/act" = "tiny_act"
"checkpoints/nan" = "faulty nan 3"

[lerobot_eval]
policy_type = "act"
task_ids = [0]
episode_length = 20
observation_height = 128
observation_width = 128

[rows.nan]
policy_type = "faulty"
"""


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(orphans.SESSION, raising=False)
    with harness_session.hold():
        yield


def start(policy: Path, folder: Path, row: Mapping[str, object], told: Mapping[str, str]) -> subprocess.Popen[str]:
    named = FLAGS | {"policy.path": policy, "output_dir": folder} | row
    command = [sys.executable, "-m", "tracka.engines.resident", *(f"--{name}={value}" for name, value in named.items())]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=environ() | told, cwd=REPOSITORY
    )


def play(policy: Path, folder: Path, row: Mapping[str, object], told: Mapping[str, str]) -> str:
    """Plays to the end and returns stderr."""
    process = start(policy, folder, row, told)
    _, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]
    return errors


def told_of(wanted: str = "key") -> dict[str, str]:
    return warm_process.ensure_worker("cpu-0", wanted, REPOSITORY, environ())


def standing(told: Mapping[str, str]) -> frozenset[int]:
    return orphans.pids_with_mark(orphans.STANDS_BY, told[warm_request.SOCKET])


def ends(told: Mapping[str, str], seconds: float = 10) -> bool:
    """Whether who stands by, with all its environment processes, is gone in time."""
    end = time.monotonic() + seconds
    while standing(told) and time.monotonic() < end:
        time.sleep(0.05)
    return not standing(told)


def episodes(folder: Path) -> list[dict[str, object]]:
    """The lines of all episodes, but for when they ended."""
    lines = map(json.loads, (folder / "episodes.jsonl").read_text().splitlines())
    return sorted(({**line, "at_secs": None} for line in lines), key=lambda line: line["episode"])


def timings(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "timings.json").read_text()))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.repeated  # `make bench-standby` holds more rows against the same rows alone
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
def test_the_second_row_loads_nothing_and_plays_the_episodes_that_it_plays_alone(
    size: Mapping[str, object], tiny_act: Path, tmp_path: Path, session: None
) -> None:
    told = told_of()
    for name, row in (("first", FIRST), ("second", SECOND), ("third", FIRST)):
        assert "End of eval" in play(tiny_act, tmp_path / name, size | row, told)
        assert told_of() == told
    if size == SMALL:
        warm_process.end_worker(Path(told[warm_request.SOCKET]))
    play(tiny_act, tmp_path / "alone", size | SECOND, told if size == SMALL else {})
    assert episodes(tmp_path / "second") == episodes(tmp_path / "alone")
    assert episodes(tmp_path / "third") == episodes(tmp_path / "first")
    loads = [timings(tmp_path / name)["stages"]["policy_load"] for name in ("first", "second", "third", "alone")]  # type: ignore[index]
    assert loads[0] > 0 and loads[1:3] == [0, 0] and loads[3] > 0
    assert [timings(tmp_path / name)["evaluation"] for name in ("first", "second", "third", "alone")] == [1, 2, 3, 1]


def test_another_key_ends_who_stands_by_and_starts_another(session: None) -> None:
    first = standing(told_of())
    second = standing(told_of("another key"))
    assert first and second and not first & second
    assert standing(told_of("another key")) & second


@pytest.mark.slow  # in the small size the last row above plays so
def test_without_anybody_there_a_row_plays_by_itself(tiny_act: Path, tmp_path: Path, session: None) -> None:
    told = told_of()
    warm_process.end_worker(Path(told[warm_request.SOCKET]))
    play(tiny_act, tmp_path / "eval", LARGE | FIRST, told)
    assert timings(tmp_path / "eval")["evaluation"] == 1


def test_who_stands_by_on_a_gpu_keeps_it_occupied_and_ends_with_whoever_leases_it_for_something_else(
    session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKA_PRETEND_GPUS", "1")
    monkeypatch.setenv(lease.LOCKS, str(tmp_path / "locks"))
    with lease.hold(0, keep=True) as device:
        assert device.lock_file is not None
        assert device.uuid is not None
        told = warm_process.ensure_worker(device.uuid, "key", REPOSITORY, environ(), device.lock_file)
        occupied = warm_process.worker_lock_file(device.lock_file)
    with lease.hold(0, keep=True):
        assert standing(told)
        with pytest.raises(Busy), lock.hold(occupied, "the GPU"):
            pass
    with lease.hold(0), lock.hold(occupied, "the GPU"):
        assert not standing(told)


def test_rows_share_where_they_differ_in_suite_tasks_episodes_and_seed_alone() -> None:
    def key(batch: int = 2, policy: str = "act", **row: object) -> str:
        named = {"policy.path": policy, "eval.batch_size": 5} | FIRST | row
        return warm_process.key([f"--{name}={value}" for name, value in named.items()], {}, "proof", batch)

    assert key() == key(**SECOND, output_dir="elsewhere")
    assert key() != key(policy="pi0")
    assert key() != key(batch=5)  # lerobot-eval lowers a batch to the number of episodes
    assert key() != warm_process.key([], {}, "proof", 2) != warm_process.key([], {"MUJOCO_GL": "glx"}, "proof", 2)


def test_where_nobody_can_be_started_a_row_is_told_of_nobody(session: None) -> None:
    shutil.rmtree(os.environ[orphans.SESSION])
    assert told_of() == {}


def test_outside_a_session_nobody_stands_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(orphans.SESSION, raising=False)
    assert told_of() == {}


@in_both_sizes
def test_who_stands_by_ends_with_a_row_that_is_killed(
    size: Mapping[str, object], tiny_act: Path, tmp_path: Path, session: None
) -> None:
    told = told_of()
    row = start(tiny_act, tmp_path / "eval", size | LONG, told)
    while not (tmp_path / "eval" / "episodes.jsonl").exists():
        time.sleep(0.1)
    row.kill()
    row.communicate()
    assert ends(told)


@pytest.mark.slow
@pytest.mark.dose
def test_a_row_whose_process_is_killed_is_killed_too(tiny_act: Path, tmp_path: Path, session: None) -> None:
    told = told_of()
    row = start(tiny_act, tmp_path / "eval", LARGE | LONG, told)
    while not (tmp_path / "eval" / "episodes.jsonl").exists():
        time.sleep(0.1)
    warm_process.end_worker(Path(told[warm_request.SOCKET]))
    _, errors = row.communicate()
    assert row.returncode == -signal.SIGKILL and "was killed" in errors


@pytest.mark.slow
@pytest.mark.dose
def test_who_stands_by_ends_with_its_session_even_in_the_middle_of_a_row(tiny_act: Path, tmp_path: Path) -> None:
    code = "import os, sys, time\nfrom tracka.execution import harness_session\nwith harness_session.hold():\n"
    code += "    print(os.environ['TRACKA_SESSION'], flush=True)\n    time.sleep(600)"
    clean = {name: value for name, value in os.environ.items() if name != orphans.SESSION}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=clean) as owner:
        assert owner.stdout is not None
        folder = owner.stdout.readline().strip()
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv(orphans.SESSION, folder)
            told = told_of()
        row = start(tiny_act, tmp_path / "eval", LARGE | LONG, told)
        while not (tmp_path / "eval" / "episodes.jsonl").exists():
            time.sleep(0.1)
        owner.kill()
        assert ends(told)
    row.communicate()
    assert row.returncode != 0


def test_who_stands_by_stopped_ends_with_its_session_too() -> None:
    code = "import os, time\nfrom tracka.execution import harness_session\nwith harness_session.hold():\n"
    code += "    print(os.environ['TRACKA_SESSION'], flush=True)\n    time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv(orphans.SESSION, owner.stdout.readline().strip())
            told = told_of()
        warm_process_below_guard(told).suspend()
        owner.kill()
        assert ends(told)


def test_who_stands_by_ends_when_its_guard_is_killed(session: None) -> None:
    told = told_of()
    guard = warm_process_below_guard(told).parent()
    assert guard is not None
    guard.kill()
    assert ends(told)


def warm_process_below_guard(told: Mapping[str, str]) -> psutil.Process:
    """The process that plays, once it has come up."""
    while True:
        for process in map(psutil.Process, standing(told)):
            with contextlib.suppress(psutil.Error):
                if (parent := process.parent()) is not None and parent.pid in standing(told) and parent.ppid() == 1:
                    return process
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "value", "code", "why"),
    [("env.task_ids", "[77]", 1, "77"), ("eval.recording", "true", 2, "eval.recording")],
)
def test_a_row_that_fails_says_why_and_leaves_nobody(
    flag: str, value: str, code: int, why: str, tiny_act: Path, tmp_path: Path, session: None
) -> None:
    told = told_of()
    row = start(tiny_act, tmp_path / "eval", LARGE | FIRST | {flag: value}, told)
    _, errors = row.communicate()
    assert row.returncode == code and why in errors
    assert ends(told)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.repeated
def test_the_rows_of_a_sweep_share_one_load_whatever_another_policy_does_and_nobody_outlives_it(tmp_path: Path) -> None:
    made = Made(campaigns.make(tmp_path / "campaign", ROWS, SETTINGS).root, {})
    campaigns.pass_preflight_of_real_rows(made)
    swept = made.tracka(*made.sweep_words("--max-parallel", "1"))
    assert swept.returncode == 1, swept.stderr
    assert files.read_json(made.layout.run("nan").result)["reason"] == "bad_action"
    told = [timings(made.layout.run(run_id).attempt(1).output) for run_id in ("baseline_b1_e1", "next_b1_e2")]
    assert sorted(each["evaluation"] for each in told) == [1, 2]  # type: ignore[type-var]
    manifest = files.read_json(made.layout.run("next_b1_e2").manifest)
    assert orphans.SESSION not in manifest["env"] and warm_request.SOCKET not in manifest["env"]
    assert not [process.pid for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(made.root)]
