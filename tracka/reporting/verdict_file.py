"""Writes and reads artifacts/summary/verdict.json. numpy and scipy are imported only where a verdict is made."""

from ..campaign.campaign import Campaign
from ..core import files, schema
from ..core.verdicts import CampaignVerdict


def write(campaign: Campaign) -> None:
    """Writes verdict.json, if the campaign has a `[verdict]`."""
    if campaign.verdict is not None:
        files.write_json(campaign.layout.verdict, _make(campaign))


def read(campaign: Campaign) -> CampaignVerdict | None:
    """Returns the verdict in verdict.json; None if there is none, or none that follows its schema."""
    return schema.read_or_none("verdict", campaign.layout.verdict) if campaign.verdict is not None else None


def is_up_to_date(campaign: Campaign, verdict: CampaignVerdict) -> bool:
    """Returns whether a verdict is what the results on disk give now."""
    return files.canonical(verdict) == files.canonical(files.redacted(_make(campaign)))


def _make(campaign: Campaign) -> CampaignVerdict:
    from . import campaign_verdict

    return campaign_verdict.make(campaign)
