"""Writes a campaign as figures for papers: success by task, episodes over time, use of the devices.

Guarantees: the same artifacts give the same bytes, whenever and wherever they are drawn with the same matplotlib.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..core import reading
from ..core.comparisons import ComparedTask
from ..core.errors import Finding, UsageError
from ..reporting import collect, report, verdict_file
from . import (
    against,
    episodes,
    figure_style,
    matrix_rows,
    plot_devices,
    plot_episodes,
    plot_tasks,
    task_rates,
    timeline,
)
from .plot_tasks import IntervalName

FORMATS = ("svg", "png")
NAMES = {
    "success-by-task": "success by task",
    "episodes-over-time": "episodes over time",
    "device-use": "use of the devices",
}
MARK = "tracka-results {}"
HEAD_BYTES = 4096  # the mark stands before that


@dataclass(frozen=True)
class PlotOptions:
    """What is drawn and where. `baseline` is the campaign or file whose rates stand beside; `policy` names one of ours.

    `output` is the folder; None is the campaign's own, whose figures report.html links to.
    """

    baseline: Path | None = None
    policy: str = ""
    formats: Sequence[str] = FORMATS
    interval: IntervalName = "wilson"
    output: Path | None = None


@dataclass(frozen=True)
class Plotted:
    """The figures of one kind in the campaign's own folder, of today's results: its words, and a path by format."""

    words: str
    paths: dict[str, Path]


def write(campaign: Campaign, options: PlotOptions) -> list[Path]:
    """Writes the figures and returns their paths. A figure of success by task needs a row that passed.

    Raises UsageError where no row has begun, or where the campaign cannot be compared with the baseline.
    """
    folder = options.output or _folder(campaign)
    with figure_style.applied():
        return [
            _saved(figure, folder / f"{name}.{ending}", campaign)
            for name, figure in _figures(campaign, options)
            for ending in options.formats
        ]


def _saved(figure: Any, path: Path, campaign: Campaign) -> Path:
    figure_style.save(figure, path, _mark(campaign))
    return path


def _figures(campaign: Campaign, options: PlotOptions) -> Iterator[tuple[str, Any]]:
    when = timeline.read(campaign)
    if not when.lanes:
        what, remedy = "no row has begun, so there is nothing to draw", f"Run {commands.gates(campaign.layout)} first"
        raise UsageError(Finding(campaign.layout.display_name, what, remedy))
    shown = episodes.read(campaign)
    if rates := _rates(campaign, options, shown):
        name = options.baseline.name if options.baseline else ""
        yield "success-by-task", plot_tasks.draw(rates, options.interval, name)
    planned = sum(row.n_episodes * len(campaign.task_ids(row)) for row in campaign.enabled)
    played = plot_episodes.ended(campaign, when, shown)
    yield "episodes-over-time", plot_episodes.draw(played, planned, when.seconds)
    yield "device-use", plot_devices.draw(when)


def _rates(
    campaign: Campaign, options: PlotOptions, shown: Sequence[episodes.ShownEpisode]
) -> list[task_rates.TaskRate]:
    results = report.enabled_results(campaign)
    rows = matrix_rows.read(campaign, results, collect.failure_reasons(campaign, results), ())
    verdict = verdict_file.read(campaign)
    compared: Sequence[ComparedTask] = ()
    if options.baseline:
        compared = against.read(options.baseline, campaign.layout.naming_folder, options.policy).comparison["tasks"]
    return task_rates.read(campaign, rows, shown, verdict["rates"] if verdict else (), compared)


def existing(campaign: Campaign) -> list[Plotted]:
    """Returns the figures in the campaign's own folder that were drawn from the results that lie there now."""
    mark = _mark(campaign).encode()
    found = [
        Plotted(
            words, {ending: path for ending in FORMATS if _has(path := _folder(campaign) / f"{name}.{ending}", mark)}
        )
        for name, words in NAMES.items()
    ]
    return [plotted for plotted in found if plotted.paths]


def _has(path: Path, mark: bytes) -> bool:
    try:
        with reading.opened(path, reading.OUTPUT) as file:
            return mark in file.read(HEAD_BYTES)
    except OSError:
        return False


def _folder(campaign: Campaign) -> Path:
    return campaign.layout.report_files / "plots"


def _mark(campaign: Campaign) -> str:
    return MARK.format(collect.results_sha256(campaign.layout, campaign.enabled))
