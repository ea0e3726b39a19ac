"""Keeps answers that take long to find again, from one process to the next, in the user's cache folder.

Guarantees: an entry that is damaged, or that is another entry's file, counts as none, so that its answer is found anew;
a cache that cannot be read or written only costs time.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from . import files
from .files import Json

_OF, _VALUE, _SHA256 = "of", "value", "sha256"


def folder() -> Path:
    """Returns the user's cache folder of Track A; the folder is safe to delete."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tracka"


def entry(kind: str, key: str) -> Path:
    """Returns the file of the entry `key` among those of a kind."""
    return folder() / kind / f"{key}.json"


def read(path: Path) -> Json:
    """Returns what was kept in the entry `path`; an empty object where there is none, or a damaged one."""
    content = files.read_or_empty(path)
    value = content.get(_VALUE)
    is_whole = content.get(_SHA256) == files.own_sha256(content) and content.get(_OF) == path.name
    return value if is_whole and isinstance(value, dict) else {}


def keep(path: Path, value: Mapping[str, object]) -> None:
    """Keeps `value` in the entry `path`, without secrets; nothing is kept where the entry cannot be written."""
    content = files.redacted({_OF: path.name, _VALUE: dict(value)})
    with contextlib.suppress(OSError):
        files.write_json(path, {**content, _SHA256: files.own_sha256(content)})
