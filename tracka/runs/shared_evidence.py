"""Holds the rows of a campaign against each other: no two episodes share a recording, and no two rows a GPU."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import PurePosixPath

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


def findings(campaign: Campaign) -> Iterator[Finding]:
    """Yields a finding for each two rows whose evidence cannot be of two runs, and for runs before the registration."""
    runs = {row.run_id: run for row in campaign.enabled if (run := _run(campaign.layout, row))}
    yield from _shared_recordings(campaign.layout, runs)
    yield from _shared_gpus(campaign.layout, runs)
    yield from _without_lease(campaign.layout, runs)
    yield from _before_registration(campaign, runs)


Run = tuple[Manifest, Result]


def _run(layout: Layout, row: Row) -> Run | None:
    """Returns manifest and result of a row that passed; None of any other row."""
    folder = layout.run(row.run_id)
    manifest = schema.read_or_none("run_manifest", folder.manifest)
    result = schema.read_or_none("result", folder.result)
    return (manifest, result) if manifest and result and result["status"] == "pass" else None


def _shared_recordings(layout: Layout, runs: Mapping[str, Run]) -> Iterator[Finding]:
    """Yields a finding for each video, and for each recorded states of a robot, that stand for two episodes.

    Two rows that begin an episode alike with the same checkpoint play it alike, on hosts of one kind.
    """
    seen: dict[str, tuple[str, Start]] = {}
    for run_id, (manifest, result) in runs.items():
        folder = layout.run(run_id)
        starts: dict[tuple[int, int], Start] | None = None
        for name, sha256 in result["files"].items():
            key = _episode(name, manifest["task_suite"])
            if key is None:
                continue
            if starts is None:
                starts = _starts(manifest, files.read_lines_or_empty(folder.episodes))
            start = starts.get(key, (run_id, *key))
            path = layout.relative(folder.attempt(result["attempt"]).path / name)
            other, other_start = seen.setdefault(sha256, (path, start))
            if other_start != start:
                what = f"the file is the same as {other}, which is of another episode"
                yield Finding(str(layout.root / path), what, judgement.run_again(layout))


def _episode(name: str, suite: str) -> tuple[int, int] | None:
    """Returns task and episode of a video or of recorded states, by the file's name; None for any other file."""
    path = PurePosixPath(name)
    words = path.stem.split("_")
    if path.suffix == ".mp4" and path.parent.name.startswith(f"{suite}_"):
        words = [path.parent.name.rpartition("_")[2], words[-1]]
    elif path.parent.name != "states":
        return None
    return (int(words[-2]), int(words[-1])) if all(word.isdecimal() for word in words[-2:]) else None


def _starts(manifest: Manifest, records: list[Json]) -> dict[tuple[int, int], Start]:
    keys = ("suite", "task", "seed", "init_state", "reset_ordinal")
    point, batch = manifest["checkpoint"]["tree_sha256"], manifest["batch_size"]
    return {
        (record.get("task", -1), record.get("episode", -1)): (point, batch, *(record.get(key) for key in keys))
        for record in records
    }


def _shared_gpus(layout: Layout, runs: Mapping[str, Run]) -> Iterator[Finding]:
    """Yields a finding for each two rows that had one GPU at a time, of which each has a lease of its own."""
    by_gpu: dict[str, list[tuple[float, float, str]]] = {}
    for run_id, (manifest, result) in runs.items():
        if manifest["gpu_uuid"]:
            end = files.timestamp(result["end_time_utc"])
            # The evaluation itself, which lasts from the lease to the end; making the row ready came before it.
            begin = max(files.timestamp(manifest["start_time_utc"]), end - result["duration_sec"])
            by_gpu.setdefault(manifest["gpu_uuid"], []).append((begin, end, run_id))
    for uuid, spans in by_gpu.items():
        for (_, end, first), (begin, _, second) in pairwise(sorted(spans)):
            if begin + SLACK_SECS < end:
                what = f"the row had the GPU {uuid} while the row {first} had it"
                yield Finding(str(layout.run(second).manifest), what, judgement.run_again(layout))


def _without_lease(layout: Layout, runs: Mapping[str, Run]) -> Iterator[Finding]:
    """Yields a finding for each row that this host's journal of its GPU does not have, though it goes back so far."""
    holds = {uuid: lease_journal.read(uuid) or [] for uuid in {manifest["gpu_uuid"] for manifest, _ in runs.values()}}
    for run_id, (manifest, result) in runs.items():
        begin, end = files.timestamp(manifest["start_time_utc"]), files.timestamp(result["end_time_utc"])
        journal = holds[manifest["gpu_uuid"]]
        if not journal or journal[0].begin > begin - SLACK_SECS:
            continue
        own = [hold for hold in journal if hold.label == run_id and hold.begin < end + SLACK_SECS]
        if not any((hold.end or end) > begin - SLACK_SECS for hold in own):
            what = f"the row says that it had the GPU {manifest['gpu_uuid']}, whose journal of leases does not have it"
            yield Finding(str(layout.run(run_id).manifest), what, judgement.run_again(layout))


def _before_registration(campaign: Campaign, runs: Mapping[str, Run]) -> Iterator[Finding]:
    """Yields a finding where a row began before the thresholds were registered, though they are not called late."""
    registration = preregistration.read(campaign) if campaign.verdict else None
    if registration is None or registration["late"]:
        return
    for run_id, (manifest, _) in runs.items():
        if manifest["start_time_utc"] < registration["registered_at_utc"]:
            what = f"the row began at {manifest['start_time_utc']}, before {registration['registered_at_utc']}"
            remedy = "Say so wherever the result is quoted; a new campaign registers before its first row"
            yield Finding(
                str(campaign.layout.preregistration), f"{what}, when the thresholds were registered: {run_id}", remedy
            )
