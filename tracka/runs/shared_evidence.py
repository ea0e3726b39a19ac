"""Holds the rows of a campaign against each other: no two episodes share a recording, and no two rows a GPU."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..campaign.layout import Layout
from ..campaign.matrix import Row
from ..core import files, schema
from ..core.artifacts import Manifest, Result
from ..core.errors import Finding
from ..core.files import Json
from ..execution import lease_journal
from . import preregistration
from .row_state import SLACK_SECS

DECIDING = ("suite", "task", "seed", "init_state", "reset_ordinal")  # of an episode, beside checkpoint and batch size
SEEN = ("suite", "task", "init_state", "actions_sha")  # what a recording shows: where it began, and what was done


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


@dataclass(frozen=True, slots=True)
class _Episode:
    """An episode of a recording, by the digest of what decides it and of what its recording shows.

    Two episodes may have the same recording where either is the same: a policy plays an episode alike whenever it
    begins alike, and two policies that do the same in the same init state leave the same pictures.
    """

    deciding: bytes
    seen: bytes

    def may_look_like(self, other: "_Episode") -> bool:
        """Returns whether one recording can be of both episodes."""
        return self.deciding == other.deciding or self.seen == other.seen


class _Recordings:
    """The recordings of the rows that were looked at, each with the file and the episode it is of."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._seen: dict[str, tuple[str, str, _Episode]] = {}  # sha256 -> attempt's folder, name there, episode

    def shared_by(self, run_id: str, manifest: Manifest, result: Result) -> Iterator[Finding]:
        """Yields a finding for each video, and each recorded states of a robot, of another episode than this row's."""
        folder = str(self._layout.run(run_id).attempt(result["attempt"]).path)
        episodes: dict[tuple[int, int], _Episode] | None = None
        for name, sha256 in result["files"].items():
            key = _recorded_episode(name, manifest["task_suite"])
            if key is None:
                continue
            if episodes is None:
                episodes = _episodes(manifest, files.read_lines_or_empty(self._layout.run(run_id).episodes))
            episode = episodes.get(key) or _unrecorded(run_id, *key)
            other_folder, other_name, other = self._seen.setdefault(sha256, (folder, sys.intern(name), episode))
            if not episode.may_look_like(other):
                same = self._layout.relative(Path(other_folder, other_name))
                what = f"the file is the same as {same}, which is of another episode"
                yield Finding(str(Path(folder, name)), what, _play_anew(self._layout, run_id))


def _play_anew(layout: Layout, run_id: str) -> str:
    """Returns the remedy for a row that is sound alone, so that no session plays it again by itself."""
    folder = layout.relative(layout.run(run_id).path)
    return f"Move {folder} out of the campaign, then play the row again: {commands.gates(layout)}"


def _recorded_episode(name: str, suite: str) -> tuple[int, int] | None:
    """Returns task and episode of a video or of recorded states, by the file's name; None for any other file."""
    path = PurePosixPath(name)
    words = path.stem.split("_")
    if path.suffix == ".mp4" and path.parent.name.startswith(f"{suite}_"):
        words = [path.parent.name.rpartition("_")[2], words[-1]]
    elif path.parent.name != "states":
        return None
    return (int(words[-2]), int(words[-1])) if all(word.isdecimal() for word in words[-2:]) else None


def _episodes(manifest: Manifest, records: list[Json]) -> dict[tuple[int, int], _Episode]:
    """Returns the episodes of a row, by task and number."""
    row = manifest["checkpoint"]["tree_sha256"], manifest["batch_size"]
    return {
        (record.get("task", -1), record.get("episode", -1)): _Episode(
            _digest(*row, *map(record.get, DECIDING)), _digest(*map(record.get, SEEN))
        )
        for record in records
    }


def _unrecorded(run_id: str, task: int, number: int) -> _Episode:
    """Returns an episode that its row has no record of: it is like no other."""
    own = _digest(run_id, task, number)
    return _Episode(own, own)


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


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
                yield Finding(str(layout.run(second).manifest), what, _play_anew(layout, second))


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
            yield Finding(str(layout.run(span.run_id).manifest), what, _play_anew(layout, span.run_id))


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
