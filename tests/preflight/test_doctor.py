"""`tracka doctor`: what is missing on this machine, in seconds, without a campaign and without changing anything."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hub
import pytest
from campaigns import REPOSITORY

from tracka import cli_doctor
from tracka.core import schema
from tracka.core.check import Check
from tracka.core.reports import CheckRecord, DoctorReport
from tracka.execution.gpu import CPU_DEVICE
from tracka.install import gl
from tracka.preflight import doctor, drawing, hub_access, inventory

SECRET = "hf_AnExampleOfAToken0123456789"
NOBODY = "http://127.0.0.1:9"  # where nothing listens
Ended = subprocess.CompletedProcess[str]
NO_DRIVER = {"__EGL_VENDOR_LIBRARY_FILENAMES": "/dev/null"}


# Runs the command, and says at the end which of the simulation's packages its process has imported.
AND_IMPORTS = """
import atexit, sys
from tracka.cli import main
atexit.register(lambda: print(sorted({"torch", "lerobot", "mujoco", "libero"} & set(sys.modules)), file=sys.stderr))
main()
"""


def run(folder: Path, *words: str, **environ: str) -> Ended:
    everything = {**os.environ, "PYTHONPATH": str(REPOSITORY), "no_proxy": "127.0.0.1", **environ}
    argv = [sys.executable, "-c", AND_IMPORTS, "doctor", *words]
    return subprocess.run(argv, cwd=folder, env=everything, capture_output=True, text=True)


@pytest.fixture(scope="module")
def looked_over(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[DoctorReport, subprocess.CompletedProcess[str], Path]:
    """The report of this machine, from an empty folder, with a token and a hub that does not answer."""
    folder = tmp_path_factory.mktemp("anywhere")
    ended = run(folder, "--json", HF_TOKEN=SECRET, HF_ENDPOINT=NOBODY, HF_HUB_OFFLINE="0")
    return json.loads(ended.stdout), ended, folder


def check_of(report: DoctorReport, name: str) -> CheckRecord:
    (found,) = [check for check in report["checks"] if check["name"] == name]
    return found


def test_the_report_follows_its_schema_and_nothing_is_missing_where_campaigns_run(looked_over: Any) -> None:
    report, ended, _ = looked_over
    assert (ended.returncode, schema.findings("doctor", report, "stdout")) == (0, [])
    assert report["status"] == "warning"
    assert [check for check in report["checks"] if check["status"] == "missing"] == []


def test_software_and_liberos_files_are_found_at_the_versions_of_the_lock(looked_over: Any) -> None:
    report, _, _ = looked_over
    for name in ("python", "version:lerobot", "version:mujoco", "packages", "libero_config", "libero_assets", "opengl"):
        assert check_of(report, name)["status"] == "ok", name


def test_what_draws_is_tried_in_processes_of_their_own(looked_over: Any) -> None:
    rendering = check_of(looked_over[0], "rendering")
    assert rendering["status"] == "ok" and "egl draws (" in rendering["evidence"]
    assert "osmesa draws (" in rendering["evidence"] and "glx d" in rendering["evidence"]


def test_nothing_is_left_behind(looked_over: Any) -> None:
    assert list(looked_over[2].iterdir()) == []


def test_a_token_is_told_by_its_place_and_never_shown(looked_over: Any) -> None:
    report, ended, _ = looked_over
    assert "a token is in HF_TOKEN" in check_of(report, "hub")["evidence"]
    assert SECRET not in ended.stdout + ended.stderr


def test_a_hub_that_does_not_answer_is_a_warning_with_a_command(looked_over: Any) -> None:
    found = check_of(looked_over[0], "hub")
    assert found["status"] == "warning" and f"{NOBODY}: cannot be reached" in found["evidence"]
    assert "export HF_HUB_OFFLINE=1" in (found["remedy"] or "")


def test_every_check_that_is_not_ok_has_a_remedy_and_a_line_of_its_own(looked_over: Any) -> None:
    report, _, _ = looked_over
    lines = cli_doctor.lines(report)
    assert len(lines) == len(report["checks"]) + sum(check["status"] != "ok" for check in report["checks"]) + 1
    assert all(check["remedy"] for check in report["checks"] if check["status"] != "ok")
    assert "Next: tracka init" in lines[-1]


def test_torch_lerobot_and_mujoco_are_not_imported(looked_over: Any) -> None:
    assert looked_over[1].stderr == "[]\n"


# the hub


def test_a_hub_that_answers_is_ok_and_a_refusal_is_an_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with hub.serve({"config.json": b"{}"}) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        found = hub_access.check()
    assert found.status == "pass" and f"{served.address}: answers; no token" in found.evidence


def test_without_network_on_purpose_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub_access, "why_unreachable", lambda _: pytest.fail("the hub was asked"))
    found = hub_access.check()
    assert found.status == "pass" and "HF_HUB_OFFLINE set: the hub is not asked" in found.evidence


def test_a_stored_token_and_a_password_in_an_address_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(SECRET)
    for name, value in {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://me:secret@127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    evidence = hub_access.check().evidence
    assert f"a token is in {tmp_path / 'token'}" in evidence
    assert SECRET not in evidence and "secret" not in evidence


# machines on which something is missing


def test_where_egl_has_no_driver_another_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_DRIVER.items():
        monkeypatch.setenv(name, value)
    found = drawing.check(CPU_DEVICE)
    assert found.status == "warn" and "egl does not draw (" in found.evidence and "osmesa draws (" in found.evidence
    assert "apt-get install" in (found.remedy or "") and "write osmesa in the column mujoco_gl" in (found.remedy or "")


def test_where_nothing_draws_rendering_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "PROBE", "tracka.preflight.probes.absent")
    found = drawing.check(CPU_DEVICE)
    assert (found.status, found.required) == ("fail", True) and "No module named" in found.evidence


def test_a_missing_library_is_named_with_the_command_of_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = gl.GlLibrary(("libNoSuchThing.so.1",), "libnosuch1", needed=True)
    monkeypatch.setattr(gl, "LIBRARIES", (*gl.LIBRARIES, absent))
    (found,) = doctor.steps(Path.cwd())["opengl"]()
    assert (found.status, found.required) == ("fail", True) and "libNoSuchThing.so.1" in found.evidence
    assert found.remedy == "Run as root: apt-get install --no-install-recommends libnosuch1"


def test_locks_that_no_other_process_sees_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "TRY_LOCK", "")  # as on a file system where each process has locks of its own
    (found,) = doctor.steps(tmp_path)["locks"]()
    assert (found.status, found.required) == ("fail", True) and "do not work" in found.evidence


def test_a_folder_that_may_not_be_written_has_no_locks(tmp_path: Path) -> None:
    (found,) = doctor.steps(tmp_path / "absent")["locks"]()
    assert found.status == "fail" and "No such file or directory" in found.evidence


def test_gpus_are_counted_by_name_with_their_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKA_PRETEND_GPUS", "2")
    found, cuda = doctor.steps(Path.cwd())["gpus"]()
    assert found.status == "pass" and found.evidence.startswith("2 x pretended GPU; ")
    assert cuda.name == "cuda"


# a small installation, which verifies and reports but runs nothing


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra `libero`."""
    for module in (doctor, inventory):
        monkeypatch.setattr(module, "find_spec", lambda _: None)
    monkeypatch.setattr(doctor.software, "versions", lambda: {"lerobot": "missing", "mujoco": "missing"})
    monkeypatch.setattr(inventory, "nvidia_smi", lambda: "GPU 0: One (UUID: GPU-1)\n")


@pytest.mark.usefixtures("small")
def test_a_small_installation_says_what_runs_campaigns_and_how_to_get_it(tmp_path: Path) -> None:
    report = doctor.report(tmp_path)
    found = check_of(report, "software")
    assert (found["status"], report["status"]) == ("missing", "missing")
    assert "lerobot, mujoco missing" in found["evidence"] and "`tracka verify`" in found["evidence"]
    assert "setup`" in (found["remedy"] or "")
    assert check_of(report, "gpus")["evidence"].startswith("1 x One; as nvidia-smi lists them")
    assert not {"rendering", "libero_assets", "packages"} & {check["name"] for check in report["checks"]}


@pytest.mark.usefixtures("small")
def test_something_missing_exits_with_3_and_says_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cli_doctor.typer.Exit) as ended:
        cli_doctor.doctor_command()
    assert ended.value.exit_code == 3
    assert "Mend what is missing, then run `tracka doctor` again" in capsys.readouterr().out.splitlines()[-1]


# a broken machine


def within(**steps: Callable[[], list[Check]]) -> dict[str, Check]:
    return {check.name: check for check in doctor.within(0.3, steps)}


def test_a_check_that_hangs_is_reported_and_hides_no_other() -> None:
    never = threading.Event()
    found = within(disk=lambda: [Check("x", "pass", str(never.wait(20)))], clock=lambda: [Check("clock", "pass", "")])
    assert (found["disk"].status, found["disk"].evidence) == ("warn", "no answer within 0.3 s")
    assert found["clock"].status == "pass"
    never.set()


def test_a_check_that_breaks_is_reported_with_its_error() -> None:
    def broken() -> list[Check]:
        raise RuntimeError("the library is of another version")

    found = within(gpus=broken)["gpus"]
    assert found.status == "warn"
    assert found.evidence == "could not be checked: RuntimeError: the library is of another version"
