"""Finds what a mistyped name probably meant."""

import difflib
import os
from pathlib import Path


def folder(path: Path) -> Path | None:
    """Returns the existing folder that is most like `path`, with its first wrong part mended; None without one."""
    wrong = next((part for part in (*reversed(path.parents), path) if not part.exists()), path)
    try:
        names = [entry.name for entry in os.scandir(wrong.parent) if entry.is_dir()]
    except OSError:
        return None
    close = difflib.get_close_matches(wrong.name, names, 1)
    mended = wrong.parent / close[0] / path.relative_to(wrong) if close else None
    return mended if mended and mended.is_dir() else None


def asked(path: Path) -> str:
    """Returns the question whether the closest existing folder was meant, with a space after it; empty without one."""
    match = folder(path)
    return f"Did you mean {match}? " if match else ""
