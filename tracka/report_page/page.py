"""Writes report.html: one campaign as a page that opens from disk, alone or against another campaign."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..campaign.campaign import Campaign
from ..core import files, schema
from ..core.errors import TrackaError
from ..core.files import Json
from ..reporting import collect, comparison_page, report, results_page
from . import (
    against,
    embedding,
    headline,
    matrix_rows,
    media,
    page_data,
    plots,
    provenance,
    rendering,
    task_rates,
    timeline,
    waits,
)
from . import episodes as episode_files
from .against import Against
from .episodes import ShownEpisode
from .media import Choice, Media
from .page_data import Partners

SINGLE = "single"  # behind the name of a page that holds its videos
MARK = '<meta name="tracka-results" content="{}">'  # by which a page is known to be of today's results


@dataclass(frozen=True)
class PageOptions:
    """How a page is made. `baseline` is the campaign or file to compare with; `output` is the page's own path.

    `policy` names the checkpoint to compare, where the campaign has several.
    `videos` says which videos the page shows. `single_file` puts them inside the page, with their posters and traces.
    """

    baseline: Path | None = None
    policy: str = ""
    single_file: bool = False
    videos: Choice = "all"
    output: Path | None = None


def write(campaign: Campaign, options: PageOptions | None = None, accepted: bool | None = None) -> Path:
    """Writes the campaign's page and returns its path. `accepted` is as `headline.read` takes it.

    Raises UsageError where the campaign cannot be compared with the baseline of the options.
    """
    options = options or PageOptions()
    own = campaign.layout.report_page
    target = (options.output or (own.with_stem(f"{own.stem}-{SINGLE}") if options.single_file else own)).absolute()
    comparison = _against(campaign, options)
    shown = episode_files.read(campaign)
    partners = comparison.partners_of(shown) if comparison else None
    page_media = _media(campaign, options, target, shown, partners or {})
    facts = _facts(campaign, comparison, shown, accepted)
    facts["data"] = page_data.data(shown, facts["rows"], facts["words"], page_media, partners)
    facts["address"] = None if options.single_file else embedding.relative_to(target.parent)
    files.write_text(target, rendering.render("report.html.j2", facts))
    if target == own:
        media.remove_unused(campaign.layout.report_files, page_media)
    return target


def _against(campaign: Campaign, options: PageOptions) -> Against | None:
    if options.baseline is None:
        return None
    return against.read(options.baseline, campaign.layout.naming_folder, options.policy)


def is_current(campaign: Campaign, page: Path) -> bool:
    """Returns whether a page was made from the results that lie in the run folders now."""
    try:
        return _mark(campaign) in files.read_text(page)[:8192]
    except TrackaError:
        return False


def _mark(campaign: Campaign) -> str:
    return MARK.format(collect.results_sha256(campaign.layout, campaign.enabled))


def _facts(
    campaign: Campaign, comparison: Against | None, shown: Sequence[ShownEpisode], accepted: bool | None
) -> Json:
    """Returns what the template shows, apart from the single episodes."""
    results, manifests = report.enabled_results(campaign), report.manifests(campaign)
    reasons = collect.failure_reasons(campaign, results)
    rows = matrix_rows.read(campaign, results, reasons, manifests)
    head = headline.read(campaign, results, reasons, accepted)
    claims = head.claims["rates"] if head.claims else ()
    compared = comparison.comparison["tasks"] if comparison else ()
    return {
        "campaign": campaign,
        "mark": _mark(campaign),
        "headline": head,
        "rates": task_rates.read(campaign, rows, shown, claims, compared),
        "unplayed": task_rates.without_result(campaign, rows),
        "reason_of": {row.result.run_id: row.reason for row in rows if row.reason},
        "rows": rows,
        "failed": [row for row in rows if row.reason and row.result.status in ("pass", "fail")],
        "open": [row.result for row in rows if row.result.status not in ("pass", "fail")],
        "words": results_page.tasks(campaign),
        "against": comparison,
        "comparison_head": comparison_page.HEAD,
        "plots": plots.existing(campaign),
        "timeline": waits.explained(campaign, timeline.read(campaign)),
        "preflight": schema.read_or_empty("preflight", campaign.layout.preflight_report),
        "provenance": provenance.read(campaign, manifests),
    }


def _media(
    campaign: Campaign, options: PageOptions, target: Path, shown: Sequence[ShownEpisode], partners: Partners
) -> Media:
    folder = campaign.layout.report_files
    chosen = page_data.chosen(shown, partners, options.videos)
    others = page_data.partner_videos(chosen, partners)
    if options.single_file:
        return media.inside(folder, chosen, others)
    return media.beside(target.parent, folder, chosen, others)
