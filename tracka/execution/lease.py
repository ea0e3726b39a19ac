"""Leases one GPU of the host to a row, by a file lock that the row's supervisor inherits.

Guarantees: only one row at a time has a GPU, among all users and campaigns of a host; the lease lives as long as the
supervisor, and so until the last process of the row has ended, even if the harness is killed; if the supervisor is
killed too, its orphan processes are ended before the GPU is used again. A journal beside the lock records when each run
began and ended on the GPU.

The host has one folder of locks, open to every user; TRACKA_GPU_LOCKS names another folder. Users whose locks lie in
different folders share the GPU's device node, which is locked too.
"""

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..campaign.matrix import AUTO, CPU
from ..core import lock, reading
from ..core.errors import Busy, Finding, TrackaError
from . import gpu, orphans, warm_process
from .gpu import CPU_DEVICE, Device, Gpu
from .orphans import Survivor

LOCKS = "TRACKA_GPU_LOCKS"
HOST_FOLDER = "/tmp/tracka-gpus"  # not under TMPDIR, which may differ from job to job
WORKER = "TRACKA_WORKER"  # the number of a process that `tracka sweep` started
OTHER_WORKER_SECS = 30.0  # longer than an idle warm worker process lives
WANTED_SECS = 2.0  # between two questions whether a row that waits for its device is still wanted
JOURNAL_BYTES = 1 << 20  # a longer journal is emptied


@contextlib.contextmanager
def hold(
    request: int,
    preferred: int = 0,
    poll_secs: float = 0.2,
    keep: bool = False,
    require_wanted: Callable[[], None] = lambda: None,
) -> Iterator[Device]:
    """Waits until the device that a row asks for is free, and holds the device inside this block.

    `request` is an index, AUTO (any GPU, the one numbered `preferred` first) or CPU (no lock). This session's warm
    worker process on the GPU is ended unless `keep` is set. Raises TrackaError where the host has no such GPU, or where
    the folder of the locks cannot be trusted, and what `require_wanted` raises, which is called every WANTED_SECS while
    the device is awaited.
    """
    if request == CPU:
        yield CPU_DEVICE
        return
    with contextlib.ExitStack() as stack:
        asking = stack.enter_context(contextlib.ExitStack())
        asking.enter_context(gpu.opened())  # once for all questions below, not for as long as the row runs
        candidates = _candidates(request, preferred)
        folder = _folder()
        last_asked = time.monotonic()
        while (device := _first_free(candidates, folder, stack)) is None:
            if time.monotonic() - last_asked > WANTED_SECS:
                require_wanted()
                last_asked = time.monotonic()
            time.sleep(poll_secs)
        own_mark = _warm_mark(device) if keep else None
        _require_ended(device, orphans.end(orphans.LEASE, str(device.lock_file), except_marked=own_mark))
        own_workers = orphans.pids_with_mark(*own_mark) if own_mark else frozenset()
        if not own_workers:
            _wait_for_others(device, poll_secs)
        others = tuple(process for process in gpu.processes(device.uuid) if process.pid not in own_workers)
        asking.close()
        yield replace(device, others=others)


def _warm_mark(device: Device) -> tuple[str, str] | None:
    """Returns the mark, and its value, of the warm worker processes that this session keeps on the GPU for its rows.

    Those of another session are orphan processes.
    """
    session = os.environ.get(orphans.SESSION)
    if not session or device.uuid is None:
        return None
    return orphans.STANDS_BY, str(warm_process.socket_of(Path(session), device.uuid))


def _require_ended(device: Device, survivors: Sequence[Survivor]) -> None:
    """Raises TrackaError with the processes of other rows on the GPU that could not be ended."""
    what = "it still runs on the GPU for a row whose harness has died, and cannot be ended"
    remedy = "End it, or restart this host, then run the row again"
    if survivors:
        where = f"GPU {device.gpu_id}"
        raise TrackaError([Finding(f"{where}, {survivor}", what, remedy) for survivor in survivors])


def _wait_for_others(device: Device, poll_secs: float) -> None:
    """Waits until another user's warm worker process on the GPU ends, as it does when idle.

    Gives up after OTHER_WORKER_SECS.
    """
    deadline = time.monotonic() + OTHER_WORKER_SECS
    assert device.lock_file is not None
    worker_lock = warm_process.worker_lock_file(device.lock_file)
    while worker_lock.exists() and time.monotonic() < deadline:
        with contextlib.suppress(Busy), lock.hold(worker_lock, "the GPU", shared=True):
            return
        time.sleep(poll_secs)


def holder(gpu_id: int) -> str:
    """Returns who holds the lease of a visible GPU, such as `process 4242`, or an empty string if the GPU is free.

    Takes no lease, and needs no rights but to read.
    """
    gpus = gpu.visible_gpus()
    if not 0 <= gpu_id < len(gpus):
        return ""
    path = folder_path() / f"{gpus[gpu_id].uuid}.lock"
    if lock.is_held(path):
        return reading.text_or_empty(path)[:200].strip()
    node = gpus[gpu_id].node
    return f"another user, who locks {node}" if node and lock.is_held(node) else ""


def worker_number() -> int:
    """Returns the number of this worker of xdist (gw3 is 3) or of a sweep, or 0 elsewhere.

    A worker asks for the GPU with its own number first.
    """
    return int(os.environ.get(WORKER) or os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def _first_free(candidates: Sequence[Gpu], folder: Path, stack: contextlib.ExitStack) -> Device | None:
    for candidate in candidates:
        path = folder / f"{candidate.uuid}.lock"
        with contextlib.suppress(Busy), contextlib.ExitStack() as held:
            file = held.enter_context(lock.hold(path, f"GPU {candidate.gpu_id}", shared=True))
            node = held.enter_context(lock.hold_node(candidate.node, f"GPU {candidate.gpu_id}"))
            lock.sign(file, f"process {os.getpid()}")
            journal = path.with_suffix(".journal")
            _prepare_journal(journal)
            stack.enter_context(held.pop_all())
            return Device(
                candidate.gpu_id, candidate.visible, candidate.uuid, file.fileno(), path, journal, node_lock=node
            )
    return None


def _prepare_journal(path: Path) -> None:
    """Makes a missing journal and empties one that is too long. The caller must hold the lock of the GPU."""
    with lock.open_lock_file(path, shared=True) as file:
        if os.fstat(file.fileno()).st_size > JOURNAL_BYTES:
            file.truncate(0)


def folder_path() -> Path:
    """Returns where the locks and journals of this host's GPUs lie; the folder need not exist."""
    return Path(os.environ.get(LOCKS) or HOST_FOLDER)


def _folder() -> Path:
    """Returns the folder of the locks. Raises TrackaError where another user could exchange files in the folder."""
    folder = folder_path()
    if not folder.is_absolute():
        what = "the path is not absolute, so each process would have its own locks"
        raise TrackaError(
            Finding(f"{LOCKS}={folder}", what, "Name an absolute path, the same for all users of the host")
        )
    with contextlib.suppress(FileExistsError):
        folder.mkdir(parents=True)
        folder.chmod(0o1777)  # as /tmp: everybody may make files, and only their owner replaces them
    status = folder.lstat()
    is_trusted, open_to_all = status.st_uid in (0, os.getuid()), status.st_mode & 0o022
    alternative = f"name another folder in {LOCKS}, the same for all users of the host"
    if not stat.S_ISDIR(status.st_mode):
        what = "the GPU locks need a folder, and this is not a folder"
        raise TrackaError(Finding(str(folder), what, f"Remove it, or {alternative}"))
    if open_to_all and not status.st_mode & stat.S_ISVTX:
        what = "other users can replace the GPU locks in this folder"
        raise TrackaError(Finding(str(folder), what, f"Run `chmod 1777 {folder}`, or {alternative}"))
    if not is_trusted and not open_to_all:
        what = "the GPU locks lie in another user's folder, and you may not write to it"
        remedy = f"Ask the owner to run `chmod 1777 {folder}`, or {alternative}"
        raise TrackaError(Finding(str(folder), what, remedy))
    return folder


def _candidates(request: int, preferred: int) -> Sequence[Gpu]:
    if problem := gpu.problem():
        raise TrackaError(problem)
    gpus = gpu.visible_gpus()
    if request == AUTO and gpus:
        first = preferred % len(gpus)
        return (*gpus[first:], *gpus[:first])
    if 0 <= request < len(gpus):
        return (gpus[request],)
    request_name = "any GPU" if request == AUTO else f"GPU {request}"
    what = f"the row asks for {request_name}, but the number of visible GPUs is {len(gpus)}"
    raise TrackaError(Finding("column gpu_id", what, "Run the row on a host with that GPU, or write auto or cpu"))
