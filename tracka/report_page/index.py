"""Writes an index over several campaigns: how each ended, and where its own page is."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..campaign import campaign as campaigns
from ..campaign.campaign import Campaign
from ..core import files
from ..core.errors import UsageError
from ..reporting import collect, report, results_page
from ..reporting.results_page import Total
from ..runs import run
from . import embedding, headline, page, rendering
from .headline import Headline

PAGE = "report.html"


@dataclass(frozen=True)
class Listed:
    """One campaign of the index. `page` is None where it has no report.html, `is_current` whether that page is today's.

    `error` says why a campaign could not be read; there is nothing else then.
    """

    name: str
    folder: Path
    error: str = ""
    headline: Headline | None = None
    totals: tuple[Total, ...] = ()
    interval: tuple[float, float] | None = None
    rate: float | None = None
    rows: str = ""
    policies: tuple[str, ...] = ()
    last_end: str = ""
    page: Path | None = None
    is_current: bool = False


def is_folder_of_campaigns(folder: Path) -> bool:
    """Returns whether a folder is no campaign itself, but holds at least one."""
    return not (folder / "configs").is_dir() and any(_folders(folder))


def _folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in sorted(folder.iterdir()) if (path / "configs" / "campaign.toml").is_file())


def write(folder: Path, output: Path | None = None) -> Path:
    """Writes the index over the campaigns in `folder` and returns its path."""
    target = (output or folder / PAGE).absolute()
    listed = [_listed(path) for path in _folders(folder)]
    facts = {"folder": str(folder), "campaigns": listed, "address": embedding.relative_to(target.parent)}
    files.write_text(target, rendering.render("index.html.j2", facts))
    return target


def _listed(folder: Path) -> Listed:
    try:
        return _campaign(campaigns.load(folder))
    except UsageError as error:
        return Listed(folder.name, folder, error="; ".join(map(str, error.findings[:3])))


def _campaign(campaign: Campaign) -> Listed:
    results = report.enabled_results(campaign)
    reasons = collect.failure_reasons(campaign, results)
    totals = tuple(results_page.totals(campaign, results))
    successes, episodes = sum(each.successes for each in totals), sum(each.episodes for each in totals)
    ended = [result for row in campaign.enabled if (result := run.read_result(campaign.layout, row.run_id))]
    own_page = campaign.layout.report_page
    return Listed(
        campaign.name,
        campaign.layout.root,
        headline=headline.read(campaign, results, reasons),
        totals=totals,
        interval=collect.wilson(successes, episodes) if episodes else None,
        rate=successes / episodes if episodes else None,
        rows=f"{len(results) - len(reasons)} of {len(results)}",
        policies=tuple(dict.fromkeys(row.policy_path for row in campaign.enabled)),
        last_end=max((result["end_time_utc"] for result in ended), default=""),
        page=own_page if own_page.is_file() else None,
        is_current=own_page.is_file() and page.is_current(campaign, own_page),
    )
