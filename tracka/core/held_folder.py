"""Makes temporary folders that end with the process that made them, and removes those of dead processes.

A process holds a lock on its folder as long as it lives. The lock ends with the process, even by KILL, so that every
later process can tell which folders nobody needs any more.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "tracka-held-"
_UNLOCKED = "tracka-new-"  # the name of a folder that its maker has not locked yet
_MAKING_SECS = 60.0  # far longer than a process takes from making a folder to locking it


@contextlib.contextmanager
def make() -> Iterator[Path]:
    """Makes a temporary folder and removes it at the end of the block."""
    new = Path(tempfile.mkdtemp(prefix=_UNLOCKED))
    with open_folder(new) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        folder = new.rename(new.with_name(new.name.replace(_UNLOCKED, PREFIX, 1)))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """Yields a descriptor of the folder, on which a process may wait for the folder's lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Returns whether the process that made `folder` lives. Returns True where this user may not know."""
    try:
        with open_folder(folder) as descriptor:
            return is_locked(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def is_locked(descriptor: int) -> bool:
    """Returns whether another process holds the lock of the folder that `descriptor` is open on."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def remove_of_dead() -> None:
    """Removes this user's folders, in the place for temporary files, whose process has died."""
    place = Path(tempfile.gettempdir())
    unfinished = [path for path in place.glob(f"{_UNLOCKED}*") if time.time() - _made_at(path) > _MAKING_SECS]
    for path in (*place.glob(f"{PREFIX}*"), *unfinished):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid == os.getuid() and not is_held(path):
                shutil.rmtree(path, ignore_errors=True)


def _made_at(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()
