"""File locks that end with their process. flock, so that a child can inherit one by its descriptor and no stale file
can block anybody; the content names the holder for error messages only."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from . import files
from .errors import Busy, Finding


@contextlib.contextmanager
def hold(path: Path, what: str, wait: bool = False, shared: bool = False) -> Iterator[IO[str]]:
    """Holds the lock file `path` and yields it open, with the last holder's text in it until it is written.

    Raises Busy at once where another process holds it, unless told to `wait`. Users share a `shared` one.
    """
    files.make_folder(path.parent)
    with opened(path, shared) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = file.read(200).strip() or "unknown"
            raise Busy(Finding(str(path), f"{what} is held by {holder}", "Wait for it, or end it")) from None
        yield file


def opened(path: Path, shared: bool = False) -> IO[str]:
    """The file, made if there is none, to read and write: for this user alone, or for every one who shares the host."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        number = os.open(path, flags)  # Linux lets nobody "create" what is another user's in a folder such as /tmp
    except FileNotFoundError:
        number = os.open(path, flags | os.O_CREAT, 0o600)
        if shared:
            os.fchmod(number, 0o666)
    return os.fdopen(number, "r+", errors="replace")


@contextlib.contextmanager
def session(locks: Path, campaign: str) -> Iterator[None]:
    """Holds a campaign for one session of all its rows; `locks` is its folder of locks. Raises Busy at once."""
    with hold(locks / ".session.lock", f"campaign {campaign}") as file:
        sign(file, f"process {os.getpid()}")
        yield


def sign(file: IO[str], text: str) -> None:
    """Writes `text` as the whole content of a lock file that is held."""
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
