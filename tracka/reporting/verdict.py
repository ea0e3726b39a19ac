"""Puts the verdict on a campaign into words: accepted, or what keeps the campaign from being accepted."""

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..core.errors import joined_names
from ..runs import run

NO_THRESHOLD = "complete, no threshold set"


def words(campaign: Campaign, accepted: bool) -> str:
    """Returns the verdict in words.

    `accepted` says whether every gate passed and the strict validation found nothing.
    """
    results = [run.read_result(campaign.layout, row.run_id) for row in campaign.enabled]
    if any(result and result["invalid"] for result in results):
        return "invalid: the simulator is not the benchmark's"
    if not accepted:
        return "not accepted"
    if campaign.verdict is not None:
        return "accepted"
    unjudged = _unjudged(campaign)
    if len(unjudged) == len(campaign.compared_rows):
        return NO_THRESHOLD
    return f"accepted, no threshold set for {joined_names(unjudged)}" if unjudged else "accepted"


def threshold(campaign: Campaign) -> str:
    """Returns what the rows have to reach, in words."""
    rates = sorted({campaign.threshold(row) for row in campaign.compared_rows if campaign.threshold(row) > 0})
    parts = [f"a success rate of at least {' or '.join(f'{100 * rate:g}%' for rate in rates)}"] if rates else []
    parts += ["its known answers, episode by episode"] if campaign.known_answers else []
    unjudged = _unjudged(campaign)
    if campaign.verdict is not None:
        row_words = f" Each row has to reach {', or '.join(parts)} besides." if parts else ""
        return f"The section Verdict says what the policies have to show, and what they show.{row_words}"
    if not parts:
        return "No threshold is set: the campaign says what the policy reaches, not whether that is enough."
    rest = f" No threshold is set for {joined_names(unjudged)}." if unjudged else ""
    return f"Each row has to reach {', or '.join(parts)}.{rest}"


def threshold_step(campaign: Campaign) -> str:
    """Returns what to set and to run where no row has anything to reach; empty where one has."""
    if campaign.verdict is not None or len(_unjudged(campaign)) < len(campaign.compared_rows):
        return ""
    layout = campaign.layout
    key = f"set min_success_rate below [thresholds] in {layout.display_name}/{layout.relative(layout.settings)}"
    return f"{key}, then {commands.gates(layout)} judges the rows by it and plays none again"


def _unjudged(campaign: Campaign) -> list[str]:
    """Returns the run ids of the compared rows for which nothing says what they have to reach."""
    return [row.run_id for row in campaign.compared_rows if not campaign.is_judged(row)]
