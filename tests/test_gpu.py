"""GPUs: which are visible, and that a lease holds one against every other process of the host."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from campaigns import REPOSITORY, ROWS, Made
from processes import wait_until

from tracka import errors, files, gpu, run
from tracka.matrix import AUTO, CPU

HOLD = """
import subprocess, sys
from tracka import gpu
with gpu.lease(int(sys.argv[1]), int(sys.argv[2])) as device:
    heir = subprocess.Popen(["sleep", "20"], pass_fds=[device.lock]) if "heir" in sys.argv else None
    print(device.gpu_id, heir.pid if heir else 0, flush=True)
    sys.stdin.read()
"""
Hold = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for the locks of this test alone, two GPUs that do not exist, and no xdist worker to prefer one."""
    monkeypatch.setenv("TRACKA_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv(gpu.PRETEND, "2")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts a process that asks for a GPU, says which it got, and holds it until its stdin is closed."""
    started: list[subprocess.Popen[str]] = []

    def start(request: int, preferred: int = 0, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(request), str(preferred), *words]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        with process:
            pass


def got(holder: subprocess.Popen[str]) -> int:
    """The GPU that the process holds, once it does."""
    assert holder.stdout is not None
    return int(holder.stdout.readline().split()[0])


def release(holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None
    holder.stdin.close()


def free() -> int:
    """A GPU that nobody holds, asked for with GPU 0 preferred."""
    with gpu.lease(AUTO) as device:
        return device.gpu_id


# leases


def test_two_processes_get_different_gpus(hold: Hold) -> None:
    assert {got(hold(AUTO)), got(hold(AUTO))} == {0, 1}


def test_a_worker_asks_for_the_gpu_of_its_own_number_first(hold: Hold) -> None:
    assert got(hold(AUTO, 1)) == 1
    assert got(hold(AUTO, 1)) == 0


@pytest.mark.parametrize(("worker", "number"), [("gw0", 0), ("gw7", 7), (None, 0)])
def test_a_workers_number_is_that_of_its_name(monkeypatch: pytest.MonkeyPatch, worker: str | None, number: int) -> None:
    if worker:
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    assert gpu.worker_number() == number


def test_a_worker_beyond_the_gpus_starts_again_at_the_first(hold: Hold) -> None:
    assert got(hold(AUTO, 3)) == 1


@pytest.mark.parametrize("request_", [0, AUTO], ids=["pinned", "auto"])
def test_a_row_waits_for_its_gpu_and_gets_it_when_it_is_free(hold: Hold, request_: int) -> None:
    first, second = hold(0), hold(1)
    assert (got(first), got(second)) == (0, 1)
    waiter = hold(request_)
    with pytest.raises(subprocess.TimeoutExpired):
        waiter.wait(1)
    release(first)
    assert got(waiter) == 0


def test_a_pinned_gpu_is_taken_though_another_is_held(hold: Hold) -> None:
    assert got(hold(1)) == 1
    assert got(hold(0)) == 0


def test_an_ended_lease_is_free_again() -> None:
    assert [free(), free()] == [0, 0]


def test_a_killed_holder_leaves_its_gpu_free(hold: Hold) -> None:
    holder = hold(0)
    assert (got(holder), free()) == (0, 1)
    holder.kill()
    holder.wait()
    assert free() == 0


def test_a_gpu_stays_taken_while_a_process_that_inherited_the_lease_lives(hold: Hold) -> None:
    holder = hold(0, 0, "heir")
    assert holder.stdout is not None
    heir = psutil.Process(int(holder.stdout.readline().split()[1]))
    holder.kill()
    holder.wait()
    assert free() == 1
    heir.kill()
    wait_until(lambda: free() == 0)


def test_the_cpu_needs_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpu.PRETEND, "0")
    with gpu.lease(CPU) as first, gpu.lease(CPU) as second:
        assert (first.visible, first.lock, first.torch_name) == ("", None, "cpu")
        assert first == second
    assert not list(tmp_path.glob("tracka-gpus-*"))


@pytest.mark.parametrize(
    ("gpus", "request_", "what"),
    [(2, 2, "asks for GPU 2, and 2 are visible"), (1, 7, "asks for GPU 7, and 1 are visible")],
)
def test_a_missing_gpu_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, gpus: int, request_: int, what: str
) -> None:
    monkeypatch.setenv(gpu.PRETEND, str(gpus))
    with pytest.raises(errors.TrackaError, match=what) as caught, gpu.lease(request_):
        pass
    assert "write auto or cpu" in caught.value.findings[0].remedy


# what is visible: NVIDIA's driver is played by a module of its name


class NoDriver(Exception):
    pass


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Four GPUs, with the uuids GPU-0 to GPU-3."""
    stand_in = SimpleNamespace(
        NVMLError=NoDriver,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 4,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}",
        nvmlDeviceGetName=lambda handle: "stand-in GPU",
    )
    monkeypatch.setitem(sys.modules, "pynvml", stand_in)
    monkeypatch.delenv(gpu.PRETEND)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return stand_in


@pytest.mark.parametrize(
    ("callers", "visible"),
    [
        (None, ["0", "1", "2", "3"]),
        ("", []),
        ("-1", []),
        ("2", ["2"]),
        ("3,1", ["3", "1"]),
        ("GPU-2,GPU-0", ["2", "0"]),
        ("0,9,1", ["0"]),  # CUDA reads up to the first word that names no GPU
        ("3,-1,1", ["3"]),  # as environment.for_row itself writes it
    ],
)
def test_gpus_are_numbered_within_the_callers_own_choice(
    driver: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, callers: str | None, visible: list[str]
) -> None:
    if callers is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", callers)
    found = gpu.inventory()
    assert [item.visible for item in found] == visible
    assert [item.gpu_id for item in found] == list(range(len(visible)))


def test_one_gpu_under_two_numbers_is_leased_once(
    driver: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, hold: Hold
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,0")
    with gpu.lease(1) as device:  # GPU 0 of the host
        assert device.visible == "0"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
        with gpu.lease(AUTO) as other:
            assert other.visible == "2"


def test_without_a_driver_there_are_no_gpus(driver: SimpleNamespace) -> None:
    def fail() -> None:
        raise NoDriver

    driver.nvmlInit = fail
    assert gpu.inventory() == ()
    with pytest.raises(errors.TrackaError, match="any GPU, and 0 are visible"), gpu.lease(AUTO):
        pass


# rows


def test_a_row_holds_its_leased_gpu_until_it_and_its_harness_are_gone(make_campaign: Callable[..., Made]) -> None:
    made = make_campaign([*ROWS, "gpu_b1_e1,libero_object,1,1,auto,7,egl,checkpoints/fake,1"])
    made.behave(gpu_b1_e1=["slow:20"])
    made.pass_preflight()
    harness = made.start_row("gpu_b1_e1")
    wait_until(lambda: bool(made.started()))
    manifest = files.read_json(made.layout.run("gpu_b1_e1").manifest)
    assert (manifest["gpu_id"], manifest["env"]["CUDA_VISIBLE_DEVICES"]) == (0, "0")
    assert free() == 1
    harness.kill()
    harness.wait()
    wait_until(lambda: free() == 0)


def test_a_row_whose_gpu_is_missing_leaves_no_attempt(
    make_campaign: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_campaign([*ROWS, "gpu_b1_e1,libero_object,1,1,5,7,egl,checkpoints/fake,1"])
    made.pass_preflight()
    with pytest.raises(errors.TrackaError, match="GPU 5, and 2 are visible"):
        made.run_row("gpu_b1_e1")
    assert run.read_result(made.layout, "gpu_b1_e1") is None
    assert made.layout.run("gpu_b1_e1").numbers() == []
