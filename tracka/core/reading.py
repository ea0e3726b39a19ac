"""Opens and reads what a user, a checkpoint or an evaluation wrote: the one place that does so.

Guarantees: only regular files are read, and opening one never waits, where a named pipe without a writer would wait for
ever; no more is read than the limit of the file's kind, whatever size the file claims to have (a sparse file of a
terabyte takes no room on the disk). A file that is refused raises `Refused`, which is an OSError that names the file.
A test of the repository finds modules that read in another way.
"""

import contextlib
import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# The most bytes of each kind of file. The largest real ones are: settings and matrix of 10,000 rows 2 MiB, the JSON of
# a tokenizer 35 MiB, a page of 10,000 rows 20 MiB, an evaluation's eval_info.json of 10,000 episodes 3 MiB.
SETTINGS = 8 * MIB
MATRIX = 64 * MIB
JSON = 128 * MIB
TEXT = 128 * MIB
RESULTS = 16 * MIB  # what an evaluation writes of its episodes
State = tuple[int, int, int, int, int]  # device, inode, size, times of last modification and change
LOG = 64 * MIB  # a supervised child's log is smaller
OUTPUT = 4 * GIB  # one file that an evaluation leaves, such as a video
WEIGHTS = 128 * GIB  # one file of a checkpoint
BLOCK = MIB

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
}


class Refused(OSError):
    """Raised for a file that must not be read: one that is no regular file, or is larger than its kind may be."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(errno.EINVAL, what, str(path))

    def __str__(self) -> str:
        return str(self.strerror)


def kind(mode: int) -> str | None:
    """Returns what a file that is no regular file is, such as `a named pipe`; None for a regular file."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


@contextlib.contextmanager
def opened(path: Path, most: int, follow: bool = True) -> Iterator[IO[bytes]]:
    """Opens the regular file `path` for reading bytes; without `follow`, a link is refused.

    Raises Refused where the path names something else or the file has more than `most` bytes, and OSError as open()
    does, also for a name that no file can have.
    """
    descriptor, _ = _open(path, most, follow)
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _open(path: Path, most: int, follow: bool = True) -> tuple[int, int]:
    """Returns the descriptor and the size of a regular file. Raises OSError as `opened` does."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except ValueError as error:  # a NUL byte, or half of a surrogate pair
        raise Refused(path, f"no file can have this name ({error})") from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device without its driver
            raise Refused(path, f"it is {_kind_at(path)}, not a file") from None
        raise
    try:
        status = os.fstat(descriptor)
        require_regular(path, status, most)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, status.st_size


def _kind_at(path: Path) -> str:
    return kind(path.stat().st_mode) or "no regular file"


def require_regular(path: Path, status: os.stat_result, most: int) -> None:
    """Raises Refused where `status` is not that of a regular file with at most `most` bytes."""
    if other := kind(status.st_mode):
        raise Refused(path, f"it is {other}, not a file")
    if status.st_size > most:
        raise Refused(path, f"it claims to have {status.st_size} bytes, more than the {most} that it may have")


def state(path: Path) -> State | None:
    """Returns what tells a file from the same file after a change; None where nothing can be said of it."""
    try:
        status = os.stat(path)  # noqa: PTH116 - asked before each file that a check may have read, so it must be quick
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def content(path: Path, most: int = JSON) -> bytes:
    """Returns the bytes of a regular file.

    Raises OSError as `opened` does, and Refused for a file that grows beyond `most` bytes meanwhile.
    """
    descriptor, size = _open(path, most)
    data = b""
    try:
        # A file system over a network may give less than is asked for, the file may have grown since, and one of /proc
        # has no size. A file whose bytes are all here is not asked for its end: a second call for each of many files.
        while len(data) <= most and (block := os.read(descriptor, max(size + 1 - len(data), 0) or BLOCK)):
            data += block
            if len(data) == size:
                break
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise Refused(path, f"it has more than the {most} bytes that it may have")
    return data


def text(path: Path, most: int = TEXT, newline: str | None = None) -> str:
    """Returns the UTF-8 text of a regular file, with `newline` as open() takes it.

    Raises OSError as `content` does, and UnicodeDecodeError.
    """
    decoded = content(path, most).decode()
    return decoded.replace("\r\n", "\n").replace("\r", "\n") if newline is None and "\r" in decoded else decoded


def text_or_none(path: Path, most: int = TEXT) -> str | None:
    """Returns the text of a file, its line ends as they are; None where the file cannot be read as UTF-8."""
    try:
        return text(path, most, newline="")
    except (OSError, UnicodeDecodeError):
        return None


def text_or_empty(path: Path, most: int = TEXT) -> str:
    """Returns the text of a file with its invalid bytes replaced; an empty text where the file cannot be read."""
    try:
        return content(path, most).decode(errors="replace")
    except OSError:
        return ""


def sha256(path: Path, most: int = WEIGHTS) -> str:
    """Returns the sha256 of a regular file's content as hexadecimal text. Raises OSError as `opened` does."""
    descriptor, size = _open(path, most)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        # file_digest makes a buffer of 256 KiB for each file, and a campaign has many small ones.
        if 0 < size < MIB and len(data := file.read(MIB)) == size:
            return hashlib.sha256(data).hexdigest()
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def tail(path: Path, limit: int = 64 * KIB) -> str:
    """Returns the last `limit` bytes of a file of any size as text; an empty text where the file cannot be read.

    Invalid UTF-8 is replaced.
    """
    try:
        with opened(path, 1 << 63) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
            return file.read(limit).decode(errors="replace")
    except OSError:
        return ""


def lines(path: Path, most: int = LOG) -> Iterator[str]:
    """Yields the lines among the first `most` bytes of a file of any size; none where the file cannot be read."""
    with contextlib.suppress(OSError), opened(path, 1 << 63) as file:
        left = most
        while left > 0 and (line := file.readline(left)):
            left -= len(line)
            yield line.decode(errors="replace")


def mentions(path: Path, words: bytes, most: int = LOG) -> bool:
    """Returns whether the first `most` bytes of a file contain `words`; False for a file that cannot be read."""
    previous = b""
    with contextlib.suppress(OSError), opened(path, 1 << 63) as file:
        for _ in range(-(-most // BLOCK)):
            block = file.read(BLOCK)
            if words in previous + block:
                return True
            if not block:
                return False
            previous = block[-len(words) :]
    return False


def array(path: Path, most: int = RESULTS) -> "NDArray[Any]":
    """Returns the array in a .npy file, which is never unpickled.

    Raises OSError as `opened` does, and ValueError where the file holds no array, or one that is not wholly there.
    """
    import numpy as np

    try:
        with opened(path, most) as file:
            data = io.BytesIO(file.read(most))
        # np.load would also take archives of arrays.
        values: NDArray[Any] = np.lib.format.read_array(data, allow_pickle=False)  # type: ignore[no-untyped-call]
    except (EOFError, MemoryError, OverflowError, TypeError, SyntaxError, RecursionError) as error:
        raise ValueError(f"it is not an array ({type(error).__name__}: {error})") from None
    return values


def is_same(first: Path, second: Path, most: int = OUTPUT) -> bool:
    """Returns whether two regular files have the same content. Raises OSError as `opened` does."""
    with opened(first, most) as one, opened(second, most) as other:
        if os.fstat(one.fileno()).st_size != os.fstat(other.fileno()).st_size:
            return False
        while block := one.read(BLOCK):
            if block != other.read(BLOCK):
                return False
        return True
