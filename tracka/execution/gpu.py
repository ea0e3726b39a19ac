"""Lists the GPUs that this process may use and the processes on them.

GPUs are numbered within the caller's CUDA_VISIBLE_DEVICES.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from ..campaign.matrix import AUTO, CPU
from ..core.artifacts import ProcessRecord
from ..core.errors import Finding
from ..core.reports import GpuRecord

PRETEND = "TRACKA_PRETEND_GPUS"  # for tests: the number of GPUs to pretend
PRETEND_NODES = "TRACKA_PRETEND_NODES"  # for tests: the folder of files that stand for the GPUs' device nodes
PRETENDED = "GPU-pretended-"  # the beginning of a pretended GPU's UUID
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Gpu:
    """One visible GPU.

    `visible` is the word for the GPU in CUDA_VISIBLE_DEVICES. `has_mig` says whether the GPU is divided into MIG
    instances. `node` is its file in /dev, the same for all users of the host.
    """

    gpu_id: int
    visible: str
    uuid: str
    name: str
    has_mig: bool = False
    node: Path | None = None


@dataclass(frozen=True)
class GpuProcess:
    """A process that computes on a GPU, as the driver reports it.

    `memory` is in MiB, or None where the driver does not say.
    """

    pid: int
    name: str
    memory: int | None

    def record(self) -> ProcessRecord:
        """Returns the process as manifests have it."""
        return {"pid": self.pid, "name": self.name, "memory": self.memory}

    def __str__(self) -> str:
        size = "unknown memory" if self.memory is None else f"{self.memory} MiB"
        return f"process {self.pid} ({self.name}, {size})"


@dataclass(frozen=True)
class Device:
    """The device that a row runs on: a leased GPU with the lock's descriptor and file, or the CPU.

    `node_lock` is the descriptor of the GPU's device node, which is locked too where this user may open it.

    The CPU has the gpu_id -1 and no visible GPU. The `journal` records when runs began and ended on the GPU. `others`
    are the processes that computed on the GPU when the lease began; none of them is ours.
    """

    gpu_id: int
    visible: str
    uuid: str | None = None
    lock: int | None = None
    lock_file: Path | None = None
    journal: Path | None = None
    others: tuple[GpuProcess, ...] = ()
    node_lock: int | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Returns the descriptors that hold the lease, for the supervisor that inherits it."""
        return tuple(handle for handle in (self.lock, self.node_lock) if handle is not None)

    @property
    def torch_name(self) -> str:
        return torch_name(self.gpu_id)


CPU_DEVICE = Device(CPU, "")


def torch_name(gpu_id: int) -> str:
    """Returns torch's name for a gpu_id. A row's process sees one GPU only, so the name has no number."""
    return "cpu" if gpu_id == CPU else "cuda"


def device_name(gpu_id: int) -> str:
    """Returns a gpu_id for people: `cpu`, `any GPU`, `GPU 3`."""
    return {CPU: "cpu", AUTO: "any GPU"}.get(gpu_id, f"GPU {gpu_id}")


def variables(visible: str, backend: str, cuda_to_egl: Mapping[int, int]) -> dict[str, str]:
    """Returns CUDA_VISIBLE_DEVICES and, for EGL, MUJOCO_EGL_DEVICE_ID of a GPU, in the form that robosuite 1.4 accepts.

    `visible` is the GPU's word in CUDA_VISIBLE_DEVICES. robosuite asserts that the EGL id is part of that variable.
    """
    if backend != "egl" or not visible.isdigit():
        return {VISIBLE: visible}
    egl = str(cuda_to_egl.get(int(visible), int(visible)))
    # CUDA reads the list up to the first bad index: -1 hides the id after it, and robosuite's assertion finds the id.
    return {VISIBLE: visible if egl in visible else f"{visible},-1,{egl}", "MUJOCO_EGL_DEVICE_ID": egl}


def visible_gpus() -> tuple[Gpu, ...]:
    """Returns the visible GPUs, numbered from 0, or none without an NVIDIA driver.

    CUDA_VISIBLE_DEVICES is read as CUDA reads it: each word is an index, a UUID or the beginning of a UUID, and a bad
    or repeated word hides itself and all words after it.
    """
    if pretended := int(os.environ.get(PRETEND, "0")):
        return tuple(
            Gpu(i, str(i), f"{PRETENDED}{i}", "pretended GPU", node=_pretended_node(i)) for i in range(pretended)
        )
    installed = _installed()
    visible_words = os.environ.get(VISIBLE)
    if visible_words is None:
        return installed
    gpus: list[Gpu] = []
    for word in visible_words.split(","):
        gpu = _gpu_by_word(word.strip(), installed)
        if gpu is None or gpu in gpus:
            break
        gpus.append(gpu)
    return tuple(replace(gpu, gpu_id=i) for i, gpu in enumerate(gpus))


def _pretended_node(number: int) -> Path | None:
    folder = os.environ.get(PRETEND_NODES)
    return Path(folder) / f"nvidia{number}" if folder else None


def _gpu_by_word(word: str, installed: tuple[Gpu, ...]) -> Gpu | None:
    """Returns the GPU that a word of CUDA_VISIBLE_DEVICES names, or None where the word names none or several."""
    matches = [gpu for gpu in installed if word == gpu.visible or _is_uuid_prefix(gpu.uuid, word)]
    return matches[0] if len(matches) == 1 else None


def _is_uuid_prefix(uuid: str, word: str) -> bool:
    return word.startswith("GPU-") and uuid.startswith(word)


def problem() -> Finding | None:
    """Returns why the visible GPUs cannot be leased one by one, or None if they can."""
    words = os.environ.get(VISIBLE, "").split(",")
    mig_gpus = [f"GPU {gpu.gpu_id}" for gpu in visible_gpus() if gpu.has_mig]
    remedy = "Lease whole GPUs (nvidia-smi -mig 0), or set gpu_id to cpu"
    if any(word.strip().startswith("MIG-") for word in words):
        return Finding(VISIBLE, "the variable names a MIG instance, which cannot render: MIG has no graphics", remedy)
    if mig_gpus:
        what = "divided into MIG instances, which cannot render: MIG has no graphics"
        return Finding(", ".join(mig_gpus), what, remedy)
    return None


def processes(uuid: str | None) -> tuple[GpuProcess, ...]:
    """Returns the processes that compute on a GPU now, as the driver reports them, or none without a driver."""
    if uuid is None or os.environ.get(PRETEND):
        return ()
    with opened() as nvml:
        if nvml is None:
            return ()
        try:
            running = nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByUUID(uuid))
        except nvml.NVMLError:
            return ()
        return tuple(GpuProcess(process.pid, _name(process.pid), _mib(process.usedGpuMemory)) for process in running)


@dataclass(frozen=True)
class GpuState:
    """What the driver reports of one GPU now. Memory is in MiB, or None where the driver does not say."""

    gpu_id: int
    name: str
    uuid: str
    memory_total: int | None
    memory_free: int | None
    processes: tuple[str, ...]

    def record(self) -> GpuRecord:
        """Returns the state as preflight's report has it."""
        return {
            "gpu_id": self.gpu_id,
            "name": self.name,
            "uuid": self.uuid,
            "memory_total": self.memory_total,
            "memory_free": self.memory_free,
            "processes": self.processes,
        }


def states(gpus: Sequence[Gpu]) -> tuple[GpuState, ...]:
    """Returns the state of each of `gpus`. Of pretended GPUs only the name and the UUID are known."""
    with opened() as nvml:
        library = None if os.environ.get(PRETEND) else nvml
        return tuple(
            GpuState(gpu.gpu_id, gpu.name, gpu.uuid, *_memory(library, gpu.uuid), tuple(map(str, processes(gpu.uuid))))
            for gpu in gpus
        )


def _memory(nvml: Any, uuid: str) -> tuple[int | None, int | None]:
    if nvml is None:
        return None, None
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(uuid))
    except nvml.NVMLError:
        return None, None
    return int(memory.total) >> 20, int(memory.free) >> 20


def driver() -> tuple[str, str] | None:
    """Returns the driver's version and the newest CUDA that the driver runs, such as 580.65 and 13.0.

    Returns None without a driver.
    """
    with opened() as nvml:
        if nvml is None:
            return None
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        return str(nvml.nvmlSystemGetDriverVersion()), f"{cuda // 1000}.{cuda % 1000 // 10}"


def _name(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).name()
    return "unknown"


def _mib(size: int | None) -> int | None:
    return None if size is None else size >> 20


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """Yields NVIDIA's management library, open inside this block, or None without a driver.

    Opening it takes tens of milliseconds, but nothing inside a block in which it is open already.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _installed() -> tuple[Gpu, ...]:
    with opened() as nvml:
        if nvml is None:
            return ()
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        return tuple(
            Gpu(
                i,
                str(i),
                str(nvml.nvmlDeviceGetUUID(gpu)),
                str(nvml.nvmlDeviceGetName(gpu)),
                _has_mig(nvml, gpu),
                _node(nvml, gpu),
            )
            for i, gpu in enumerate(handles)
        )


def _node(nvml: Any, handle: Any) -> Path | None:
    """Returns the GPU's file in /dev, which has the GPU's minor number; None where the driver does not say it."""
    try:
        return Path(f"/dev/nvidia{nvml.nvmlDeviceGetMinorNumber(handle)}")
    except nvml.NVMLError:
        return None


def _has_mig(nvml: Any, handle: Any) -> bool:
    """Returns whether MIG is on. MIG counts as off on a GPU that does not support it."""
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError:
        return False
