"""Hashes every file of a folder with sha256, and reads a file again only where it changed: a pi0 checkpoint is 9 GB."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import files, user_cache

Stamp = list[int]  # size, modification time, change time, inode


@dataclass(frozen=True)
class Kind:
    """Which files of a folder are hashed: those with one of `suffixes`, or all files by default.

    Hidden entries, entries named in `left_out`, and virtual or conda environments are skipped. Links to files are
    followed, links to folders only if `follows_links`.
    """

    suffixes: tuple[str, ...] = ("",)
    left_out: tuple[str, ...] = ()
    follows_links: bool = False


# The code in a checkout. A checkout may also hold tests, environments, data and results, which do not count.
SOURCES = Kind(
    (".c", ".cc", ".cpp", ".cu", ".h", ".py", ".pyx", ".so"),
    ("__pycache__", "build", "dist", "docs", "examples", "node_modules", "outputs", "test", "tests", "wandb"),
)
# Folders of the hub's client and of git beside a checkpoint. They record when and from where the checkpoint was
# fetched, which is no part of its content.
NOTES = (".cache/huggingface/", ".git/")


def of_tree(folder: Path) -> str:
    """Returns one sha256 over the paths and contents of all files below `folder`, except `NOTES`."""
    return of_hashes(of_files(folder))


def of_hashes(hashes: Mapping[str, str]) -> str:
    """Returns what `of_tree` returns for a folder whose files have these hashes, by their paths."""
    return files.sha256(files.canonical({**hashes}))


def of_files(folder: Path) -> dict[str, str]:
    """Returns the sha256 of every file below `folder`, except `NOTES`, by its path relative to `folder`.

    A file's content is read again only where its size, its inode or one of its times differs from the last call's.
    """
    paths = {str(path.relative_to(folder)): path for path in files.walk_files(folder)}
    stamps = {name: stamp(path.stat()) for name, path in paths.items() if not name.startswith(NOTES)}
    return _digests(folder, stamps, _store(str(folder)))


def of_kind(path: Path, kind: Kind) -> str:
    """Returns one sha256 over the paths and contents of the files of kind `kind` below `path`.

    Returns the file's sha256 if `path` is a file.
    """
    if path.is_file():
        return of_file(path)
    stamps = dict(_stamps(str(path), "", kind, frozenset({_inode(path.stat())} if path.is_dir() else ())))
    if (cached := _kinds.get((path, kind))) and cached[0] == stamps:
        return cached[1]
    digests = _digests(path, stamps, _store(f"{path} {kind}"))
    answer = files.sha256(files.canonical(digests))
    _kinds[path, kind] = stamps, answer
    return answer


def of_file(path: Path) -> str:
    """Returns the sha256 of a file, which this process reads again only where the file changed."""
    current_stamp = stamp(path.stat())
    if (cached := _files.get(path)) is None or cached[0] != current_stamp:
        cached = _files[path] = current_stamp, files.sha256_file(path)
    return cached[1]


_files: dict[Path, tuple[Stamp, str]] = {}


def _store(name: str) -> Path:
    """Returns the file that keeps the hashes of a folder's files from one process to the next."""
    return user_cache.entry("trees", files.sha256(name.encode(errors="surrogateescape")))


_kinds: dict[tuple[Path, Kind], tuple[dict[str, Stamp], str]] = {}  # stamps and hashes of this process


def _stamps(
    root: str, subfolder: str, kind: Kind, ancestors: frozenset[tuple[int, int]]
) -> Iterator[tuple[str, Stamp]]:
    """Yields the path below the folder `root` and the stamp of each file of kind `kind`.

    `subfolder` is the folder to list, relative to `root` and empty or with a slash at its end. `ancestors` identifies
    the folders on the way to it; a link to one of them is skipped.
    """
    try:
        with os.scandir(f"{root}/{subfolder}") as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        return
    if _is_environment({entry.name for entry in entries}):
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in kind.left_out:
            continue
        with contextlib.suppress(OSError):  # a broken link, or a link to itself
            if entry.is_dir(follow_symlinks=kind.follows_links):
                inode = _inode(entry.stat())
                if inode not in ancestors:
                    yield from _stamps(root, f"{subfolder}{entry.name}/", kind, ancestors | {inode})
            elif entry.name.endswith(kind.suffixes) and entry.is_file():
                yield f"{subfolder}{entry.name}", stamp(entry.stat())


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_environment(names: set[str]) -> bool:
    """Returns whether a folder with entries of these names is a virtual environment or a conda environment."""
    return "conda-meta" in names or ("pyvenv.cfg" in names and not names.isdisjoint(("bin", "lib", "Scripts")))


def stamp(status: os.stat_result) -> Stamp:
    """Returns values that change whenever a file's content changes.

    The change time is among the values, because no program can set it back.
    """
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _digests(folder: Path, stamps: dict[str, Stamp], store: Path) -> dict[str, str]:
    """Returns the sha256 of each file in `stamps`.

    A file is read only where its stamp differs from the one in the file `store`.
    """
    stored = user_cache.read(store)
    current: dict[str, Any] = {}
    for name, current_stamp in stamps.items():
        entry = stored.get(name)
        stored_digest = entry.get("sha256") if isinstance(entry, dict) and entry.get("stamp") == current_stamp else None
        digest = stored_digest or files.sha256_file(folder / name)
        current[name] = {"stamp": current_stamp, "sha256": digest}
    if current != stored:
        user_cache.keep(store, current)
    return {name: entry["sha256"] for name, entry in current.items()}
