"""Asks git for a folder's commit and for changes since that commit.

The functions return None where git has no answer.
"""

import os
import subprocess
from pathlib import Path

from . import files, system_errors
from .files import Json


def commit(folder: Path) -> str | None:
    """Returns the commit checked out in `folder`, or None outside a repository and before its first commit."""
    return _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")


def state(folder: Path) -> Json:
    """Returns a checkout's commit, whether files differ from the commit, and the origin's URL without a password."""
    status = _git(folder, "status", "--porcelain")
    remote = _git(folder, "config", "--get", "remote.origin.url")
    return {
        "commit": commit(folder),
        "dirty": None if status is None else bool(status),
        "remote": files.without_password(remote) if remote else None,
    }


def revision(folder: Path) -> str:
    """Returns the state of a checkout as one word: its commit, followed by `.dirty` if files differ from the commit."""
    checkout = state(folder)
    return f"{(checkout['commit'] or 'unknown')[:12]}{'.dirty' if checkout['dirty'] else ''}"


def _git(folder: Path, *words: str) -> str | None:
    """Returns what a git command prints, or None where the command fails, takes longer than 30 s, or git is missing.

    Raises OSError where the system starts no process: the commit is part of what a row's outcome depends on.
    """
    # Inside a git hook these variables point to another repository than the folder's.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *words]
    try:
        completed = subprocess.run(
            command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
        )
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        if system_errors.limit(error):
            raise
        return None
    return completed.stdout.strip() if completed.returncode == 0 else None
