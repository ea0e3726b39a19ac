"""Sets aside what is damaged, or what stands in the place of a file, so that the file can be written again.

Nothing is deleted: what is set aside keeps its content under the name NAME.damaged, NAME.damaged.2, and so on, where a
session finds it and says so.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

MARK = ".damaged"


def set_aside(path: Path) -> None:
    """Renames a file or a folder so that its name is free; does nothing where `path` does not exist."""
    names = (path.with_name(f"{path.name}{MARK}{suffix}") for suffix in _suffixes())
    try:
        path.rename(next(name for name in names if not os.path.lexists(name)))
    except FileNotFoundError:
        return


def _suffixes() -> Iterator[str]:
    return itertools.chain([""], (f".{number}" for number in itertools.count(2)))


def make_way(path: Path) -> None:
    """Sets aside a folder that stands where a file belongs; a file is left, since it can be replaced."""
    if path.is_dir() and not path.is_symlink():
        set_aside(path)


def remove(path: Path) -> None:
    """Deletes a file that is no longer true, if it is there; a folder in its place is set aside."""
    make_way(path)
    path.unlink(missing_ok=True)


def set_aside_since(top: Path, moment: float) -> list[Path]:
    """Returns what was set aside below `top` since `moment`, in seconds since 1970, sorted by path."""
    found = (path for path in top.rglob(f"*{MARK}*") if not any(MARK in parent.name for parent in path.parents))
    return sorted(path for path in found if path.lstat().st_ctime >= moment)  # a rename sets this time
