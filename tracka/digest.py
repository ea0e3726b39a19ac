"""The sha256 of every file of a folder, read again only where it changed: a pi0 is 9 GB."""

import contextlib
import os
from pathlib import Path
from typing import Any

from . import files


def of_tree(folder: Path) -> str:
    """One hash for the paths and contents of all files below `folder`."""
    return files.sha256(files.canonical(of_files(folder)))


def of_files(folder: Path) -> dict[str, str]:
    """The sha256 of every file below `folder`, by its path there.

    Contents are read again only where size, inode or one of the times differ from the last time.
    """
    store = cache_folder() / "trees" / f"{files.sha256(str(folder).encode())}.json"
    known = files.read_or_empty(store)
    found: dict[str, Any] = {}
    for path in files.walk_files(folder):
        status, name = path.stat(), str(path.relative_to(folder))
        # The time of change too: a program can put the time of modification back, but not this one.
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        last = known.get(name, {})
        digest = last["sha256"] if last.get("stamp") == stamp else files.sha256_file(path)
        found[name] = {"stamp": stamp, "sha256": digest}
    if found != known:
        with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
            files.write_json(store, found)
    return {name: entry["sha256"] for name, entry in found.items()}


def cache_folder() -> Path:
    """The user's cache of what is dear to find out again; safe to delete."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tracka"
