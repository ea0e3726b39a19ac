"""Whether the simulator is the benchmark's: what a settle probe finds, and what follows for rows and verdict."""

import json
import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from campaigns import REPOSITORY, SETTINGS, Made

from tracka.core import files
from tracka.core.files import Json
from tracka.core.lerobot_facts import SUITE_TASKS
from tracka.execution import environment
from tracka.preflight import preflight, simulator_validity

SETTLE = "TRACKA_STANDIN_SETTLE"


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def report_of(made: Made, accept: bool = False) -> Json:
    return preflight.run_preflight(preflight.config_of(made.spec), accept)


def check(report: Json, name: str) -> Json:
    [found] = [check for check in report["checks"] if check["name"] == name]
    return dict(found)


def probed(*words: str) -> list[Json]:
    """What the real probe prints."""
    command = [sys.executable, "-m", "tracka.preflight.probes.settle", *words]
    environ = environment.base() | {"MUJOCO_GL": "egl", "MUJOCO_EGL_DEVICE_ID": "0", "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def moved(monkeypatch: pytest.MonkeyPatch, change: Callable[[Json], None]) -> None:
    """Changes the committed table for this process and its children's stand-in, by task 3 of libero_object."""
    table = json.loads(simulator_validity.TABLE.read_text())
    change(table["suites"]["libero_object"]["3"])
    monkeypatch.setattr(simulator_validity, "table", lambda: table)


# what the probe finds


def test_a_place_that_is_no_number_is_the_largest_error_wherever_it_stands() -> None:
    here, nowhere = [[0.0, 0.0, 0.0]], [[math.nan, 0.0, 0.0]]
    for found in ({"a": here, "b": nowhere}, {"b": nowhere, "a": here}):
        assert math.isnan(simulator_validity.position_error(found, {"a": [[0.0, 0.0, 1.0]], "b": here}))
    assert simulator_validity.position_error({"a": here}, {"b": here}) == math.inf


def test_a_simulator_whose_objects_are_where_the_table_says_passes(made: Made) -> None:
    report = report_of(made)
    assert check(report, "simulator:libero_object")["status"] == "pass"
    assert "objects of 10 tasks are within 0.00 mm" in check(report, "simulator:libero_object")["evidence"]
    assert (report["invalid_tasks"], report["status"]) == ({}, "pass")


def test_one_task_whose_objects_are_elsewhere_is_named_and_blocks(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTLE, "libero_object/3:0.034")
    report = report_of(made)
    found = check(report, "simulator:libero_object")
    assert (found["status"], report["status"]) == ("fail", "blocked")
    assert found["evidence"].startswith("task 3: ") and "is 34.0 mm off" in found["evidence"]
    assert "mujoco==3.3.7" in found["remedy"] and "--accept-invalid-sim" in found["remedy"]
    assert list(report["invalid_tasks"]["libero_object"]) == ["3"]


@pytest.mark.parametrize("share", [0.9, 1.1])
def test_the_tolerance_decides(made: Made, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.setenv(SETTLE, f"libero_object/3:{share * simulator_validity.table()['tolerance']}")
    assert check(report_of(made), "simulator:libero_object")["status"] == ("pass" if share < 1 else "fail")


def test_a_place_that_is_no_number_is_no_place(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTLE, "libero_object/3:nan")
    assert list(report_of(made)["invalid_tasks"]["libero_object"]) == ["3"]


@pytest.mark.parametrize("name", ["bddl", "init_states"])
def test_a_file_that_is_not_the_benchmarks_is_named(made: Made, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    moved(monkeypatch, lambda task: task.update({name: "0" * 64}))
    evidence = check(report_of(made), "simulator:libero_object")["evidence"]
    assert evidence == f"task 3: its {name} file is not the benchmark's"


def test_a_scene_with_other_objects_is_found(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    moved(monkeypatch, lambda task: task["poses"].popitem())
    assert "task 3: its scene has other objects" in check(report_of(made), "simulator:libero_object")["evidence"]


def test_a_probe_that_crashes_leaves_its_tasks_invalid_with_what_it_said(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTLE, "libero_object/3:crash")
    why = report_of(made)["invalid_tasks"]["libero_object"]["3"]
    assert "the probe did not come to this task (exit code 1" in why and "the stand-in's simulator is broken" in why


def test_a_probe_that_hangs_is_ended(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.layout.settings.write_text(SETTINGS.replace("row_secs = 60", "probe_secs = 4"))
    monkeypatch.setenv(SETTLE, "libero_object/3:hang")
    report = report_of(made)
    assert "the process took too long" in report["invalid_tasks"]["libero_object"]["3"]
    assert "raise probe_secs under [timeouts]" in check(report, "simulator:libero_object")["remedy"]


def test_a_suite_without_a_table_is_called_unprobed(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    table = simulator_validity.table() | {"suites": {}}
    monkeypatch.setattr(simulator_validity, "table", lambda: table)
    report = report_of(made)
    assert check(report, "simulator:libero_object")["status"] == "warn"
    assert "not probed" in check(report, "simulator:libero_object")["evidence"]
    assert report["status"] == "pass"


@pytest.mark.parametrize(("off", "status"), [("0", "warn"), ("0.034", "fail")])
def test_another_mujoco_is_judged_by_where_objects_are(
    made: Made, monkeypatch: pytest.MonkeyPatch, off: str, status: str
) -> None:
    versions = simulator_validity.software.versions() | {"mujoco": "3.9.9"}
    monkeypatch.setattr(simulator_validity.software, "versions", lambda: versions)
    monkeypatch.setenv(SETTLE, f"libero_object/3:{off}")
    found = check(report_of(made), "version:mujoco")
    assert (found["status"], found["evidence"][:5]) == (status, "3.9.9")


# what follows


@pytest.mark.slow
def test_an_accepted_simulator_lets_rows_run_whose_results_and_verdict_are_invalid(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTLE, "libero_object/0:0.034")
    made.configure("[rows.wide_b4_e4]\ntask_ids = [1]")
    refused = made.pytest("-n0")
    assert "simulator:libero_object" in refused.stdout and not made.started()
    ended = made.pytest("-n0", "--accept-invalid-sim")
    assert ended.returncode == 1
    assert "verdict: invalid: the simulator is not the benchmark's" in ended.stdout
    assert {line.split()[0] for line in ended.stdout.splitlines() if "pass (invalid simulator)" in line} == {
        "baseline_b1_e2",
        "long_b1_e6",
    }
    results = {row.run_id: files.read_json(made.layout.run(row.run_id).result) for row in made.spec.enabled}
    assert "34.0 mm off" in results["long_b1_e6"]["invalid"] and results["wide_b4_e4"]["invalid"] is None
    assert "is **invalid**" in (made.root / "results.md").read_text()


def test_a_row_that_ran_on_an_invalid_simulator_is_not_taken_for_one_on_a_valid_one(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.configure("[preflight]\naccept_invalid_sim = true")
    monkeypatch.setenv(SETTLE, "libero_object/0:0.034")
    made.pass_preflight()
    assert made.run_row("baseline_b1_e2")["invalid"]
    monkeypatch.delenv(SETTLE)
    made.pass_preflight()
    ended = made.tracka(*made.sweep_words("--rows", "baseline_b1_e2", "--resume"))
    assert ended.returncode == 1 and "--allow-overwrite" in ended.stdout + ended.stderr


# the table, and the real simulator


def test_the_table_has_every_task_of_every_suite() -> None:
    suites = simulator_validity.table()["suites"]
    assert {suite: len(tasks) for suite, tasks in suites.items()} == dict(SUITE_TASKS)
    assert simulator_validity.table()["mujoco"] == "3.3.7" and 0.001 <= simulator_validity.table()["tolerance"] < 0.005


@pytest.mark.simulator
@pytest.mark.slow  # `make accept` runs the probe on a sound simulator too
def test_on_the_pinned_mujoco_the_real_bowl_rests_on_the_ramekin() -> None:
    [found] = probed("libero_spatial", "5")
    wanted = simulator_validity.table()["suites"]["libero_spatial"]["5"]
    assert [found[key] for key in ("name", "bddl", "init_states")] == [
        wanted[key] for key in ("name", "bddl", "init_states")
    ]
    assert simulator_validity.position_error(found["poses"], wanted["poses"]) < 1e-4


@pytest.mark.simulator
@pytest.mark.usefixtures("libero")
@pytest.mark.slow
def test_without_pictures_physics_is_that_of_lerobots_own_environment_to_the_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")  # robosuite cannot read an empty one
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "0")
    from lerobot.envs.libero import LiberoEnv, _get_suite

    from tracka.preflight.probes import settle

    suite = _get_suite("libero_object")
    blind = settle._without_cameras(suite, "libero_object", 4)
    size = {"observation_width": 32, "observation_height": 32}
    full = LiberoEnv(suite, 4, "libero_object", obs_type="pixels_agent_pos", **size)
    for _ in range(2):
        for env in (blind, full):
            env.reset(seed=0)
        one, other = (env._env.env.sim.data for env in (blind, full))
        assert np.array_equal(one.qpos, other.qpos) and np.array_equal(one.qvel, other.qvel)
    for env in (blind, full):
        env.close()
