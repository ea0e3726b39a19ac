"""Snapshots of this host and its software, for the record: `nvidia_smi.txt`, `pip_freeze.txt`, `env_snapshot.json`."""

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from . import __version__, environment, files, plan, schema
from .files import Json


def write(folder: Path) -> None:
    """Writes the three snapshots into `folder`."""
    files.write_text(folder / "nvidia_smi.txt", nvidia_smi())
    files.write_text(folder / "pip_freeze.txt", pip_freeze())
    files.write_json(folder / "env_snapshot.json", env_snapshot())


def nvidia_smi() -> str:
    """One line a GPU, as `nvidia-smi -L` prints them; empty where there is no driver that answers."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        ended = subprocess.run([program, "-L"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout if ended.returncode == 0 else ""


def pip_freeze() -> str:
    """Every installed distribution, `name==version`; no address, so no credentials in one."""
    found = {f"{item.metadata['Name']}=={item.version}" for item in metadata.distributions() if item.metadata["Name"]}
    return "".join(f"{line}\n" for line in sorted(found, key=str.casefold))


def env_snapshot() -> Json:
    passed = {name: value for name, value in os.environ.items() if environment.PASSED.fullmatch(name)}
    return {
        "schema_version": schema.VERSION,
        "generated_at_utc": files.utc_now(),
        "tracka_version": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "versions": plan.versions(),
        "git": git_state(Path.cwd()),
        "env": environment.shown(passed),
    }


def git_commit(folder: Path) -> str | None:
    """The commit checked out in `folder`; None outside a repository or before its first commit."""
    return _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")


def git_state(folder: Path) -> Json:
    status = _git(folder, "status", "--porcelain")
    remote = _git(folder, "config", "--get", "remote.origin.url")
    return {
        "commit": git_commit(folder),
        "dirty": None if status is None else bool(status),
        "remote": environment.without_password(remote) if remote else None,
    }


def _git(folder: Path, *words: str) -> str | None:
    try:
        ended = subprocess.run(
            ["git", *words], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout.strip() if ended.returncode == 0 else None
