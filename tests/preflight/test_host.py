"""What preflight says of the host beyond its GPUs: packages, room, limits, clock, display."""

import json
import os
import re
import resource
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from campaigns import REPOSITORY, SETTINGS, Made

from tracka.core import schema
from tracka.core.check import Check
from tracka.preflight import host, inventory


def check(made: Made, name: str, requested: str = "egl") -> Check:
    [found] = [each for each in host.checks([], [], made.spec, requested) if each.name == name]
    return found


def test_this_environment_holds_the_locks_packages(made: Made) -> None:
    found = check(made, "packages")
    assert found.status == "pass" and " pinned, 0 differ" in found.evidence


def test_a_package_of_another_version_is_named(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.cli_capabilities, "distributions", lambda: [("NumPy", "0.1", None)])
    found = check(made, "packages")
    assert found.status == "warn" and "numpy 0.1 instead of" in found.evidence and not found.required


def test_of_many_packages_of_other_versions_ten_are_named_and_all_are_counted(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = (REPOSITORY / "requirements.lock").read_text()
    names = re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)[:11]
    monkeypatch.setattr(host.cli_capabilities, "distributions", lambda: [(name, "0.0.1.dev9", None) for name in names])
    found = check(made, "packages").evidence
    assert " pinned, 11 differ: " in found
    assert [name for name in names if f"{name} 0.0.1.dev9" not in found] == names[10:]


def test_of_two_versions_the_one_that_is_imported_counts(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    two = [("numpy", version, None) for version in ("0.1", "0.2")]
    monkeypatch.setattr(host.cli_capabilities, "distributions", lambda: two)
    assert "numpy 0.1 instead of" in check(made, "packages").evidence


@pytest.mark.parametrize(("blocks", "inodes"), [(1, 10**6), (10**9, 3)], ids=["room", "inodes"])
def test_a_disk_that_is_too_small_blocks(made: Made, monkeypatch: pytest.MonkeyPatch, blocks: int, inodes: int) -> None:
    small = SimpleNamespace(f_bavail=blocks, f_frsize=4096, f_favail=inodes, f_files=10)
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    found = check(made, "disk:artifacts")
    assert (found.status, found.required) == ("fail", True)
    assert f"{blocks * 4096 >> 20} MiB and {inodes} inodes free" in found.evidence


def test_room_grows_with_episodes_and_a_checkpoint_from_the_hub_needs_room_in_the_cache(made: Made) -> None:
    assert ", 0 MiB" in check(made, "disk:cache").evidence
    before = check(made, "disk:artifacts").evidence
    with made.layout.matrix.open("a") as matrix:
        matrix.write("hub_b1_e500,libero_object,1,500,cpu,7,egl,nobody/policy,1\n")
    assert check(made, "disk:artifacts").evidence != before
    assert f", {host.CACHE_MIB} MiB" in check(made, "disk:cache").evidence


@pytest.mark.parametrize(
    ("engine", "videos"),
    [
        ("", 10 + 9),  # of 50 episodes of a task lerobot-eval films ten
        ('engine = "resident"', 1 + 3),
        ('engine = "resident"\nresident = { videos = 60 }', 50 + 9),
    ],
    ids=["lerobot-eval", "resident", "resident_films_all"],
)
def test_room_is_for_the_videos_that_the_engine_makes_of_each_task_and_for_logs(
    make_campaign: Callable[..., Made], engine: str, videos: int
) -> None:
    settings = SETTINGS.replace("[lerobot_eval]\n", f"{engine}\n\n[lerobot_eval]\n").replace("[0]", "[0, 1, 2]")
    fifty = "baseline_b1_e2,libero_object,1,50,cpu,7,egl,checkpoints/fake,1"
    three = "three_b1_e3,libero_object,1,3,cpu,7,egl,checkpoints/fake,1"
    made = make_campaign([fifty, three], f"{settings}\n[rows.baseline_b1_e2]\ntask_ids = [0]\n")
    assert host.artifacts_mib(made.spec) == round(videos * host.VIDEO_MIB + 2 * host.ROW_MIB)


def test_too_few_open_files_are_warned_of(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    found = check(made, "limits")
    assert found.status == "warn" and found.evidence.startswith("256 open files")


def test_a_clock_that_differs_from_the_file_systems_is_warned_of(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(made, "clock").status == "pass"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 90)
    found = check(made, "clock")
    assert found.status == "warn" and ("90." in found.evidence or "89." in found.evidence)


@pytest.mark.parametrize(
    ("requested", "shown", "status"), [("egl", None, "pass"), ("glx", None, "warn"), ("glx", ":9", "pass")]
)
def test_glx_without_display_and_xvfb_is_warned_of(
    made: Made, monkeypatch: pytest.MonkeyPatch, requested: str, shown: str | None, status: str
) -> None:
    monkeypatch.setattr(host.shutil, "which", lambda _: None)
    monkeypatch.delenv("DISPLAY", raising=False)
    if shown:
        monkeypatch.setenv("DISPLAY", shown)
    assert check(made, "display", requested).status == status


# provenance


def test_the_same_host_and_software_have_the_same_fingerprints_at_another_time(made: Made) -> None:
    first, second = inventory.env_snapshot(), inventory.env_snapshot()
    assert first["fingerprints"] == second["fingerprints"]
    assert schema.findings("env_snapshot", json.loads(json.dumps(first)), "") == []


@pytest.mark.parametrize(
    ("module", "name", "value", "changed"),
    [
        (inventory.software, "versions", {"mujoco": "3.4.0"}, "software"),
        (inventory, "pip_freeze", "numpy==0\n", "software"),
        (inventory.gpu, "driver", ("580.65", "13.0"), "host"),
        (inventory, "_cpu", "another processor", "host"),
    ],
    ids=["mujoco", "packages", "driver", "cpu"],
)
def test_what_differs_changes_its_fingerprint_alone(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: object, changed: str
) -> None:
    before = inventory.env_snapshot()["fingerprints"]
    monkeypatch.setattr(module, name, lambda: value)
    after = inventory.env_snapshot()["fingerprints"]
    assert {key for key in before if before[key] != after[key]} == {changed}
