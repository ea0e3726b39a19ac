"""Says what an error of the operating system means: the reason in one word, which file it is about, and the remedy.

Guarantee: a message names the file where the system names one, and never says None.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from .errors import Finding, UsageError

DISK_FULL, READ_ONLY, FILE_LIMIT, PROCESS_LIMIT = "disk_full", "read_only", "file_limit", "process_limit"
REMEDIES = {
    DISK_FULL: "Free space on the disk of that file (`df -h`), or raise the quota (`quota -s`), then run it again",
    READ_ONLY: "Mount the disk of that file writable, or name a folder on another disk, then run it again",
    FILE_LIMIT: "Raise the limit of open files (`ulimit -n`), or run fewer rows at a time",
    PROCESS_LIMIT: "Raise the limit of processes (`ulimit -u`, a container's pids.max) or of memory, or run fewer rows",
}
OTHER_REMEDY = "Name a path that you can use, or mend the cause, then run it again"
_REASONS = {
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: DISK_FULL,
    errno.EROFS: READ_ONLY,
    errno.EMFILE: FILE_LIMIT,
    errno.ENFILE: FILE_LIMIT,
    errno.EAGAIN: PROCESS_LIMIT,  # what fork() says where a limit of processes is reached
    errno.ENOMEM: PROCESS_LIMIT,  # the same, where there is no memory for one
}
_CIRCLE = re.compile(r"Symlink loop from '(.*)'")  # what Path.resolve() raises as a RuntimeError
_NO_THREAD = "can't start new thread"
_WORDS = (
    (DISK_FULL, r"\[Errno (?:28|122)\]|No space left on device|Disk quota exceeded"),
    (READ_ONLY, r"\[Errno 30\]|Read-only file system"),
    (FILE_LIMIT, r"\[Errno 2[34]\]|Too many open files"),
    (PROCESS_LIMIT, r"\[Errno 11\]|Resource temporarily unavailable|can't start new thread|[Cc]annot fork"),
)


def reason(error: OSError) -> str | None:
    """Returns the reason of a failure that `error` means, or None where it means none of these."""
    return _REASONS.get(error.errno or 0)


def reason_of_text(text: str) -> str | None:
    """Returns the reason that a program's own words for such an error mean, or None where they mean none of these."""
    return next((name for name, pattern in _WORDS if re.search(pattern, text)), None)


def finding(error: OSError, where: str = "the system") -> Finding:
    """Returns the error as a finding. `where` is said where the system names no file."""
    words = error.strerror or str(error) or type(error).__name__
    return Finding(str(error.filename or error.filename2 or where), words, remedy(error))


def remedy(error: OSError) -> str:
    """Returns what helps against `error`."""
    return REMEDIES.get(reason(error) or "", OTHER_REMEDY)


def limit(error: BaseException) -> OSError | None:
    """Returns the error of the system where `error` means that a limit of processes, threads, files or memory is met.

    Python raises a RuntimeError for a thread that is refused, and a MemoryError for memory. Returns None for any other
    error.
    """
    if isinstance(error, MemoryError):
        return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return OSError(errno.EAGAIN, _NO_THREAD)
    return error if isinstance(error, OSError) and reason(error) in (FILE_LIMIT, PROCESS_LIMIT) else None


@contextlib.contextmanager
def as_own_errors() -> Iterator[None]:
    """Raises a `limit` of the system as OSError, and links that lead round in a circle as UsageError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if circle := _CIRCLE.match(str(error)):
            what = "its links lead round in a circle"
            raise UsageError(Finding(circle[1], what, "Name another place, or mend the links")) from error
        if (refused := limit(error)) is None:
            raise
        raise refused from error


@contextlib.contextmanager
def about(path: Path) -> Iterator[None]:
    """Makes every error of the system in this block one about the file `path`, where it is about no or another file."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
