"""The GPUs that this process may use, and the right to one of them.

A lease is a file lock whose descriptor the row's process inherits, so it lives exactly as long as that process, even
if the harness is killed. Locks lie in one folder a user, so two campaigns of a user never meet on one GPU. GPUs are
numbered within the caller's own CUDA_VISIBLE_DEVICES.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from . import lock
from .errors import Busy, Finding, TrackaError
from .matrix import AUTO, CPU

LOCKS = "TRACKA_GPU_LOCKS"  # the folder of the locks, one for the whole host; TMPDIR may differ from job to job
WORKER = "TRACKA_WORKER"  # the number of a process that `tracka sweep` started
PRETEND = "TRACKA_PRETEND_GPUS"  # for tests: that many GPUs that do not exist


@dataclass(frozen=True)
class Gpu:
    """One visible GPU. `visible` is its word in CUDA_VISIBLE_DEVICES."""

    gpu_id: int
    visible: str
    uuid: str
    name: str


@dataclass(frozen=True)
class Device:
    """What a row runs on: a leased GPU with the lock's descriptor, or the CPU (gpu_id -1, nothing visible)."""

    gpu_id: int
    visible: str
    lock: int | None = None

    @property
    def torch_name(self) -> str:
        return torch_name(self.gpu_id)


CPU_DEVICE = Device(CPU, "")


def torch_name(gpu_id: int) -> str:
    """torch's word for a gpu_id: its process sees one GPU alone."""
    return "cpu" if gpu_id == CPU else "cuda"


def device_name(gpu_id: int) -> str:
    """A gpu_id as people read it: `cpu`, `any GPU`, `GPU 3`."""
    return {CPU: "cpu", AUTO: "any GPU"}.get(gpu_id, f"GPU {gpu_id}")


def inventory() -> tuple[Gpu, ...]:
    """The visible GPUs, numbered from 0; empty where there is no NVIDIA driver."""
    if pretended := int(os.environ.get(PRETEND, "0")):
        return tuple(Gpu(i, str(i), f"GPU-pretended-{i}", "pretended GPU") for i in range(pretended))
    installed = _installed()
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return installed
    by_word = {word: gpu for gpu in installed for word in (gpu.visible, gpu.uuid)}
    words = takewhile(by_word.__contains__, wanted.split(","))  # as CUDA does: what follows a bad word is hidden
    found = [by_word[word] for word in words]
    return tuple(Gpu(i, gpu.visible, gpu.uuid, gpu.name) for i, gpu in enumerate(found))


def _installed() -> tuple[Gpu, ...]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        names = [(pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)) for handle in handles]
        return tuple(Gpu(i, str(i), str(uuid), str(name)) for i, (uuid, name) in enumerate(names))
    finally:
        pynvml.nvmlShutdown()


@contextlib.contextmanager
def lease(request: int, preferred: int = 0, poll_secs: float = 0.2) -> Iterator[Device]:
    """Holds the device that a row asks for, waiting until it is free.

    `request` is an index, AUTO (any GPU, the one numbered `preferred` first) or CPU (no lock).
    Raises TrackaError where the host has no such GPU.
    """
    if request == CPU:
        yield CPU_DEVICE
        return
    candidates = _candidates(request, preferred)
    with contextlib.ExitStack() as held:
        while (device := _first_free(candidates, held)) is None:
            time.sleep(poll_secs)
        yield device


def _first_free(candidates: Sequence[Gpu], held: contextlib.ExitStack) -> Device | None:
    for gpu in candidates:
        with contextlib.suppress(Busy):
            file = held.enter_context(lock.hold(_lock_file(gpu), f"GPU {gpu.gpu_id}"))
            lock.sign(file, f"process {os.getpid()}")
            return Device(gpu.gpu_id, gpu.visible, file.fileno())
    return None


def _lock_file(gpu: Gpu) -> Path:
    return Path(os.environ.get(LOCKS, f"/tmp/tracka-gpus-{os.getuid()}")) / f"{gpu.uuid}.lock"


def _candidates(request: int, preferred: int) -> Sequence[Gpu]:
    gpus = inventory()
    if request == AUTO and gpus:
        first = preferred % len(gpus)
        return (*gpus[first:], *gpus[:first])
    if 0 <= request < len(gpus):
        return (gpus[request],)
    wanted = "any GPU" if request == AUTO else f"GPU {request}"
    what = f"the row asks for {wanted}, and {len(gpus)} are visible here"
    raise TrackaError(Finding("column gpu_id", what, "Run on a host that has it, or write auto or cpu"))


def worker_number() -> int:
    """The number of this worker of xdist (gw3 is 3) or of a sweep, 0 elsewhere: the GPU that it asks for first."""
    return int(os.environ.get(WORKER) or os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
