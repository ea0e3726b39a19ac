"""Reads the journals of the GPUs' leases: who had a GPU of this host, from when to when.

A journal is written by the supervisors of all users of the host (`supervisor.note`), so nothing in it is trusted: a
line that is no note is left out, and no more is read than `lease` lets a journal grow.

Guarantees: reading takes no lock and never waits, and follows no link.
"""

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core import escaping, parsing, reading
from . import lease

UUID = re.compile(r"[A-Za-z0-9_-]{1,80}")
LABEL_LENGTH = 100
MOST_BYTES = 2 * lease.JOURNAL_BYTES  # a journal is emptied when a lease begins, and grows until the next one


@dataclass(frozen=True)
class Hold:
    """One run on a GPU by the journal. `begin` and `end` are in seconds since 1970.

    `label` is the run id, which another campaign may have too. `end` is None while the run lasts, and where its
    supervisor was killed with nothing after it.
    """

    label: str
    begin: float
    end: float | None


def read(uuid: str | None) -> list[Hold] | None:
    """Returns what ran on the GPU with this uuid, in order; None where this host has no journal of it."""
    if uuid is None or not UUID.fullmatch(uuid):
        return None
    text = _text(lease.folder_path() / f"{uuid}.journal")
    return None if text is None else _holds(_notes(text))


def _text(path: Path) -> str | None:
    """Returns the end of a file that other users may write; None where it is no plain file or cannot be read."""
    try:
        with reading.opened(path, 1 << 63, follow=False) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - MOST_BYTES))
            return file.read(MOST_BYTES).decode(errors="replace")
    except OSError:
        return None


def _notes(text: str) -> Iterator[Mapping[str, Any]]:
    for line in text.splitlines():
        with contextlib.suppress(parsing.Malformed):
            note = parsing.json_value(line)
            if isinstance(note, dict) and note.get("event") in ("start", "end") and _is_time(note.get("at")):
                yield note


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0 < value < 1e11


def _holds(notes: Iterator[Mapping[str, Any]]) -> list[Hold]:
    """Returns the runs of a journal. A run without an end had ended when the next one began."""
    holds: list[tuple[object, Hold]] = []
    for note in notes:
        supervisor, at = note.get("supervisor"), float(note["at"])
        is_open = bool(holds) and holds[-1][1].end is None
        if note["event"] == "start":
            if is_open:
                holds[-1] = (holds[-1][0], replace(holds[-1][1], end=at))
            holds.append((supervisor, Hold(escaping.line(str(note.get("label")), LABEL_LENGTH), at, None)))
        elif is_open and holds[-1][0] == supervisor:
            holds[-1] = (supervisor, replace(holds[-1][1], end=at))
    return [hold for _, hold in holds]
