"""Writes snapshots of this host and its software, for the record.

They are `nvidia_smi.txt`, `pip_freeze.txt`, `env_snapshot.json`, and the log of the set-up that made this environment.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil

from .. import __version__
from ..core import files, git, reading, schema
from ..core.reports import EnvSnapshot, HostFacts, SoftwareFacts
from ..engines import cli_capabilities, software
from ..execution import environment, gpu
from ..install import setup


def write(folder: Path) -> None:
    """Writes the three snapshots into `folder`, and `setup.log` unless the folder has one that is at least as new."""
    files.write_text(folder / "nvidia_smi.txt", nvidia_smi())
    files.write_text(folder / "pip_freeze.txt", pip_freeze())
    files.write_json(folder / "env_snapshot.json", env_snapshot())
    log, current_log = folder / "setup.log", setup.log_file(Path(sys.prefix))
    if not log.is_file() or (current_log.is_file() and current_log.stat().st_mtime > log.stat().st_mtime):
        files.write_text(log, setup_log())


def setup_log() -> str:
    """Returns what `tracka setup` printed when it made this environment, or that set-up did not make it."""
    log = setup.log_file(Path(sys.prefix))
    return reading.text_or_empty(log) or f"{sys.prefix} was not made by tracka setup\n"


def nvidia_smi() -> str:
    """Returns one line for each GPU, as `nvidia-smi -L` prints them; an empty text if no driver answers."""
    if os.environ.get(gpu.PRETEND):
        return "".join(f"GPU {item.gpu_id}: {item.name} (UUID: {item.uuid})\n" for item in gpu.visible_gpus())
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        completed = subprocess.run(
            [program, "-L"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return completed.stdout if completed.returncode == 0 else ""


def gpu_names() -> list[str]:
    """Returns the names of the visible GPUs, by nvidia-smi in a small installation, which has no NVML."""
    if find_spec("pynvml") is None:
        return [re.sub(r"^GPU \d+: | \(UUID.*$", "", line) for line in nvidia_smi().splitlines()]
    return [visible_gpu.name for visible_gpu in gpu.visible_gpus()]


def pip_freeze() -> str:
    """Returns every installed distribution as `name==version`, without addresses, which could hold credentials."""
    requirements = {f"{name}=={version}" for name, version, _ in cli_capabilities.distributions() if name}
    return "".join(f"{line}\n" for line in sorted(requirements, key=str.casefold))


def env_snapshot() -> EnvSnapshot:
    """Returns what this host and its software are. Hosts with equal fingerprints agree in all that these cover."""
    inherited = {name: value for name, value in os.environ.items() if environment.INHERITED.fullmatch(name)}
    software, host = software_facts(), host_facts()
    return {
        "schema_version": schema.VERSION,
        "generated_at_utc": files.utc_now(),
        **software,
        **host,
        "git": git.state(Path.cwd()),
        "env": environment.manifest_environment(inherited),
        "fingerprints": {
            "software": files.sha256(files.canonical(software | {"packages": pip_freeze()})),
            "host": files.sha256(files.canonical(host)),
        },
    }


def software_facts() -> SoftwareFacts:
    """Returns the versions of Track A, Python and the simulation."""
    return {"tracka_version": __version__, "python": sys.version, "versions": software.versions()}


def host_facts() -> HostFacts:
    """Returns the facts that stay the same as long as the host does: no free space, no usage, no counters."""
    return {
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpu_count": os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total >> 20,
        "driver": gpu.driver(),
        "gpus": [{"name": visible_gpu.name, "uuid": visible_gpu.uuid} for visible_gpu in gpu.visible_gpus()],
    }


def _cpu() -> str:
    """Returns the processor's name, from a file on Linux, where `platform` knows only its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    model_names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(model_names, platform.processor() or platform.machine())
