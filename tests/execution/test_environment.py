"""The environment of a row's process: devices in the form that robosuite takes, secrets passed on but not shown."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tracka.campaign.campaign import Campaign
from tracka.campaign.layout import Layout
from tracka.campaign.matrix import CPU
from tracka.execution import environment
from tracka.execution.gpu import Device

CPU_DEVICE, GPU_0, GPU_3 = Device(CPU, ""), Device(0, "0"), Device(3, "3")


class Case(NamedTuple):
    """A device, a backend, and what the caller's own variables say -> the two variables that robosuite reads."""

    device: Device
    backend: str
    visible: str
    egl: str | None
    caller: Mapping[str, str] = {}
    cuda_to_egl: Mapping[int, int] = {}


CASES = {
    "cpu": Case(CPU_DEVICE, "egl", "", "0"),
    "cpu_callers_choice": Case(CPU_DEVICE, "egl", "", "2", {"MUJOCO_EGL_DEVICE_ID": "2"}),
    "cpu_hides_callers_gpus": Case(CPU_DEVICE, "egl", "", "0", {"CUDA_VISIBLE_DEVICES": "0,1"}),
    "cpu_glx": Case(CPU_DEVICE, "glx", "", None),
    "cpu_osmesa": Case(CPU_DEVICE, "osmesa", "", None),
    "gpu": Case(GPU_3, "egl", "3", "3"),
    "gpu_not_callers_choice": Case(GPU_3, "egl", "3", "3", {"MUJOCO_EGL_DEVICE_ID": "0"}),
    "gpu_mapped": Case(GPU_3, "egl", "3,-1,5", "5", {}, {3: 5}),
    "gpu_mapped_others_only": Case(GPU_0, "egl", "0", "0", {}, {3: 5}),
    "gpu_glx": Case(GPU_3, "glx", "3", None, {}, {3: 5}),
    "gpu_glx_not_callers_choice": Case(GPU_3, "glx", "3", None, {"MUJOCO_EGL_DEVICE_ID": "0"}),
}
WITHOUT_OSMESA = {name: case for name, case in CASES.items() if case.backend != "osmesa"}  # it need not be installed
HIDDEN = {
    "HF_TOKEN": "hf_secret",
    "HUGGINGFACE_HUB_TOKEN": "secret",
    "HTTPS_PROXY": "http://user:secret@proxy",
    "https_proxy": "http://user:secret@proxy",
    "HF_ENDPOINT": "https://user:secret@mirror",
}


def made_for(monkeypatch: pytest.MonkeyPatch, case: Case) -> dict[str, str]:
    """The environment of a row where the case's `caller` is all that the caller's own says of devices."""
    for name in ("CUDA_VISIBLE_DEVICES", "MUJOCO_EGL_DEVICE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in case.caller.items():
        monkeypatch.setenv(name, value)
    campaign = Campaign(Layout(Path("campaign")), (), "", 0, cuda_to_egl=case.cuda_to_egl)
    return environment.for_row(campaign, case.device, case.backend)


def made_on_cpu(monkeypatch: pytest.MonkeyPatch, caller: Mapping[str, str]) -> dict[str, str]:
    return made_for(monkeypatch, Case(CPU_DEVICE, "egl", "", "0", caller))


def import_robosuite(environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Imports the module whose assertion a bad pair breaks."""
    command = [sys.executable, "-c", "import robosuite.utils.binding_utils"]
    return subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_device_has_its_pair_of_variables(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    made = made_for(monkeypatch, case)
    assert (made["CUDA_VISIBLE_DEVICES"], made.get("MUJOCO_EGL_DEVICE_ID")) == (case.visible, case.egl)
    assert made["MUJOCO_GL"] == case.backend


@pytest.mark.simulator
@pytest.mark.parametrize("case", WITHOUT_OSMESA.values(), ids=WITHOUT_OSMESA)
def test_robosuite_takes_the_pair(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    ended = import_robosuite(made_for(monkeypatch, case))
    assert ended.returncode == 0, ended.stderr


@pytest.mark.simulator
def test_robosuite_would_not_take_an_egl_device_that_cuda_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    made = made_for(monkeypatch, CASES["gpu_mapped"]) | {"CUDA_VISIBLE_DEVICES": "3"}
    assert "MUJOCO_EGL_DEVICE_ID needs to be set" in import_robosuite(made).stderr


@pytest.mark.parametrize(
    "name",
    [
        *("MY_SECRET", "GITHUB_TOKEN", "GH_TOKEN", "CI_JOB_TOKEN", "ACTIONS_RUNTIME_TOKEN", "WANDB_API_KEY"),
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "KUBECONFIG"),
        *("SSH_AUTH_SOCK", "SSH_AGENT_PID", "GPG_AGENT_INFO", "GOOGLE_APPLICATION_CREDENTIALS", "DOCKER_CONFIG"),
        *("LD_PRELOAD", "BASH_ENV", "PYTHONSTARTUP", "PYTEST_CURRENT_TEST", "SLURM_JWT", "NVIDIA_API_KEY"),
        *("NVIDIA_NGC_TOKEN", "TRACKA_PASSWORD", "CUDA_HOME\nX", "PATH_TO_SECRETS", "MY_HF_TOKEN"),
    ],
)
def test_a_variable_that_is_not_listed_is_not_passed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert name not in made_on_cpu(monkeypatch, {name: "x"})


@pytest.mark.parametrize("name", HIDDEN)
def test_a_secret_is_passed_on_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    made = made_on_cpu(monkeypatch, HIDDEN)
    assert made[name] == HIDDEN[name]
    assert "secret" not in environment.manifest_environment(made).get(name, "")


def test_what_decides_a_run_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = environment.manifest_environment(
        made_for(monkeypatch, CASES["gpu"]._replace(caller={"HF_HUB_OFFLINE": "1"}))
    )
    assert (shown["CUDA_VISIBLE_DEVICES"], shown["MUJOCO_GL"], shown["HF_HUB_OFFLINE"]) == ("3", "egl", "1")
    assert list(shown) == sorted(shown)


def test_time_zone_buffering_and_the_hubs_cache_are_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HOME", raising=False)
    made = made_on_cpu(monkeypatch, {"TZ": "Asia/Tokyo"})
    assert (made["TZ"], made["PYTHONUNBUFFERED"]) == ("UTC", "1")
    assert made["HF_HOME"] == str(Path.home() / ".cache" / "huggingface")


def test_the_callers_folders_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"HF_HOME": "/data/hub", "LIBERO_CONFIG_PATH": "/data/libero", "TMPDIR": "/data/tmp"}
    assert folders.items() <= made_on_cpu(monkeypatch, folders).items()


def test_the_programs_beside_this_python_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    path = made_on_cpu(monkeypatch, {"PATH": "/usr/bin"})["PATH"]
    assert path.split(os.pathsep) == [str(Path(sys.executable).parent), "/usr/bin"]
