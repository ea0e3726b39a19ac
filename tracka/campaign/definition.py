"""A campaign as a key, by which `fact_cache` remembers what was found of it."""

from dataclasses import dataclass, field

from .campaign import Campaign
from .layout import Layout


@dataclass(frozen=True)
class Definition:
    """A campaign, the same as another if both were read from the same files."""

    layout: Layout
    digests: tuple[tuple[str, str], ...]
    campaign: Campaign = field(compare=False)


def of(campaign: Campaign) -> Definition:
    """Returns the key of a campaign."""
    return Definition(campaign.layout, (*campaign.digests.items(),), campaign)
