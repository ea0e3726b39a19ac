"""Says what ran on which GPU and when, and what each row waited for, by manifests, results and row markers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core import schema
from ..core.artifacts import Manifest, RowMarker
from ..execution import gpu
from ..runs import row_state


@dataclass(frozen=True)
class Span:
    """One attempt on its device, in seconds since the campaign's first moment.

    `waited_secs` is how long the row had been waiting when the attempt began, and `waited_for` what it waited for, in
    words; both are None where nothing on disk says since when the row waited. `end` is None for an attempt that runs.
    """

    run_id: str
    attempt: int
    lane: str
    begin: float
    end: float | None
    status: str
    waited_secs: float | None
    waited_for: str | None


@dataclass(frozen=True)
class Timeline:
    """All attempts of the enabled rows, by lane. `began_utc` is when the first row began to wait or to run."""

    began_utc: str | None
    seconds: float
    lanes: Sequence[tuple[str, Sequence[Span]]]

    @property
    def spans(self) -> list[Span]:
        return sorted((span for _, spans in self.lanes for span in spans), key=lambda span: span.begin)


@dataclass(frozen=True)
class _Attempt:
    """One attempt by its files, before times are counted from the campaign's first moment."""

    row: Row
    manifest: Manifest
    begin: float
    end: float | None
    status: str
    pending_since: float | None

    @property
    def lane(self) -> str:
        device = gpu.device_name(self.manifest["gpu_id"])
        return device if self.manifest["gpu_id"] >= 0 else f"{device}, worker {self.manifest['worker']}"


def read(campaign: Campaign) -> Timeline:
    """Returns the timeline of the campaign's enabled rows; an attempt whose manifest cannot be read is left out."""
    attempts = sorted(
        (attempt for row in campaign.enabled for attempt in _attempts(campaign, row)), key=lambda each: each.begin
    )
    if not attempts:
        return Timeline(None, 0.0, ())
    first = min(min(each.begin, each.pending_since or each.begin) for each in attempts)
    last = max(each.end or each.begin for each in attempts)
    lanes = sorted({each.lane for each in attempts}, key=_natural)
    spans = {lane: [_span(each, before, first) for before, each in _with_predecessor(attempts, lane)] for lane in lanes}
    began = datetime.fromtimestamp(first, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Timeline(began, max(last - first, 1.0), [(lane, spans[lane]) for lane in lanes])


def _natural(lane: str) -> tuple[str, int]:
    """Orders GPU 10 behind GPU 9."""
    head, _, tail = lane.rpartition(" ")
    digits = "".join(filter(str.isdigit, tail))
    return head, int(digits) if digits else -1


def _with_predecessor(attempts: Sequence[_Attempt], lane: str) -> Iterator[tuple[_Attempt | None, _Attempt]]:
    yield from pairwise([None, *(each for each in attempts if each.lane == lane)])


def _attempts(campaign: Campaign, row: Row) -> Iterator[_Attempt]:
    folder, marker = campaign.layout.run(row.run_id), row_state.read(campaign.layout, row.run_id)
    for number in folder.numbers():
        manifest = schema.read_or_none("run_manifest", folder.attempt(number).manifest)
        result = schema.read_or_none("result", folder.attempt(number).result)
        if manifest and not manifest["dry_run"]:
            end = _seconds(result["end_time_utc"]) if result else None
            status = result["status"] if result else "running"
            begin = _seconds(manifest["start_time_utc"])
            yield _Attempt(row, manifest, begin, end, status, _pending_since(marker, number))


def _pending_since(marker: RowMarker | None, attempt: int) -> float | None:
    """Returns when a row began to wait for its attempt: the step before that attempt's first, if that is pending."""
    for before, step in pairwise(marker["history"] if marker else ()):
        if step["attempt"] == attempt and step["status"] == "running":
            return _seconds(before["at_utc"]) if before["status"] == "pending" else None
    return None


def _span(attempt: _Attempt, before: _Attempt | None, first: float) -> Span:
    waited = None if attempt.pending_since is None else max(0.0, attempt.begin - attempt.pending_since)
    return Span(
        attempt.row.run_id,
        attempt.manifest["attempt"],
        attempt.lane,
        attempt.begin - first,
        None if attempt.end is None else attempt.end - first,
        attempt.status,
        waited,
        _waited_for(attempt, before) if waited else None,
    )


def _waited_for(attempt: _Attempt, before: _Attempt | None) -> str:
    """Returns what a row waited for: its own GPU or any device, and the row that had it until then."""
    device = gpu.device_name(attempt.row.gpu_id) if attempt.row.gpu_id >= 0 else "a free worker or device"
    is_busy = before is not None and before.end is not None and before.end > (attempt.pending_since or 0)
    return f"{device}, where {before.row.run_id} ran until then" if is_busy and before else device


def _seconds(utc: str) -> float:
    return datetime.fromisoformat(utc).timestamp()
