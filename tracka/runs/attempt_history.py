"""Holds the attempts of a row against its marker's history: none is missing, and each ended as the marker tells."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..campaign.layout import Layout, RunFolder
from ..campaign.matrix import Row
from ..core import files, schema
from ..core.artifacts import RowMarker
from ..core.errors import Finding
from . import judgement

RESTORED = "restored from the run's own files"  # a marker that was lost has the time of its restoration
KEEP = "Put the attempts back as they were, or give the row a new run id"


def findings(
    layout: Layout, row: Row, numbers: Sequence[int], marker: RowMarker, with_files: bool
) -> Iterator[Finding]:
    """Yields a warning where attempts are missing, or their files are not those that the marker's history tells of.

    A warning, since the last attempt may be sound: a strict validation does not accept it. `with_files` also
    holds earlier attempts' files against what they were; a row whose earlier files were damaged may pass on its host.
    """
    steps = marker["history"]
    folder = layout.run(row.run_id)
    if gaps := sorted({*range(1, max(numbers, default=0) + 1)} - {*numbers}):
        what = f"attempt {gaps[0]} has no folder, but a later one has"
        yield Finding(str(folder.attempts), what, KEEP, warning=True)
    ended = {step["attempt"]: step for step in steps if step["status"] in ("pass", "fail") and step["attempt"] > 0}
    if lost := sorted({*ended} - {*numbers} - {*gaps}):
        yield Finding(str(folder.attempts), f"attempt {lost[0]} ended, but has no folder", KEEP, warning=True)
    # A marker that was damaged begins anew, with the attempt that came next.
    if untold := sorted(number for number in {*numbers} - {*ended} if number > min(ended, default=0)):
        what = f"attempt {untold[0]} has a folder, but the row's marker does not tell of its end"
        yield Finding(str(folder.attempts), what, KEEP, warning=True)
    begun = {step["attempt"]: step["at_utc"] for step in steps if step["status"] == "running"}
    judged = sorted({*ended} & {*numbers})
    for number in judged if with_files else judged[-1:]:
        yield from _ended_attempt(layout, folder.attempt(number), number, ended[number])
        if marker["notes"] != RESTORED and number in begun:
            yield from _begun_attempt(folder.attempt(number), number, begun[number])


def _begun_attempt(attempt: RunFolder, number: int, begun_at_utc: str) -> Iterator[Finding]:
    """Yields a warning where an attempt was running before its manifest was made, or after its result."""
    start = str(files.read_or_empty(attempt.manifest).get("start_time_utc"))
    end = str(files.read_or_empty(attempt.result).get("end_time_utc"))
    if not start <= begun_at_utc <= end:
        what = (
            f"attempt {number} lasted from {start} to {end}, but the marker says that it was running at {begun_at_utc}"
        )
        yield Finding(str(attempt.manifest), what, KEEP, warning=True)


def _ended_attempt(layout: Layout, attempt: RunFolder, number: int, step: Mapping[str, Any]) -> Iterator[Finding]:
    result = schema.read_or_none("result", attempt.result)
    if result is None:
        yield Finding(
            str(attempt.result), f"attempt {number} ended, but its result is missing or damaged", KEEP, warning=True
        )
        return
    told = {"attempt": number, "status": step["status"]}
    found = {"attempt": result["attempt"], "status": result["status"]}
    if found != told:
        what = f"the marker says of attempt {number} {step['status']}, but its result {found['status']!r}"
        yield Finding(str(attempt.result), what, KEEP, warning=True)
        return
    if result["end_time_utc"] > step["at_utc"]:
        what = f"attempt {number} ended at {result['end_time_utc']}, but the marker says at {step['at_utc']}"
        yield Finding(str(attempt.result), what, KEEP, warning=True)
    # A pass that is not the last attempt ran again because its files had changed, which was said then.
    for finding in judgement.changed_files(layout, attempt, result) if result["status"] == "fail" else ():
        yield replace(finding, warning=True)
