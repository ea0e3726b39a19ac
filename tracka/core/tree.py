"""Looks over a folder that somebody else filled, before its files are hashed or read.

Guarantees: the look ends whatever the folder holds, since it stops after `most` entries and `DEEPEST` levels, never
goes through a link to a folder, and opens no file. A folder without faults has regular files alone, few enough and
small enough to hash.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import reading
from .errors import shortened

MOST = 20_000  # entries; a checkpoint has some tens, an evaluation a few for each filmed episode
DEEPEST = 32  # folders inside each other


@dataclass(frozen=True)
class Fault:
    """One entry that keeps a folder from being read, and why."""

    path: Path
    what: str


@dataclass
class _Look:
    """What is left of the limits while a folder is looked over."""

    top: Path
    real: Path  # `top` with its links resolved
    blobs: Path | None
    most_bytes: int  # of one file
    entries: int
    all_bytes: int  # of all files together
    files: list[Path] = field(default_factory=list)
    is_over: bool = False  # whether a limit of the whole folder is passed, so that nothing more is looked at


def faults(folder: Path, most_bytes: int, all_bytes: int, most: int = MOST) -> list[Fault]:
    """Returns what keeps the files below `folder` from being hashed; an empty list where all is well.

    Links are faults unless they lead to a file of the folder itself or, in a snapshot of the hub's cache, to a blob of
    the same repository. `most_bytes` limits one file, `all_bytes` all files together, `most` the entries.
    """
    return list(_faults(_look(folder, most_bytes, all_bytes, most), folder, 0))


def sound_files(folder: Path, most_bytes: int, all_bytes: int, most: int = MOST) -> list[Path]:
    """Returns the files below `folder`, sorted by path; an empty list where `faults` finds any fault."""
    look = _look(folder, most_bytes, all_bytes, most)
    return [] if next(_faults(look, folder, 0), None) else sorted(look.files)


def _look(folder: Path, most_bytes: int, all_bytes: int, most: int) -> _Look:
    real = Path(os.path.realpath(folder))
    blobs = real.parents[1] / "blobs" if real.parent.name == "snapshots" else None
    return _Look(folder, real, blobs, most_bytes, most, all_bytes)


def _faults(look: _Look, folder: Path, level: int) -> Iterator[Fault]:
    if level > DEEPEST:
        yield Fault(folder, f"folders lie inside each other more than {DEEPEST} levels deep")
        return
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                look.entries -= 1
                if look.entries < 0:
                    look.is_over = True
                    yield Fault(look.top, "there are more files and folders than Track A looks at")
                    return
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                else:
                    yield from _file_faults(look, Path(entry.path))
    except OSError as error:
        yield Fault(folder, f"the folder cannot be read ({error.strerror})")
    for name in folders:
        if not look.is_over:
            yield from _faults(look, folder / name, level + 1)


def _file_faults(look: _Look, path: Path) -> Iterator[Fault]:
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            if what := _link_fault(look, path):
                yield Fault(path, what)
                return
            status = path.stat()
        reading.require_regular(path, status, look.most_bytes)
        if not os.access(path, os.R_OK):
            raise PermissionError(0, "you may not read it", str(path))
    except OSError as error:
        yield Fault(path, str(error.strerror))
        return
    look.files.append(path)
    look.all_bytes -= status.st_size
    if look.all_bytes < 0 and not look.is_over:
        look.is_over = True
        yield Fault(look.top, "its files claim to have more bytes together than Track A reads")


def _link_fault(look: _Look, path: Path) -> str | None:
    """Returns why a link must not be followed; None for one to a file of the folder or to a blob of the hub's cache."""
    name = shortened(path.readlink())
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError:
        return f"it is a link to {name}, which leads to nothing"
    except (OSError, RuntimeError):
        return f"it is a link to {name}, which leads round in a circle or to where nobody may look"
    if target.is_dir():
        return f"it is a link to the folder {name}, and folders are not read through links"
    if target.is_relative_to(look.real) or (look.blobs and target.parent == look.blobs):
        return None
    return f"it is a link to {name}, which is outside of the folder"
