"""Says why the campaign in a sound bundle was not accepted, so that a rejection does not read like a changed bundle."""

from collections.abc import Sequence

from ..campaign.campaign import Campaign
from ..campaign.layout import PHASES
from ..core.errors import Finding
from ..reporting import rejected_rows

REMEDY = "The campaign's own files say so, and another bundle of this campaign says the same"
SOUND = "bundle: sound. It is as `tracka bundle` made it; the campaign in it was not accepted, for the reasons above"
UNSOUND = (
    "bundle: not sound. Its files were changed after `tracka bundle`, or contradict each other, so nothing follows "
    "from them"
)


def words(campaign: Campaign, rejections: Sequence[Finding]) -> list[str]:
    """Returns why a campaign was not accepted: the rejected rows in the matrix's order, and what no row explains."""
    if not rejections:
        return []
    reasons = rejected_rows.reasons(campaign, with_not_run=True)
    rows = [*rejected_rows.causes(campaign, reasons)]
    others = [finding for finding in rejections if not _is_of_row(finding, reasons) and not _is_of_phase(finding)]
    rest = [f"{finding.where}: {finding.what}" for finding in others]
    has_run = any(reason != rejected_rows.NOT_RUN for reason in reasons.values())
    told = rows + rest if has_run else rest + rows  # what kept all rows from running comes first
    return told or [f"{finding.where}: {finding.what}" for finding in rejections]


def _is_of_row(finding: Finding, run_ids: Sequence[str] | dict[str, str]) -> bool:
    return any(
        finding.where == f"row {run_id}"
        or f"/{run_id}/" in finding.where
        or finding.where.partition(", ")[0].endswith(f"/{run_id}.json")  # the row's marker
        for run_id in run_ids
    )


def _is_of_phase(finding: Finding) -> bool:
    return finding.where in PHASES or finding.where.endswith("_handoff.json")
