"""Says what ran on which GPU and when, and what each row waited for.

Manifests, results and row markers have it in whole seconds. The journal of leases of the host that ran the rows has the
exact times, and what others ran on the GPUs meanwhile; it is no part of the campaign, so it may be gone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core import escaping, files, schema
from ..core.artifacts import Manifest, RowMarker
from ..execution import gpu, lease_journal
from ..execution.lease_journal import Hold
from ..runs import row_state

OTHERS = "elsewhere"  # status of a run that is not of this campaign
ROUNDED_SECS = 1.0  # manifests and results have whole seconds
CPU_SOURCE = "Rows on the CPU take no lease: their times are those of manifests and results."
WHOLE_SOURCE = (
    "Times on GPUs are those of this host's journal of leases, with what other campaigns ran there meanwhile."
)
PART_SOURCE = (
    "This host's journal of leases no longer has all rows: the times of the others are those of manifests and results, "
    "in whole seconds."
)
NO_SOURCE = (
    "This host has no journal of the GPUs' leases, which is not part of the campaign: the times are those of manifests "
    "and results, in whole seconds, and what other campaigns ran on the GPUs meanwhile is not known here."
)


@dataclass(frozen=True)
class Span:
    """One attempt on its device, in seconds since the campaign's first moment.

    `waited_secs` is how long the row had been waiting when the attempt began, None where nothing on disk says since
    when it waited. `waited_for` says for what, in words (`waits.explained`). `end` is None for an attempt that runs. A
    run of another campaign has the status OTHERS and the attempt 0. `is_by_journal` says that the journal of leases has
    the attempt.
    """

    run_id: str
    attempt: int
    lane: str
    begin: float
    end: float | None
    status: str
    waited_secs: float | None = None
    waited_for: str | None = None
    is_by_journal: bool = False

    @property
    def is_own(self) -> bool:
        return self.status != OTHERS


@dataclass(frozen=True)
class Lane:
    """What ran on one device, or by one worker on the CPU, in the order of time."""

    name: str
    spans: Sequence[Span]

    @property
    def own(self) -> list[Span]:
        return [span for span in self.spans if span.is_own]

    @property
    def waits(self) -> list[tuple[float, float]]:
        """From when to when a row of the campaign waited while nothing ran here."""
        ends = [0.0, *(span.begin if span.end is None else span.end for span in self.spans)]
        return [
            (max(span.begin - span.waited_secs, free_since), span.begin)
            for span, free_since in zip(self.spans, ends, strict=False)
            if span.waited_secs and span.begin > free_since
        ]

    def busy_secs(self, until: float) -> float:
        """Returns how long the campaign's rows ran here; a row that still runs is counted up to `until`."""
        return sum((until if span.end is None else span.end) - span.begin for span in self.own)


@dataclass(frozen=True)
class Timeline:
    """All attempts of the enabled rows, by lane. `began_utc` is when the first row began to wait or to run."""

    began_utc: str | None
    seconds: float
    lanes: Sequence[Lane]

    @property
    def spans(self) -> list[Span]:
        return [span for lane in self.lanes for span in lane.spans]

    @property
    def source(self) -> str:
        """Says in a sentence where the times are from, and what is not known."""
        on_gpus = [span for lane in self.lanes if lane.name.startswith("GPU") for span in lane.own]
        if not on_gpus:
            return CPU_SOURCE
        by_journal = [span for span in on_gpus if span.is_by_journal]
        return WHOLE_SOURCE if len(by_journal) == len(on_gpus) else PART_SOURCE if by_journal else NO_SOURCE


@dataclass(frozen=True)
class _Attempt:
    """One attempt by its files and the journal, before times are counted from the campaign's first moment."""

    row: Row
    manifest: Manifest
    begin: float
    end: float | None
    status: str
    pending_since: float | None
    is_by_journal: bool = False

    @property
    def lane(self) -> str:
        device = gpu.device_name(self.manifest["gpu_id"])
        if "slurm" in self.manifest:
            device = f"{escaping.line(self.manifest['slurm']['node'], 40)}, {device}"
        return device if self.manifest["gpu_id"] >= 0 else f"{device}, worker {self.manifest['worker']}"


Holds = dict[str, list[Hold]]  # lane -> what the journal has of its GPU


def read(campaign: Campaign) -> Timeline:
    """Returns the timeline of the campaign's enabled rows; an attempt whose manifest cannot be read is left out."""
    holds: Holds = {}
    found = [attempt for row in campaign.enabled for attempt in _attempts(campaign, row)]
    attempts = sorted((_by_journal(attempt, holds) for attempt in found), key=lambda each: each.begin)
    if not attempts:
        return Timeline(None, 0.0, ())
    first = min(min(each.begin, each.pending_since or each.begin) for each in attempts)
    last = max(each.end or each.begin for each in attempts)
    names = sorted({each.lane for each in attempts}, key=_natural)
    lanes = [_lane(name, [each for each in attempts if each.lane == name], holds, first, last) for name in names]
    return Timeline(files.utc_text(first), max(last - first, 1.0), lanes)


def _natural(lane: str) -> tuple[str, int]:
    """Orders GPU 10 behind GPU 9."""
    head, _, tail = lane.rpartition(" ")
    digits = "".join(filter(str.isdigit, tail))
    return head, int(digits) if digits else -1


def _attempts(campaign: Campaign, row: Row) -> Iterator[_Attempt]:
    folder, marker = campaign.layout.run(row.run_id), row_state.read(campaign.layout, row.run_id)
    for number in folder.numbers():
        manifest = schema.read_or_none("run_manifest", folder.attempt(number).manifest)
        result = schema.read_or_none("result", folder.attempt(number).result)
        if manifest and not manifest["dry_run"]:
            end = files.timestamp(result["end_time_utc"]) if result else None
            status = result["status"] if result else "running"
            begin = files.timestamp(manifest["start_time_utc"])
            yield _Attempt(row, manifest, begin, end, status, _pending_since(marker, number))


def _pending_since(marker: RowMarker | None, attempt: int) -> float | None:
    """Returns when a row began to wait for its attempt: the step before that attempt's first, if that is pending."""
    for before, step in pairwise(marker["history"] if marker else ()):
        if step["attempt"] == attempt and step["status"] == "running":
            return files.timestamp(before["at_utc"]) if before["status"] == "pending" else None
    return None


def _by_journal(attempt: _Attempt, holds: Holds) -> _Attempt:
    """Returns the attempt with the journal's times, taken out of `holds`; as it is where the journal has it not."""
    if attempt.manifest["gpu_id"] < 0:
        return attempt
    if attempt.lane not in holds:
        holds[attempt.lane] = lease_journal.read(attempt.manifest["gpu_uuid"]) or []
    for hold in holds[attempt.lane]:
        is_near = attempt.begin - ROUNDED_SECS <= hold.begin <= (attempt.end or math.inf) + ROUNDED_SECS
        if hold.label == attempt.row.run_id and is_near:
            holds[attempt.lane].remove(hold)
            end = hold.end if attempt.end is not None and hold.end else attempt.end
            return replace(attempt, begin=hold.begin, end=end, is_by_journal=True)
    return attempt


def _lane(name: str, attempts: Sequence[_Attempt], holds: Holds, first: float, last: float) -> Lane:
    """Returns a lane with the attempts on it, and with what others ran there between the campaign's ends."""
    others = [
        Span(hold.label, 0, name, max(hold.begin, first) - first, min(hold.end or last, last) - first, OTHERS)
        for hold in holds.get(name, ())
        if hold.begin < last and (hold.end or last) > first
    ]
    spans = sorted([*(_span(attempt, first) for attempt in attempts), *others], key=lambda span: span.begin)
    return Lane(name, spans)


def _span(attempt: _Attempt, first: float) -> Span:
    return Span(
        attempt.row.run_id,
        attempt.manifest["attempt"],
        attempt.lane,
        attempt.begin - first,
        None if attempt.end is None else attempt.end - first,
        attempt.status,
        None if attempt.pending_since is None else max(0.0, attempt.begin - attempt.pending_since),
        is_by_journal=attempt.is_by_journal,
    )
