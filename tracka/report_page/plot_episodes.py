"""Draws how many episodes had been played, and how many of them had succeeded, over the time of the campaign."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from ..campaign.campaign import Campaign
from ..core import files
from ..engines import episode_lines
from . import figure_style as style
from .episodes import ShownEpisode
from .timeline import Span, Timeline

HEIGHT = 2.6
Key = tuple[int, int]  # task and episode


@dataclass(frozen=True)
class Ended:
    """An episode that had ended `at` so many seconds after the campaign's first moment."""

    at: float
    success: bool


def ended(campaign: Campaign, timeline: Timeline, episodes: Sequence[ShownEpisode]) -> list[Ended]:
    """Returns the episodes of the rows' last attempts in the order in which they ended.

    The resident engine notes when each ends. The episodes of another engine count when their row ends.
    """
    own = [span for span in timeline.spans if span.is_own]
    begins = {(span.run_id, span.attempt): span.begin for span in own}
    spans = {span.run_id: span for span in own}  # the last attempt of each row
    moments = {run_id: _moments(campaign, span, begins) for run_id, span in spans.items()}
    found = [
        Ended(_at(spans[each.run_id], moments[each.run_id].get((each.task, each.number))), each.success)
        for each in episodes
        if each.run_id in spans
    ]
    return sorted(found, key=lambda each: each.at)


def _at(span: Span, moment: float | None) -> float:
    end = span.begin if span.end is None else span.end
    return end if moment is None else min(moment, end)


def _moments(campaign: Campaign, span: Span, begins: Mapping[tuple[str, int], float]) -> Mapping[Key, float]:
    """Returns when each episode ended; nothing where the engine does not note it.

    An episode that an earlier attempt has played ended in that attempt.
    """
    path = campaign.layout.run(span.run_id).attempt(span.attempt).output / episode_lines.NAME
    return {
        (line["task"], line["episode"]): begin + float(line["at_secs"])
        for line in files.read_lines_or_empty(path)
        if isinstance(line.get("at_secs"), int | float) and {"task", "episode"} <= line.keys()
        if (begin := begins.get((span.run_id, line.get(episode_lines.ATTEMPT, span.attempt)))) is not None
    }


def draw(played: Sequence[Ended], planned: int, seconds: float) -> Any:
    """Returns the figure. `planned` is how many episodes the campaign has, `seconds` how long it took."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    figure, (axis,) = style.new(HEIGHT)
    size, name = style.unit(seconds)
    times = [0.0, *(each.at / size for each in played), seconds / size]
    counts, wins = range(len(played) + 1), [0, *accumulate(int(each.success) for each in played)]
    axis.step(times, [*counts, len(played)], where="post", color=style.OPEN, linewidth=1.6)
    axis.step(times, [*wins, wins[-1]], where="post", color=style.GOOD, linewidth=1.6, linestyle=(0, (5, 1.5)))
    axis.axhline(planned, color=style.TEXT, linewidth=0.9, linestyle=(0, (1, 2)))
    axis.set_xlim(0, 1.02 * seconds / size)
    axis.set_ylim(0, 1.06 * max(planned, len(played), 1))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel(f"{name} since the first row began")
    axis.set_ylabel("episodes")
    axis.grid()
    lines = (
        ("played", style.OPEN, "-"),
        ("succeeded", style.GOOD, (0, (5, 1.5))),
        ("planned", style.TEXT, (0, (1, 2))),
    )
    words = {"played": len(played), "succeeded": wins[-1], "planned": planned}
    handles = [
        Line2D([], [], color=colour, linestyle=dashes, linewidth=1.6, label=f"{label} ({words[label]})")
        for label, colour, dashes in lines
    ]
    style.legend(figure, handles)
    return figure
