"""GPUs: which are visible and under which numbers, which cannot be leased, and who computes on them.

NVIDIA's driver is played by a module of its name.
"""

import os
import sys
from types import SimpleNamespace

import psutil
import pytest

from tracka.execution import gpu


class NoDriver(Exception):
    pass


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Four GPUs, with the uuids GPU-0-a to GPU-3-a."""
    stand_in = SimpleNamespace(
        NVMLError=NoDriver,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 4,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}-a",
        nvmlDeviceGetName=lambda handle: "stand-in GPU",
        nvmlDeviceGetMinorNumber=lambda handle: handle,
        nvmlDeviceGetHandleByUUID=lambda uuid: int(uuid.split("-")[1]),
        nvmlDeviceGetMigMode=lambda handle: [0, 0],
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [],
    )
    monkeypatch.setitem(sys.modules, "pynvml", stand_in)
    monkeypatch.delenv(gpu.PRETEND, raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return stand_in


@pytest.mark.parametrize(
    ("callers", "visible"),
    [
        (None, ["0", "1", "2", "3"]),
        ("", []),
        ("-1", []),
        ("2,2,1", ["2"]),
        ("2,GPU-2-a,1", ["2"]),
        ("2", ["2"]),
        ("3,1", ["3", "1"]),
        ("GPU-2-a,GPU-0-a", ["2", "0"]),
        ("GPU-2,1", ["2", "1"]),  # the beginning of a UUID will do
        ("GPU-,1", []),  # where it is that of one alone
        ("2, 1", ["2", "1"]),
        ("0,9,1", ["0"]),  # CUDA reads up to the first word that names no GPU
        ("3,-1,1", ["3"]),  # as environment.for_row itself writes it
    ],
)
def test_gpus_are_numbered_within_the_callers_own_choice(
    driver: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, callers: str | None, visible: list[str]
) -> None:
    if callers is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", callers)
    found = gpu.visible_gpus()
    assert [item.visible for item in found] == visible
    assert [item.gpu_id for item in found] == list(range(len(visible)))


def test_without_a_driver_there_are_no_gpus(driver: SimpleNamespace) -> None:
    def fail() -> None:
        raise NoDriver

    driver.nvmlInit = fail
    assert gpu.visible_gpus() == ()


# what cannot be leased, and who else is there


def test_an_instance_of_mig_is_refused_by_name(driver: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpu.VISIBLE, "MIG-7a0c1f4e-0000-0000-0000-000000000000")
    found = gpu.problem()
    assert found is not None and found.where == gpu.VISIBLE and "MIG" in found.what


def test_a_gpu_that_is_cut_into_instances_is_refused(driver: SimpleNamespace) -> None:
    assert gpu.problem() is None
    driver.nvmlDeviceGetMigMode = lambda handle: [int(handle == 2), 0]
    found = gpu.problem()
    assert found is not None and (found.where, "nvidia-smi -mig 0" in found.remedy) == ("GPU 2", True)


def test_a_gpu_that_does_not_know_mig_is_whole(driver: SimpleNamespace) -> None:
    def unknown(handle: int) -> list[int]:
        raise NoDriver

    driver.nvmlDeviceGetMigMode = unknown
    assert gpu.problem() is None


def test_processes_on_a_gpu_are_told_with_name_and_memory(driver: SimpleNamespace) -> None:
    mine, other = (os.getpid(), 3 << 30), (1 << 30, None)
    running = [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in (mine, other)]
    driver.nvmlDeviceGetComputeRunningProcesses = lambda handle: running if handle == 1 else []
    ours, gone = gpu.processes("GPU-1-a")
    assert (ours.pid, ours.name, ours.memory) == (os.getpid(), psutil.Process().name(), 3072)
    assert str(gone) == f"process {1 << 30} (unknown, unknown memory)"
    assert gpu.processes("GPU-0-a") == ()


def test_a_driver_that_does_not_tell_processes_tells_of_none(driver: SimpleNamespace) -> None:
    def refused(handle: int) -> list[object]:
        raise NoDriver

    driver.nvmlDeviceGetComputeRunningProcesses = refused
    assert gpu.processes("GPU-1-a") == ()
