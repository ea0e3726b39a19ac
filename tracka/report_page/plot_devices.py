"""Draws which rows ran on which device and when, as a Gantt chart."""

from collections.abc import Iterator, Sequence
from typing import Any

from ..core.figures import percent
from . import figure_style as style
from .timeline import OTHERS, Lane, Span, Timeline

LANE_INCHES, MARGIN_INCHES, MOST_INCHES = 0.34, 0.95, 40.0
ONE_LINE_POINTS, TWO_LINES_POINTS = 6.5, 5.5  # of a row's name, on its bar
LETTER_SHARE = 0.6  # of its height: the width of a letter
NAME_INCHES, COUNT_INCHES = 0.5, 0.6  # beside the bars
LOOKS = {  # status -> words, colour, hatch
    "pass": ("passed", style.GOOD, ""),
    "fail": ("failed", style.BAD, "////"),
    "running": ("running", style.OPEN, ".."),
    OTHERS: ("another campaign's", style.LINE, "xx"),
}


def draw(timeline: Timeline) -> Any:
    """Returns the figure: one line for each GPU, and for each worker on the CPU."""
    lanes = timeline.lanes
    figure, (axis,) = style.new(min(LANE_INCHES * len(lanes), MOST_INCHES) + MARGIN_INCHES)
    size, name = style.unit(timeline.seconds)
    for place, lane in enumerate(lanes):
        _draw_lane(axis, lane, place, timeline.seconds, size)
    axis.set_yticks(range(len(lanes)), [style.shown(lane.name, 24) for lane in lanes])
    axis.set_ylim(len(lanes) - 0.5, -0.5)
    axis.set_xlim(0, timeline.seconds / size)
    axis.set_xlabel(f"{name} since the first row began or waited")
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")
    style.legend(figure, [*_legend(lanes)])
    return figure


def _draw_lane(axis: Any, lane: Lane, place: int, seconds: float, size: float) -> None:
    for since, until in lane.waits:
        axis.plot([since / size, until / size], [place, place], color=style.OPEN, linewidth=1, linestyle=(0, (1, 2)))
    for span in lane.spans:
        _draw_bar(axis, span, place, seconds, size)
    busy = percent(round(min(1.0, lane.busy_secs(seconds) / seconds), 2))
    axis.annotate(f"{busy} busy", (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=7)


def _draw_bar(axis: Any, span: Span, place: int, seconds: float, size: float) -> None:
    _, colour, hatch = LOOKS.get(span.status, LOOKS["running"])
    end = seconds if span.end is None else span.end
    axis.barh(
        place,
        (end - span.begin) / size,
        left=span.begin / size,
        height=0.62,
        color=colour,
        edgecolor="white",
        hatch=hatch,
        linewidth=0.6,
    )
    middle = (span.begin + end) / 2 / size
    inches = (style.WIDTH - NAME_INCHES - COUNT_INCHES) * (end - span.begin) / seconds
    for text, points in _texts(style.shown(span.run_id)):
        if not hatch and LETTER_SHARE * points / 72 * max(map(len, text.split("\n"))) < inches:
            axis.text(middle, place, text, color="white", ha="center", va="center", fontsize=points, linespacing=0.95)
            break


def _texts(name: str) -> Iterator[tuple[str, float]]:
    """Yields a row's name in one line, then in two, each with the size of its text; a bar takes what fits first."""
    yield name, ONE_LINE_POINTS
    breaks = [at for at, letter in enumerate(name) if letter in "_-" and at]
    if breaks:
        at = min(breaks, key=lambda at: abs(at - len(name) / 2))
        yield f"{name[:at]}\n{name[at:]}", TWO_LINES_POINTS


def _legend(lanes: Sequence[Lane]) -> Iterator[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    statuses = {span.status for lane in lanes for span in lane.spans}
    for status, (words, colour, hatch) in LOOKS.items():
        if status in statuses:
            yield Patch(facecolor=colour, edgecolor="white", hatch=hatch, label=words)
    if any(lane.waits for lane in lanes):
        yield Line2D([], [], color=style.OPEN, linewidth=1, linestyle=(0, (1, 2)), label="a row waits")
