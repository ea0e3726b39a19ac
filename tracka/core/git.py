"""What git says of a folder: its commit, and whether there are changes beside it. None where git has no answer."""

import os
import subprocess
from pathlib import Path

from . import files
from .files import Json


def commit(folder: Path) -> str | None:
    """The commit checked out in `folder`; None outside a repository or before its first commit."""
    return _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")


def state(folder: Path) -> Json:
    """Commit, whether the tree differs from it, and where it came from, without a password."""
    status = _git(folder, "status", "--porcelain")
    remote = _git(folder, "config", "--get", "remote.origin.url")
    return {
        "commit": commit(folder),
        "dirty": None if status is None else bool(status),
        "remote": files.without_password(remote) if remote else None,
    }


def revision(folder: Path) -> str:
    """The state of a checkout in one word: a commit, with `.dirty` after it if files differ."""
    found = state(folder)
    return f"{(found['commit'] or 'unknown')[:12]}{'.dirty' if found['dirty'] else ''}"


def _git(folder: Path, *words: str) -> str | None:
    # Inside a hook these variables name another repository than the folder's.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *words]
    try:
        ended = subprocess.run(
            command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout.strip() if ended.returncode == 0 else None
