"""Closes a campaign whose rows have run elsewhere: phases 4 and 5 from what is on disk, and the strict validation.

Nothing runs, so a host without a GPU can close what many hosts have swept. The verdict is that of the gates, since the
same contracts decide.
"""

from functools import partial

from ..campaign import path_safety
from ..campaign.campaign import Campaign
from ..campaign.layout import PHASES
from ..core import lock
from ..core.errors import Finding
from ..reporting import progress
from . import derived_files, handoff, validate

CLOSED = PHASES[3:]


def close(campaign: Campaign, owner: str = "tracka") -> tuple[dict[str, str], list[Finding]]:
    """Hands over phases 4 and 5, validates all phases strictly, and ticks or clears the campaign's box in TODO.md.

    Returns the status of phases 4 and 5, and the findings: the campaign is accepted where there are none. What a
    phase's contracts found as it was handed over counts in the validation too, since the lock lets nothing run between
    them. Raises Busy where a session has the campaign.
    """
    path_safety.require(campaign.layout)
    judged: dict[str, list[Finding]] = {}
    judge = partial(_judge, judged)
    with lock.session(campaign.layout.locks, campaign.name):
        derived_files.refresh_baseline_tables(campaign)
        statuses = {phase: handoff.hand_over(campaign, phase, owner, judge)["status"] for phase in CLOSED}
        findings = validate.validate(campaign, PHASES, strict=True, judged=judged)
        progress.close(campaign.layout, accepted=not findings)
    return statuses, findings


def _judge(judged: dict[str, list[Finding]], campaign: Campaign, phase: str) -> list[Finding]:
    """Returns what breaks the contracts of a phase, and keeps it in `judged`."""
    judged[phase] = validate.phase_findings(campaign, phase)
    return judged[phase]
