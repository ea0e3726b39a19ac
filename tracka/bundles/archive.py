"""Writes and reads a bundle's archive: a tar whose bytes follow from the names and contents of its files alone.

Guarantees: the same files give the same bytes, on every machine; an archive is written whole or not at all; what is
read stays inside the folder that it is read into, and only regular files of bounded size come out of an archive.
"""

import contextlib
import hashlib
import io
import os
import re
import shlex
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from ..campaign.layout import Layout
from ..core import files, reading, system_errors
from ..core.errors import Finding, TrackaError, UsageError, shortened
from .contents import MOST_BYTES, MOST_FILES

Source = Path | bytes
REMEDY = "Ask for the bundle again; tracka bundle makes it"
NAME_BUNDLE = "Name the file that `tracka bundle CAMPAIGN` wrote"
_MODE = 0o644


class _Sink(Protocol):
    """What tarfile writes to."""

    def write(self, data: bytes, /) -> object: ...


@dataclass(frozen=True)
class Archive:
    """An archive read into `folder`: the name of its one top folder, and its files by their names below that."""

    folder: Path
    top: str
    names: tuple[str, ...]
    sha256: str

    def path(self, name: str) -> Path:
        """Returns where the file `name` lies."""
        return self.folder / self.top / name

    def content(self, name: str) -> bytes:
        """Returns the content of the small file `name`; empty where there is none."""
        return reading.content(self.path(name)) if name in self.names else b""


def write(path: Path, top: str, members: Mapping[str, Source]) -> None:
    """Writes the archive `path` with `members` below the folder `top`.

    Raises TrackaError where a file changes meanwhile, as in a campaign that is running.
    """
    with system_errors.about(path):
        files.make_folder(path.absolute().parent)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                _write(file, top, members)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def sha256(top: str, members: Mapping[str, Source]) -> str:
    """Returns the sha256 of the archive that `write` would write."""
    sink = _Hash()
    _write(sink, top, members)
    return sink.hexdigest()


class _Hash:
    """A file of which only the hash is kept."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return len(data)

    def hexdigest(self) -> str:
        """Returns the hash of what was written."""
        return self._hash.hexdigest()


def _write(file: "_Sink", top: str, members: Mapping[str, Source]) -> None:
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for name in sorted(members):
            with _opened(members[name]) as (content, size):
                entry = tarfile.TarInfo(f"{top}/{name}")
                entry.size, entry.mode = size, _MODE  # time, owner and group are 0
                _add(tar, entry, content)


def _add(tar: tarfile.TarFile, entry: tarfile.TarInfo, content: IO[bytes]) -> None:
    try:
        tar.addfile(entry, content)
    except OSError as error:
        if error.errno is not None:
            raise
        what = "the file changed while it was read; the campaign may be running"  # it was shorter than its size
        raise TrackaError(Finding(entry.name, what, "Make the bundle when the session has ended")) from None


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[tuple[IO[bytes], int]]:
    if isinstance(source, bytes):
        yield io.BytesIO(source), len(source)
        return
    with reading.opened(source, reading.OUTPUT) as file:
        yield file, os.fstat(file.fileno()).st_size


def read(path: Path, folder: Path) -> Archive:
    """Reads the archive `path` into `folder`.

    Raises UsageError where there is no such file, where the file is not an archive or a damaged one, and where it holds
    what is never in a bundle.
    """
    if finding := _other_place(path):
        raise UsageError(finding)
    try:
        with reading.opened(path, MOST_BYTES) as file, _tar(path, file) as tar:
            names = _extract(tar, folder, _refuse(path))
        digest = reading.sha256(path)
    except OSError as error:  # also a name in the archive that no file here can have
        raise UsageError(Finding(str(path), f"the bundle cannot be read ({shortened(error)})", REMEDY)) from None
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UsageError(Finding(str(path), f"the archive is damaged ({shortened(error)})", REMEDY)) from None
    tops = {PurePosixPath(name).parts[0] for name in names}
    if len(tops) != 1:
        _refuse(path)(f"{len(tops)} folders at the top, where a bundle has one")
    (top,) = tops
    return Archive(folder, top, tuple(name.removeprefix(f"{top}/") for name in names), digest)


def _other_place(path: Path) -> Finding | None:
    """Returns a finding where `path` names nothing, or a folder such as that of a campaign."""
    if not os.path.lexists(path):
        return Finding(str(path), "there is no such file", NAME_BUNDLE)
    if not path.is_dir():
        return None
    if Layout(path).has_settings:
        what = "this is the folder of a campaign, not a bundle"
        return Finding(str(path), what, f"Write its bundle first: tracka bundle {shlex.quote(str(path))}")
    return Finding(str(path), "this is a folder, not a bundle", NAME_BUNDLE)


def _tar(path: Path, file: IO[bytes]) -> tarfile.TarFile:
    """Returns the archive in an open file. Raises UsageError where the file is not an archive at all."""
    try:
        return tarfile.open(fileobj=file, mode="r:")
    except tarfile.TarError:
        what = "this is not a bundle: a bundle is a tar archive, and this file is not one"
        raise UsageError(Finding(str(path), what, NAME_BUNDLE)) from None


def _refuse(path: Path) -> Callable[[str], None]:
    def refuse(what: str) -> None:
        raise UsageError(Finding(str(path), f"the archive holds what is never in a bundle: {what}", REMEDY))

    return refuse


def _extract(tar: tarfile.TarFile, folder: Path, refuse: Callable[[str], None]) -> list[str]:
    """Writes the files of `tar` below `folder`, and returns their names in the order of the archive."""
    names: dict[str, None] = {}
    left = MOST_BYTES
    for entry in tar:
        parts, left = entry.name.split("/"), left - entry.size
        if not entry.isreg() or entry.issparse():
            refuse(f"{shortened(entry.name)!r}, which is not a regular file")
        is_text = not re.search("[\0\ud800-\udfff]", entry.name)  # no bytes but UTF-8
        if len(parts) < 2 or not all(parts) or {".", ".."} & {*parts} or not is_text:
            refuse(f"the name {shortened(entry.name)!r}")
        if entry.name in names or len(names) >= MOST_FILES or entry.size > reading.OUTPUT or left < 0:
            refuse(f"{shortened(entry.name)!r}, which comes twice or is too much")
        names[entry.name] = None
        target = folder / entry.name
        files.make_folder(target.parent)
        _copy(tar.extractfile(entry), target)
    if not names:
        refuse("no file")
    return [*names]


def _copy(content: IO[bytes] | None, target: Path) -> None:
    assert content is not None  # of a regular file
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while block := content.read(reading.BLOCK):
            file.write(block)
