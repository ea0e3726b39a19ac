"""Finds what a mistyped name probably meant."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

MOST_NAMES, LONGEST = 300, 200


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


def asked_name(word: object, names: Iterable[str]) -> str:
    """Returns the question whether the name most like `word` was meant, with a space after it; empty without one.

    Upper and lower case, and spaces around the word, make no difference. Among more than `MOST_NAMES` names, or for a
    longer word than a name has, nothing is looked for, since that would take seconds.
    """
    by_folded_name = {name.casefold(): name for name in names}
    folded = str(word).strip().casefold()
    if len(folded) > LONGEST or len(by_folded_name) > MOST_NAMES:
        return ""
    close = difflib.get_close_matches(folded, by_folded_name, 1)
    return f"Did you mean {by_folded_name[close[0]]}? " if close else ""
