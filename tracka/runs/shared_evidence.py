"""Holds the rows of a campaign against each other: no two episodes share a recording, and no two rows a GPU."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from ..campaign.campaign import Campaign
from ..campaign.layout import Layout
from ..campaign.matrix import Row
from ..core import files, schema
from ..core.artifacts import Manifest, Result
from ..core.errors import Finding
from ..core.files import Json
from ..execution import lease_journal
from . import judgement, preregistration
from .row_state import SLACK_SECS

Start = tuple[object, ...]  # what decides an episode: checkpoint, suite, task, seed, init state, earlier resets


@dataclass(frozen=True, slots=True)
class Span:
    """When a row that passed ran, and on which GPU; nothing else of its manifest is kept, since a matrix may be large.

    The times are as its manifest and its result say them; `seconds` is how long the evaluation itself took.
    """

    run_id: str
    gpu_uuid: str | None
    began: str
    ended: str
    seconds: float


def findings(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding for each two rows whose evidence cannot be of two runs, and for runs before the registration."""
    recordings, spans = _Recordings(campaign.layout), list[Span]()
    for row in campaign.enabled:
        if run := _run(campaign.layout, row):
            yield from recordings.shared_by(row.run_id, *run)
            spans.append(_span(row.run_id, *run))
    yield from _shared_gpus(campaign.layout, spans)
    yield from _without_lease(campaign.layout, spans)
    yield from _before_registration(campaign, spans)


def _run(layout: Layout, row: Row) -> tuple[Manifest, Result] | None:
    """Returns manifest and result of a row that passed; None of any other row."""
    folder = layout.run(row.run_id)
    manifest = schema.read_or_none("run_manifest", folder.manifest)
    result = schema.read_or_none("result", folder.result)
    return (manifest, result) if manifest and result and result["status"] == "pass" else None


def _span(run_id: str, manifest: Manifest, result: Result) -> Span:
    times = manifest["start_time_utc"], result["end_time_utc"], result["duration_sec"]
    return Span(run_id, manifest["gpu_uuid"], *times)


class _Recordings:
    """The recordings of the rows that were looked at, each with the file and the start of the episode it is of."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._seen: dict[str, tuple[str, str, bytes]] = {}  # sha256 -> attempt's folder, name there, start's digest

    def shared_by(self, run_id: str, manifest: Manifest, result: Result) -> Iterator[Finding]:
        """Yields a finding for each video, and each recorded states of a robot, of another episode than this row's.

        Two rows that begin an episode alike with the same checkpoint play it alike, on hosts of one kind.
        """
        folder = str(self._layout.run(run_id).attempt(result["attempt"]).path)
        starts: dict[tuple[int, int], bytes] | None = None
        for name, sha256 in result["files"].items():
            key = _episode(name, manifest["task_suite"])
            if key is None:
                continue
            if starts is None:
                starts = _starts(manifest, files.read_lines_or_empty(self._layout.run(run_id).episodes))
            start = starts.get(key) or _digest((run_id, *key))
            other_folder, other_name, other_start = self._seen.setdefault(sha256, (folder, sys.intern(name), start))
            if other_start != start:
                other = self._layout.relative(Path(other_folder, other_name))
                what = f"the file is the same as {other}, which is of another episode"
                yield Finding(str(Path(folder, name)), what, judgement.run_again(self._layout))


def _episode(name: str, suite: str) -> tuple[int, int] | None:
    """Returns task and episode of a video or of recorded states, by the file's name; None for any other file."""
    path = PurePosixPath(name)
    words = path.stem.split("_")
    if path.suffix == ".mp4" and path.parent.name.startswith(f"{suite}_"):
        words = [path.parent.name.rpartition("_")[2], words[-1]]
    elif path.parent.name != "states":
        return None
    return (int(words[-2]), int(words[-1])) if all(word.isdecimal() for word in words[-2:]) else None


def _starts(manifest: Manifest, records: list[Json]) -> dict[tuple[int, int], bytes]:
    """Returns the digest of each episode's start, by task and episode."""
    keys = ("suite", "task", "seed", "init_state", "reset_ordinal")
    point, batch = manifest["checkpoint"]["tree_sha256"], manifest["batch_size"]
    return {
        (record.get("task", -1), record.get("episode", -1)): _digest((point, batch, *(record.get(key) for key in keys)))
        for record in records
    }


def _digest(start: Start) -> bytes:
    return hashlib.sha256(repr(start).encode()).digest()


def _shared_gpus(layout: Layout, spans: Sequence[Span]) -> Iterator[Finding]:
    """Yields a finding for each two rows that had one GPU at a time, of which each has a lease of its own."""
    by_gpu: dict[str, list[tuple[float, float, str]]] = {}
    for span in spans:
        if span.gpu_uuid:
            end = files.timestamp(span.ended)
            # The evaluation itself, which lasts from the lease to the end; making the row ready came before it.
            begin = max(files.timestamp(span.began), end - span.seconds)
            by_gpu.setdefault(span.gpu_uuid, []).append((begin, end, span.run_id))
    for uuid, held in by_gpu.items():
        for (_, end, first), (begin, _, second) in pairwise(sorted(held)):
            if begin + SLACK_SECS < end:
                what = f"the row had the GPU {uuid} while the row {first} had it"
                yield Finding(str(layout.run(second).manifest), what, judgement.run_again(layout))


def _without_lease(layout: Layout, spans: Sequence[Span]) -> Iterator[Finding]:
    """Yields a finding for each row that this host's journal of its GPU does not have, though it goes back so far."""
    holds = {uuid: lease_journal.read(uuid) or [] for uuid in {span.gpu_uuid for span in spans}}
    for span in spans:
        begin, end = files.timestamp(span.began), files.timestamp(span.ended)
        journal = holds[span.gpu_uuid]
        if not journal or journal[0].begin > begin - SLACK_SECS:
            continue
        own = [hold for hold in journal if hold.label == span.run_id and hold.begin < end + SLACK_SECS]
        if not any((hold.end or end) > begin - SLACK_SECS for hold in own):
            what = f"the row says that it had the GPU {span.gpu_uuid}, whose journal of leases does not have it"
            yield Finding(str(layout.run(span.run_id).manifest), what, judgement.run_again(layout))


def _before_registration(campaign: Campaign, spans: Sequence[Span]) -> Iterator[Finding]:
    """Yields a finding where a row began before the thresholds were registered, though they are not called late."""
    registration = preregistration.read(campaign) if campaign.verdict else None
    if registration is None or registration["late"]:
        return
    for span in spans:
        if span.began < registration["registered_at_utc"]:
            what = f"the row began at {span.began}, before {registration['registered_at_utc']}"
            remedy = "Say so wherever the result is quoted; a new campaign registers before its first row"
            where = str(campaign.layout.preregistration)
            yield Finding(where, f"{what}, when the thresholds were registered: {span.run_id}", remedy)
