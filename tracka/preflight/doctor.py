"""Looks this machine over for what a campaign would miss, without a campaign and within a minute.

Guarantees: torch, lerobot and MuJoCo are imported in child processes alone; nothing is installed, leased or kept on the
disk; a check that hangs or breaks is reported as such and hides no other; a small installation is looked over too.
"""

import os
import platform
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from .. import __version__
from ..core import files, installation, schema
from ..core.check import Check, advisory_check, required_check, run_check
from ..core.reports import DoctorReport
from ..engines import software
from ..execution import environment, gpu
from ..execution.gpu import CPU_DEVICE, Device
from ..install import gl
from . import batch_fit, cluster, drawing, host, hub_access, inventory, simulator_validity

MOST_SECS = 50.0  # for all checks together
ARTIFACTS_MIB = 1024  # a campaign of a hundred rows leaves less
WORDS = {"pass": "ok", "warn": "warning", "fail": "missing"}
# Holds the lock file of its argument for a moment: exit code 0 where nobody else holds it.
TRY_LOCK = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'rb'), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def report(folder: Path) -> DoctorReport:
    """Returns every check of this machine, for campaigns below `folder`, in the order in which one mends things."""
    start = time.monotonic()
    checks = within(MOST_SECS, steps(folder))
    worst = next((status for status in ("fail", "warn") if any(check.status == status for check in checks)), "pass")
    return {
        "schema_version": schema.VERSION,
        "generated_at_utc": files.utc_now(),
        "tracka_version": __version__,
        "status": WORDS[worst],
        "checks": [{**check.record(), "status": WORDS[check.status]} for check in checks],
        "seconds": round(time.monotonic() - start, 3),
    }


def steps(folder: Path) -> dict[str, Callable[[], Sequence[Check]]]:
    """Returns the checks by the name under which one that gives no answer is reported."""
    found: dict[str, Callable[[], Sequence[Check]]] = {"python": _python, "software": _software}
    if runs_campaigns():
        found |= {"packages": lambda: [host.packages()], "libero": host.libero}
    found |= {"opengl": _opengl}
    if runs_campaigns():
        found |= {"rendering": lambda: [drawing.check(_first_device())]}
    found |= {
        "gpus": _gpus,
        "memory": lambda: [_memory(folder)],
        "disk": lambda: _disks(folder),
        "limits": lambda: [host.limits(), _temporary()],
        "locks": lambda: [_locks(folder)],
        "clock": lambda: [host.clock(folder)],
        "hub": lambda: [hub_access.check()],
    }
    return found | ({"slurm": lambda: [_slurm()]} if shutil.which("sinfo") else {})


def runs_campaigns() -> bool:
    """Returns whether what runs campaigns is installed, and not only what reads their artifacts."""
    return all(find_spec(name) is not None for name in ("lerobot", "mujoco", "pytest", "pynvml"))


def within(seconds: float, steps: Mapping[str, Callable[[], Sequence[Check]]]) -> list[Check]:
    """Returns the checks of all steps, which run at the same time; a step without an answer by then is a warning."""
    answers: queue.SimpleQueue[tuple[str, Sequence[Check]]] = queue.SimpleQueue()
    for name, step in steps.items():
        # A daemon, since a file system that does not answer must not keep the command from ending.
        threading.Thread(target=lambda n=name, s=step: answers.put((n, _checks(n, s))), daemon=True).start()
    found: dict[str, Sequence[Check]] = {}
    deadline = time.monotonic() + seconds
    while len(found) < len(steps):
        try:
            name, checks = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        found[name] = checks
    late = f"no answer within {seconds:g} s"
    return [check for name in steps for check in found.get(name, [_unknown(name, late)])]


def _checks(name: str, step: Callable[[], Sequence[Check]]) -> Sequence[Check]:
    """Returns the checks of a step, or one that says how the step broke, since a doctor sees broken machines."""
    start = time.monotonic()
    try:
        checks = step()
    except Exception as error:
        return [_unknown(name, f"could not be checked: {type(error).__name__}: {error}")]
    return [replace(check, seconds=round(time.monotonic() - start, 3)) for check in checks]


def _unknown(name: str, evidence: str) -> Check:
    return Check(name, "warn", files.redacted(evidence), "Run `tracka doctor` again, alone on this machine", False)


def _python() -> list[Check]:
    version = platform.python_version()
    evidence = f"{version}, {sys.executable}; Track A {__version__}"
    return [required_check("python", version.startswith("3.12."), evidence, "Make a new environment: uv venv -p 3.12")]


def _software() -> list[Check]:
    """Checks lerobot and the simulator, and in a small installation says what is missing as one thing."""
    versions = software.versions()
    if runs_campaigns():
        return [host.lerobot(), _pinned_mujoco(versions["mujoco"])]
    missing = [name for name, version in versions.items() if version == "missing"]
    evidence = f"what runs campaigns is not installed ({', '.join(missing) or 'pytest, nvidia-ml-py'} missing); "
    evidence += "`tracka verify`, `bundle`, `validate` and `export` work without it"
    return [required_check("software", False, evidence, f"Run `{installation.SETUP}`")]


def _pinned_mujoco(version: str) -> Check:
    pinned = simulator_validity.table()["mujoco"]
    page = installation.page("simulator-validity.md")
    remedy = f"Run `{installation.SETUP}`: another MuJoCo changes LIBERO's tasks ({page})"
    return required_check("version:mujoco", version == pinned, f"{version}, the benchmark's is {pinned}", remedy)


def _opengl() -> list[Check]:
    missing, needed = gl.missing_gl_libraries(), gl.missing_gl_libraries(needed_only=True)
    evidence = f"missing: {', '.join(missing)}" if missing else "all of Mesa's libraries are here"
    check = advisory_check("opengl", not missing, evidence, f"Run as root: {gl.install_command()}")
    return [replace(check, status="fail", required=True) if needed else check]


def _first_device() -> Device:
    gpus = gpu.visible_gpus()
    return Device(gpus[0].gpu_id, gpus[0].visible, gpus[0].uuid) if gpus else CPU_DEVICE


def _gpus() -> list[Check]:
    """Lists the GPUs and their driver; a machine without GPUs can run campaigns of the CPU, so that is no failure."""
    if find_spec("pynvml") is None:
        return [_gpu_check(inventory.gpu_names(), "as nvidia-smi lists them")]
    gpus, driver = gpu.visible_gpus(), gpu.driver()
    check = _gpu_check(inventory.gpu_names(), f"driver {driver[0]}" if driver else "no NVIDIA driver")
    if problem := gpu.problem():
        check = replace(check, status="warn", evidence=f"{check.evidence}; {problem.what}", remedy=problem.remedy)
    return [check, host.cuda(True)] if gpus and runs_campaigns() else [check]


def _gpu_check(names: Sequence[str], source: str) -> Check:
    kinds = [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
    visible = os.environ.get(gpu.VISIBLE)
    hidden = "" if visible is None else f"; {gpu.VISIBLE} is {visible!r}"
    evidence = "; ".join(filter(None, [", ".join(kinds) or "no GPU is visible", source])) + hidden
    remedy = "`nvidia-smi` must list the GPUs: install NVIDIA's driver, or start the container with --gpus all. "
    return advisory_check("gpus", bool(names), evidence, remedy + "Without a GPU: tracka init NAME --gpus 0")


def _memory(folder: Path) -> Check:
    """Compares memory and cores with what the environments of one row take at the same time under lerobot-eval."""
    room = batch_fit.measure(folder)
    slots = (room.memory - batch_fit.BASE_MB) // batch_fit.SLOT_MB
    evidence = f"{room.memory / 1000:.1f} GB free and {room.cores} cores; one environment of lerobot-eval takes "
    evidence += f"{batch_fit.SLOT_MB / 1000:.1f} GB and a core: room for a batch of {max(0, min(slots, room.cores))}"
    remedy = "Close other programs, or use a host with 8 GB or more; `tracka propose` fits a campaign's batches"
    return advisory_check("memory", slots >= 1, evidence, remedy)


def _disks(folder: Path) -> list[Check]:
    """Checks room for artifacts, and for a checkpoint in the hub's cache, which only warns: it may be there already."""
    cache = host.disk("disk:cache", Path(environment.hf_home()), host.CACHE_MIB, 1000)
    artifacts = host.disk("disk:artifacts", folder, ARTIFACTS_MIB, 1000)
    return [artifacts, replace(cache, status="warn" if cache.status == "fail" else cache.status, required=False)]


def _temporary() -> Check:
    place = tempfile.gettempdir()
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize >> 20
    evidence = f"{free} MiB free in {place}"
    return advisory_check("temporary", free >= ARTIFACTS_MIB, evidence, "Run `export TMPDIR=/a/larger/folder`")


def _locks(folder: Path) -> Check:
    """Checks that a second process sees a lock of this one, since locks keep two rows from one GPU."""
    remedy = f"Keep campaigns on a file system with locks (flock) that you may write to, not in {folder}"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".tracka-doctor-") as file:
            argv = [sys.executable, "-I", "-S", "-c", TRY_LOCK, file.name]
            alone, held = _tries(argv, file.fileno())
    except OSError as error:
        return required_check("locks", False, f"{folder}: {error.strerror}", remedy)
    words = "are seen by other processes" if (alone, held) == (True, False) else "do not work"
    return required_check("locks", (alone, held) == (True, False), f"locks on files in {folder} {words}", remedy)


def _tries(argv: Sequence[str], descriptor: int) -> tuple[bool, bool]:
    """Returns whether another process gets the lock: before this process holds it, and while it does."""
    import fcntl

    def gets_it() -> bool:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20).returncode == 0

    alone = gets_it()
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return alone, gets_it()


def _slurm() -> Check:
    check = run_check("slurm", cluster.controller)
    if check.status == "pass":
        return replace(check, required=False)
    return replace(check, status="warn", required=False, remedy="Run `scontrol ping`; rows run here without Slurm")
