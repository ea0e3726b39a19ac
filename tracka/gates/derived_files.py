"""Makes the files that follow from the run folders agree with them again: tables, verdict.json and both pages.

Each phase writes its own as it is handed over. A session that ends before its later phases, such as one that was
interrupted, leaves theirs as an earlier session wrote them, although rows have run since. Nothing runs here, and no
table is made that was not there.
"""

from collections.abc import Mapping

from ..campaign.campaign import Campaign
from ..core.errors import TrackaError, UsageError
from ..reporting import collect, report, verdict_file
from .phase_contracts import CONTRACTS

PAGES = ("runbook", "results")  # the contracts of both pages


def refresh(campaign: Campaign) -> None:
    """Writes the campaign's tables, verdict.json and pages anew where they are there, and other than today's.

    Writes nothing where a result was changed after its run, which a contract reports.
    """
    if not _results_stand(campaign):
        return
    _write_again(campaign, collect.baseline_tables(campaign) | collect.tables(campaign))
    if campaign.layout.verdict.is_file():
        verdict_file.write(campaign)
    refresh_pages(campaign)


def refresh_baseline_tables(campaign: Campaign) -> None:
    """Does the same for the summaries of the baseline alone, which are phase 3's."""
    if _results_stand(campaign):
        _write_again(campaign, collect.baseline_tables(campaign))


def _results_stand(campaign: Campaign) -> bool:
    try:
        collect.require_unchanged(campaign.layout, [row.run_id for row in campaign.enabled])
    except UsageError:
        return False
    return True


def _write_again(campaign: Campaign, texts: Mapping[str, str]) -> None:
    """Writes those of the tables `texts`, file name -> text, that are there."""
    there = {name: text for name, text in texts.items() if (campaign.layout.summary / name).is_file()}
    collect.write_tables(campaign, there)


def refresh_pages(campaign: Campaign) -> None:
    """Writes runbook.md and results.md anew where one of them is there and is not what the run folders give now."""
    pages = (campaign.layout.runbook, campaign.layout.results)
    if any(page.is_file() for page in pages) and _are_outdated(campaign):
        report.write(campaign)


def _are_outdated(campaign: Campaign) -> bool:
    try:
        return any(True for name in PAGES for _ in CONTRACTS["phase5"][name](campaign))
    except TrackaError:  # a page that cannot be read
        return True
