"""The sha256 of every file of a folder, read again only where it changed: a pi0 is 9 GB."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import files

Stamp = list[int]  # size, times of the last modification and change, inode


@dataclass(frozen=True)
class Kind:
    """Which files of a folder count: by their suffixes, but for those in folders that are left out or hidden, and in
    virtual environments. Links to files are followed, those to folders only where that is said."""

    suffixes: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    follows_links: bool = False


# The code in a checkout, which may hold environments, data and results besides.
SOURCES = Kind((".c", ".cc", ".cpp", ".cu", ".h", ".py", ".pyx", ".so"), left_out=("__pycache__", "node_modules"))


def of_tree(folder: Path) -> str:
    """One hash for the paths and contents of all files below `folder`."""
    return files.sha256(files.canonical(of_files(folder)))


def of_files(folder: Path) -> dict[str, str]:
    """The sha256 of every file below `folder`, by its path there.

    Contents are read again only where size, inode or one of the times differ from the last time.
    """
    store = cache_folder() / "trees" / f"{files.sha256(str(folder).encode())}.json"
    return _digests(
        folder, {str(path.relative_to(folder)): stamp(path.stat()) for path in files.walk_files(folder)}, store
    )


def of_kind(place: Path, kind: Kind) -> str:
    """One hash for the paths and contents of the files of this kind below the folder `place`, or of the file itself."""
    if place.is_file():
        return files.sha256_file(place)
    stamps = dict(_stamps(str(place), "", kind, frozenset()))
    if (known := _kinds.get((place, kind))) and known[0] == stamps:
        return known[1]
    store = cache_folder() / "trees" / f"{files.sha256(f'{place} {kind}'.encode())}.json"
    digests = _digests(place, stamps, store)
    answer = files.sha256(files.canonical(digests))
    _kinds[place, kind] = stamps, answer
    return answer


_kinds: dict[tuple[Path, Kind], tuple[dict[str, Stamp], str]] = {}  # what this process has hashed


def _stamps(place: str, below: str, kind: Kind, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, Stamp]]:
    """The stamps of the files that count, by their paths below the folder. A link to a folder above is left out."""
    try:
        with os.scandir(f"{place}/{below}") as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError:
        return
    if below and any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in kind.left_out:
            continue
        if entry.is_dir(follow_symlinks=kind.follows_links):
            status = entry.stat()
            identity = (status.st_dev, status.st_ino)
            if identity not in above:
                yield from _stamps(place, f"{below}{entry.name}/", kind, above | {identity})
        elif entry.name.endswith(kind.suffixes) and entry.is_file():
            yield f"{below}{entry.name}", stamp(entry.stat())


def stamp(status: os.stat_result) -> Stamp:
    """What changes where a file's content does: the time of change too, which no program can put back."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _digests(folder: Path, stamps: dict[str, Stamp], store: Path) -> dict[str, str]:
    """The sha256 of each of these files, read again only where its stamp differs from the one in the file `store`."""
    known = files.read_or_empty(store)
    found: dict[str, Any] = {}
    for name, now in stamps.items():
        last = known.get(name, {})
        digest = last["sha256"] if last.get("stamp") == now else files.sha256_file(folder / name)
        found[name] = {"stamp": now, "sha256": digest}
    if found != known:
        with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
            files.write_json(store, found)
    return {name: entry["sha256"] for name, entry in found.items()}


def cache_folder() -> Path:
    """The user's cache of what is dear to find out again; safe to delete."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tracka"
