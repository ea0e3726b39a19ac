"""Says what each row of a timeline waited for: the baseline's end, a GPU and who had it, or a free worker."""

from collections.abc import Sequence
from dataclasses import replace

from ..campaign.campaign import Campaign
from ..execution import gpu
from .timeline import Lane, Span, Timeline

AT_ONCE_SECS = 2.0  # a row begins within that time once its GPU is free


def explained(campaign: Campaign, timeline: Timeline) -> Timeline:
    """Returns the timeline with a reason at each row that waited."""
    gate = _gate(campaign, timeline.spans)
    return replace(timeline, lanes=[_lane(campaign, lane, gate) for lane in timeline.lanes])


def _gate(campaign: Campaign, spans: Sequence[Span]) -> Span | None:
    """Returns the baseline's last attempt, where it ended before any other row began; the gates run it so."""
    own = [span for span in spans if span.is_own]
    baseline = max(
        (span for span in own if span.run_id == campaign.baseline), key=lambda span: span.begin, default=None
    )
    others = [span for span in own if span.run_id != campaign.baseline]
    if baseline is None or baseline.end is None or any(span.begin < baseline.end for span in others):
        return None
    return baseline


def _lane(campaign: Campaign, lane: Lane, gate: Span | None) -> Lane:
    before = [None, *lane.spans]
    return replace(lane, spans=[_span(campaign, *pair, gate) for pair in zip(lane.spans, before, strict=False)])


def _span(campaign: Campaign, span: Span, before: Span | None, gate: Span | None) -> Span:
    if not span.is_own or not span.waited_secs:
        return span
    since = span.begin - span.waited_secs
    ends = {each: each.end for each in (before, gate) if each and each.end and each.run_id != span.run_id}
    last = max(ends, key=lambda each: ends[each], default=None)
    if last is None or ends[last] <= since:
        asked = campaign.row(span.run_id).gpu_id
        return replace(span, waited_for=gpu.device_name(asked) if asked >= 0 else "a free worker or device")
    free_secs = round(span.begin - ends[last])
    ago = f" until {free_secs} s before" if free_secs > AT_ONCE_SECS else ""
    return replace(span, waited_for=f"{_obstacle(span, last, gate)}{ago}")


def _obstacle(span: Span, last: Span, gate: Span | None) -> str:
    if last is gate:
        return f"the baseline, {last.run_id}, which ran"
    whose = "" if last.is_own else "another campaign's "
    return f"{span.lane}, where {whose}{last.run_id} ran"
