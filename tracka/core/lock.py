"""Provides file locks that end with the process that holds them.

The locks use flock, so that a child process can inherit a lock by its descriptor and no stale file can block anybody.
The file's content names the holder, for error messages only.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from . import damaged, files, system_errors
from .errors import Busy, Finding


@contextlib.contextmanager
def hold(path: Path, subject: str, wait: bool = False, shared: bool = False) -> Iterator[IO[str]]:
    """Holds the lock file `path` and yields the open file, which has the last holder's text until the caller signs it.

    Raises Busy at once where another process holds the lock, unless `wait` is set; `subject` is what its message
    calls the lock. All users of the host can use a lock that is `shared`.
    """
    files.make_folder(path.parent)
    with open_lock_file(path, shared) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = file.read(200).strip() or "unknown"
            remedy = "Wait for that process, or end it"
            raise Busy(Finding(str(path), f"{subject} is held by {holder}", remedy)) from None
        yield file


@contextlib.contextmanager
def hold_node(path: Path | None, subject: str) -> Iterator[int | None]:
    """Holds the lock on a device node and yields its descriptor; None where there is no node that may be opened.

    Nothing is written to the node. Raises Busy at once where another process of any user holds the lock.
    """
    try:
        handle = None if path is None else os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        handle = None
    if handle is None:
        yield None
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(Finding(str(path), f"{subject} is held by another user", "Wait for that user's row")) from None
        yield handle
    finally:
        os.close(handle)


def open_lock_file(path: Path, shared: bool = False) -> IO[str]:
    """Opens a file for reading and writing.

    Makes a missing file for this user alone, or for all users of the host if `shared`.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    damaged.make_way(path)
    try:
        descriptor = os.open(path, flags)  # with O_CREAT Linux refuses another user's file in a folder such as /tmp
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, 0o600)
        if shared:
            os.fchmod(descriptor, 0o666)
    return os.fdopen(descriptor, "r+", errors="replace")


def is_held(path: Path) -> bool:
    """Returns whether a process holds the lock file `path`, by the kernel's list of locks; takes no lock itself.

    Returns False where the file or that list cannot be read.
    """
    try:
        inode = f":{path.stat().st_ino}"
        held = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return False
    return any("FLOCK" in line and any(word.endswith(inode) for word in line.split()) for line in held)


def session_path(locks: Path) -> Path:
    """Returns the lock file that a session on a campaign holds; `locks` is the campaign's folder of locks."""
    return locks / ".session.lock"


@contextlib.contextmanager
def session(locks: Path, campaign: str) -> Iterator[None]:
    """Holds a campaign for one session over all its rows.

    `locks` is the campaign's folder of locks. Raises Busy at once.
    """
    with hold(session_path(locks), f"campaign {campaign}") as file:
        sign(file, f"process {os.getpid()}")
        yield


def sign(file: IO[str], text: str) -> None:
    """Replaces the content of a lock file, which the caller holds, by `text`, which names the holder."""
    descriptor = file.fileno()
    with system_errors.about(Path(f"/proc/self/fd/{descriptor}").readlink()):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)  # a buffer would fail once more as the file closes
