"""Row markers, `state/rows/<run_id>.json`: pending, running, then pass or fail, with every step in `history`.

Only the process that holds the row's lock moves the row's marker. A marker that cannot be read is set aside and never
trusted, so its row runs again.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TypedDict, Unpack

from ..campaign.layout import Layout
from ..campaign.matrix import Row
from ..core import damaged, files, reading, schema
from ..core import lock as locks
from ..core.artifacts import History, RowMarker
from ..core.errors import Busy

STEPS = {
    None: ("pending",),
    "pending": ("running", "fail"),  # fail, where the row could not start
    "running": ("pass", "fail"),
    "fail": ("running", "pending"),
    "pass": ("running", "pending"),  # only if overwriting was allowed, or the run's evidence is refused
}
SLACK_SECS = 2.0  # times are written in whole seconds


class Values(TypedDict, total=False):
    """The keys of a marker that a step may set beside its status."""

    retry_index: int
    gpu_id: int | None
    result_path: str | None
    result_sha256: str | None
    notes: str
    reason: str | None


def ensure_pending(layout: Layout, rows: Iterable[Row]) -> None:
    """Writes a pending marker for each of `rows` that has none, except for rows that another process holds."""
    for row in rows:
        if read(layout, row.run_id) is None:
            with contextlib.suppress(Busy), lock(layout, row.run_id):
                ensure_pending_held(layout, row.run_id)


def ensure_pending_held(layout: Layout, run_id: str) -> None:
    """Writes a pending marker for a row that has none, and sets aside a marker that is damaged or that no run writes.

    The caller holds the row's lock.
    """
    marker = read(layout, run_id)
    if marker is None or broken_steps(marker) or disordered_times(marker):
        path = layout.marker(run_id)
        damaged.set_aside(path)
        _write(layout, run_id, {"history": []}, "pending", 0)


def read(layout: Layout, run_id: str) -> RowMarker | None:
    """Returns the row's marker; None where there is no marker that can be trusted."""
    marker = schema.read_or_none("row_marker", layout.marker(run_id))
    return marker if marker and marker["run_id"] == run_id else None


def has_ended(layout: Layout, run_id: str) -> bool:
    """Returns whether the row's last attempt has ended, by its marker, and left its manifest and its result."""
    marker, folder = read(layout, run_id), layout.run(run_id)
    numbers = folder.numbers()
    if marker is None or marker["status"] not in ("pass", "fail") or not numbers:
        return False
    attempt = folder.attempt(numbers[-1])
    is_last = marker["history"][-1]["attempt"] == numbers[-1]
    return is_last and attempt.manifest.is_file() and attempt.result.is_file()


def make_pending_held(layout: Layout, run_id: str) -> None:
    """Makes a row pending, whatever its marker says of earlier attempts. The caller holds the row's lock."""
    ensure_pending_held(layout, run_id)
    marker = read(layout, run_id)
    if marker is not None and marker["status"] != "pending":
        advance(layout, run_id, "pending")


def advance(layout: Layout, run_id: str, status: str, attempt: int = 0, **values: Unpack[Values]) -> None:
    """Moves the row's marker to `status`. `values` are further keys of the marker."""
    _write(layout, run_id, read(layout, run_id) or {"history": []}, status, attempt, **values)


def note_pending_held(layout: Layout, run_id: str, reason: str, notes: str) -> None:
    """Writes into a pending row's marker why the row has not started; leaves any other marker as it is.

    The caller holds the row's lock.
    """
    marker = read(layout, run_id)
    if marker is not None and marker["status"] == "pending":
        files.write_json(layout.marker(run_id), {**marker, "reason": reason, "notes": notes})


def note_running_held(layout: Layout, run_id: str, notes: str) -> None:
    """Writes into a running row's marker what the row waits for, or that it waits no more; as `note_pending_held`."""
    marker = read(layout, run_id)
    if marker is not None and marker["status"] == "running" and marker["notes"] != notes:
        files.write_json(layout.marker(run_id), {**marker, "notes": notes})


def status_text(status: str, reason: str | None, invalid: str | None, unproven: str | None) -> str:
    """Returns a status as text, with the reason of a failure and whether simulator or engine may be wrong."""
    words = [word for word in (reason, invalid and "invalid simulator", unproven and "unproven engine") if word]
    return f"{status} ({', '.join(words)})" if words else status


def _write(layout: Layout, run_id: str, previous: History, status: str, attempt: int, **values: Unpack[Values]) -> None:
    now = files.utc_now()
    marker: RowMarker = {
        "schema_version": schema.VERSION,
        "run_id": run_id,
        "retry_index": 0,
        "gpu_id": None,
        "started_at_utc": None,
        "ended_at_utc": None,
        "result_path": None,
        "result_sha256": None,
        "notes": "",
        "reason": None,
        **previous,
        "status": status,
        **values,
    }
    marker["history"] = [*previous["history"], {"status": status, "at_utc": now, "attempt": attempt}]
    if status in ("pending", "running"):
        started = now if status == "running" else None
        marker |= {"started_at_utc": started, "ended_at_utc": None, "reason": None, "notes": ""}
        marker |= {"result_path": None, "result_sha256": None}
    if status == "pending":
        marker |= {"retry_index": 0, "gpu_id": None}
    if status in ("pass", "fail"):
        marker["ended_at_utc"] = now
    files.write_json(layout.marker(run_id), marker)


def broken_steps(marker: RowMarker) -> list[str]:
    """Returns the transitions in a marker's history that no run makes, such as pending straight to pass.

    A status that is not the last one of the history is returned too.
    """
    statuses = [None, *(step["status"] for step in marker["history"])]
    pairs = pairwise(statuses)
    steps = [f"{before or 'nothing'} -> {after}" for before, after in pairs if after not in STEPS[before]]
    if statuses[-1] != marker["status"]:
        steps.append(f"the history ends with {statuses[-1]}, but the status is {marker['status']}")
    return steps


def disordered_times(marker: RowMarker) -> list[str]:
    """Returns the times in a marker's history that are earlier than the step before, or that are to come."""
    times = [step["at_utc"] for step in marker["history"]]
    earlier = [later for before, later in pairwise(times) if later < before]
    latest = datetime.fromtimestamp(datetime.now(UTC).timestamp() + SLACK_SECS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return [*earlier, *(time for time in times if time > latest)]


@contextlib.contextmanager
def lock(layout: Layout, run_id: str) -> Iterator[None]:
    """Holds the row's lock against every other process. Raises Busy at once where another process holds it."""
    with locks.hold(_lock_file(layout, run_id), f"row {run_id}") as file:
        locks.sign(file, f"process {os.getpid()}")
        yield


def holder(layout: Layout, run_id: str) -> str:
    """Returns who holds the row's lock, or held it last, such as `process 4242`; empty where nobody ever has."""
    return reading.text_or_empty(_lock_file(layout, run_id)).strip()


def _lock_file(layout: Layout, run_id: str) -> Path:
    return layout.locks / f"{run_id}.lock"
