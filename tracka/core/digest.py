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
    """Which files of a folder count: all, or those with these suffixes; but none in a folder that is hidden, an
    environment, or left out by its name. Links to files are followed, those to folders only where that is said."""

    suffixes: tuple[str, ...] = ("",)
    left_out: tuple[str, ...] = ()
    follows_links: bool = False


# The code in a checkout, which may hold tests, environments, data and results besides.
SOURCES = Kind(
    (".c", ".cc", ".cpp", ".cu", ".h", ".py", ".pyx", ".so"),
    ("__pycache__", "build", "dist", "docs", "examples", "node_modules", "outputs", "test", "tests", "wandb"),
)
# Notes of the hub's client and of git beside a checkpoint, which tell when and whence it was fetched.
NOTES = (".cache/huggingface/", ".git/")


def of_tree(folder: Path) -> str:
    """One hash for the paths and contents of all files below `folder`."""
    return files.sha256(files.canonical(of_files(folder)))


def of_files(folder: Path) -> dict[str, str]:
    """The sha256 of every file below `folder`, by its path there.

    Contents are read again only where size, inode or one of the times differ from the last time.
    """
    paths = {str(path.relative_to(folder)): path for path in files.walk_files(folder)}
    stamps = {name: stamp(path.stat()) for name, path in paths.items() if not name.startswith(NOTES)}
    return _digests(folder, stamps, _store(str(folder)))


def of_kind(place: Path, kind: Kind) -> str:
    """One hash for the paths and contents of the files of this kind below the folder `place`, or of the file itself."""
    if place.is_file():
        return of_file(place)
    stamps = dict(_stamps(str(place), "", kind, frozenset()))
    if (known := _kinds.get((place, kind))) and known[0] == stamps:
        return known[1]
    digests = _digests(place, stamps, _store(f"{place} {kind}"))
    answer = files.sha256(files.canonical(digests))
    _kinds[place, kind] = stamps, answer
    return answer


def of_file(path: Path) -> str:
    """The sha256 of a file, which this process reads again only where it changed."""
    now = stamp(path.stat())
    if (known := _files.get(path)) is None or known[0] != now:
        known = _files[path] = now, files.sha256_file(path)
    return known[1]


_files: dict[Path, tuple[Stamp, str]] = {}


def _store(name: str) -> Path:
    """The file that keeps the hashes of a folder's files from one process to the next."""
    return cache_folder() / "trees" / f"{files.sha256(name.encode(errors='surrogateescape'))}.json"


_kinds: dict[tuple[Path, Kind], tuple[dict[str, Stamp], str]] = {}  # what this process has hashed


def _stamps(place: str, below: str, kind: Kind, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, Stamp]]:
    """The stamps of the files that count, by their paths below the folder. A link to a folder above is left out."""
    try:
        with os.scandir(f"{place}/{below}") as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError:
        return
    if _is_environment({entry.name for entry in entries}):
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in kind.left_out:
            continue
        with contextlib.suppress(OSError):  # a link that leads nowhere, or to itself
            if entry.is_dir(follow_symlinks=kind.follows_links):
                status = entry.stat()
                inode = (status.st_dev, status.st_ino)
                if inode not in above:
                    yield from _stamps(place, f"{below}{entry.name}/", kind, above | {inode})
            elif entry.name.endswith(kind.suffixes) and entry.is_file():
                yield f"{below}{entry.name}", stamp(entry.stat())


def _is_environment(names: set[str]) -> bool:
    """Whether a folder with entries of these names is a virtual environment or one of conda's."""
    return "conda-meta" in names or ("pyvenv.cfg" in names and not names.isdisjoint(("bin", "lib", "Scripts")))


def stamp(status: os.stat_result) -> Stamp:
    """What changes where a file's content does: the time of change too, which no program can put back."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _digests(folder: Path, stamps: dict[str, Stamp], store: Path) -> dict[str, str]:
    """The sha256 of each of these files, read again only where its stamp differs from the one in the file `store`."""
    known = files.read_or_empty(store)
    found: dict[str, Any] = {}
    for name, now in stamps.items():
        last = known.get(name)
        kept = last.get("sha256") if isinstance(last, dict) and last.get("stamp") == now else None
        digest = kept or files.sha256_file(folder / name)
        found[name] = {"stamp": now, "sha256": digest}
    if found != known:
        with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
            files.write_json(store, found)
    return {name: entry["sha256"] for name, entry in found.items()}


def cache_folder() -> Path:
    """The user's cache of what is dear to find out again; safe to delete."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tracka"
