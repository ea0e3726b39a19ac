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
def hold(path: Path, what: str, wait: bool = False) -> Iterator[IO[str]]:
    """Holds the lock file `path` and yields it open, with the last holder's text in it until it is written.

    Raises Busy at once where another process holds it, unless told to `wait`.
    """
    files.make_folder(path.parent)
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(number, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = file.read().strip() or "unknown"
            raise Busy(Finding(str(path), f"{what} is held by {holder}", "Wait for it, or end it")) from None
        yield file


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
