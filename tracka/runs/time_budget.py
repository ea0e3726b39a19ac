"""The time budget of a tier: once a session has spent it, no further row starts.

The budget counts from the start of the session or the sweep, and each session has a budget of its own. A row that runs
when the budget ends runs on to its own end or timeout, without a retry. A row that may not start stays pending, with
the reason in its marker, and the next session starts it.
"""

import time
from dataclasses import dataclass

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..campaign.layout import Layout
from ..core.errors import Finding, TrackaError
from . import row_state

REASON = "budget"  # why a row has no run, in its marker and in failures.csv


@dataclass(frozen=True)
class TimeBudget:
    """What is left of a tier's budget in this session. `end` is a time of this host's monotonic clock, in seconds."""

    tier: str
    minutes: float
    end: float

    @property
    def is_spent(self) -> bool:
        return time.monotonic() >= self.end


class BudgetSpent(TrackaError):
    """Raised where a row may not start, since its tier's time budget is spent."""


def of_session(campaign: Campaign, start: float) -> TimeBudget | None:
    """Returns the budget of a session that began at `start`, a time of the monotonic clock; None without a budget."""
    tier = campaign.tier
    if tier is None or tier.budget_minutes is None:
        return None
    return TimeBudget(tier.name, tier.budget_minutes, start + 60 * tier.budget_minutes)


def require(budget: TimeBudget | None, layout: Layout, run_id: str) -> None:
    """Raises BudgetSpent, after a pending row's marker has got the reason, where the budget is spent.

    The caller holds the row's lock.
    """
    if budget is not None and budget.is_spent:
        notes = f"not started: the budget of the tier {budget.tier}, {budget.minutes:g} minutes, was spent"
        row_state.note_pending_held(layout, run_id, REASON, notes)
        raise BudgetSpent(_finding(layout, run_id, notes))


def lost_start(layout: Layout, run_id: str) -> Finding | None:
    """Returns that the budget kept a row from starting, by its marker; None for every other row."""
    marker = row_state.read(layout, run_id) if layout.tier else None  # a whole campaign has no budget
    if marker is None or (marker["status"], marker["reason"]) != ("pending", REASON):
        return None
    return _finding(layout, run_id, marker["notes"])


def _finding(layout: Layout, run_id: str, what: str) -> Finding:
    remedy = f"Run the tier again, with a new budget: {commands.gates(layout, '--lf')}; or raise budget_minutes"
    return Finding(f"row {run_id}", what, remedy)
