"""Draws the success rate of each task with its interval, beside its threshold and the baseline's rate."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Literal

from . import figure_style as style
from .task_rates import TaskRate

IntervalName = Literal["wilson", "clopper-pearson"]
CONFIDENCE = 0.95
LINE_INCHES, MOST_INCHES = 0.22, 40.0
GROUP_INCHES, MARGIN_INCHES = 0.3, 0.75


def draw(rates: Sequence[TaskRate], interval: IntervalName, baseline: str = "") -> Any:
    """Returns the figure: one part for each policy and suite, one line for each task.

    `baseline` is the name of the campaign whose rates stand beside, empty without one.
    """
    groups = [list(group) for _, group in groupby(rates, lambda rate: (rate.policy_path, rate.suite))]
    line = min(LINE_INCHES, MOST_INCHES / len(rates))
    height = line * len(rates) + GROUP_INCHES * len(groups) + MARGIN_INCHES
    figure, axes = style.new(height, len(groups), [len(group) + 0.6 for group in groups])
    has_policies = len({rate.policy_path for rate in rates}) > 1
    for axis, group in zip(axes, groups, strict=True):
        _draw_group(axis, group, interval, line)
        policy = f", {style.shown(group[0].policy_path, 60)}" if has_policies else ""
        axis.set_title(f"{style.shown(group[0].suite)}{policy}", loc="left", fontsize=8, fontweight="bold", pad=3)
    axes[-1].set_xlabel("success rate")
    style.legend(figure, [*_legend(rates, interval, baseline)])
    return figure


def _draw_group(axis: Any, group: Sequence[TaskRate], interval: IntervalName, line: float) -> None:
    for place, rate in enumerate(group):
        low, high = bounds(rate, interval)
        colour, marker = (style.BAD, "v") if is_below(rate) else (style.GOOD, "o")
        axis.plot([low, high], [place, place], color=colour, alpha=0.5, linewidth=2.5, solid_capstyle="butt")
        axis.plot([rate.rate], [place], marker=marker, color=colour, markersize=4.5, clip_on=False, zorder=4)
        if rate.threshold is not None:
            axis.vlines(
                rate.threshold, place - 0.42, place + 0.42, color=style.TEXT, linestyle=(0, (3, 2)), linewidth=1
            )
        if rate.baseline is not None:
            axis.plot([rate.baseline], [place], "D", mfc="none", mec=style.TEXT, markersize=6, clip_on=False, zorder=5)
        counts = f"{rate.successes} of {rate.episodes}"
        axis.annotate(counts, (1.035, place), xycoords=("axes fraction", "data"), va="center", fontsize=_size(line))
    labels = [f"{rate.task}  {style.shown(rate.words)}" for rate in group]
    axis.set_yticks(range(len(group)), labels, fontsize=_size(line))
    axis.set_ylim(len(group) - 0.5, -0.5)
    axis.set_xlim(0, 1)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")


def _size(line: float) -> float:
    """Returns the size of text that fits into a line of so many inches."""
    return min(7.5, 72 * line * 0.6)


def is_below(rate: TaskRate) -> bool:
    """Returns whether the observed rate is below the task's threshold."""
    return rate.threshold is not None and rate.rate < rate.threshold


def bounds(rate: TaskRate, interval: IntervalName) -> tuple[float, float]:
    """Returns the two-sided interval of a rate."""
    from ..statistics.rate import Count, clopper_pearson, wilson

    count = Count(rate.successes, rate.episodes)
    found = wilson(count, CONFIDENCE) if interval == "wilson" else clopper_pearson(count, CONFIDENCE)
    return found.low, found.high


def _legend(rates: Sequence[TaskRate], interval: IntervalName, baseline: str) -> Iterator[Any]:
    from matplotlib.lines import Line2D

    name = {"wilson": "Wilson", "clopper-pearson": "Clopper-Pearson"}[interval]
    words = f"rate with {100 * CONFIDENCE:g}% {name} interval"
    yield Line2D([], [], color=style.GOOD, marker="o", markersize=4.5, linewidth=2.5, label=words)
    if any(map(is_below, rates)):
        yield Line2D([], [], color=style.BAD, marker="v", markersize=4.5, linewidth=2.5, label="below its threshold")
    if any(rate.threshold is not None for rate in rates):
        yield Line2D([], [], color=style.TEXT, linestyle=(0, (3, 2)), linewidth=1, label="threshold")
    if any(rate.baseline is not None for rate in rates):
        words = f"baseline {style.shown(baseline, 40)}"
        yield Line2D([], [], linestyle="", marker="D", mfc="none", mec=style.TEXT, markersize=6, label=words)
