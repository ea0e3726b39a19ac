"""Makes campaigns in memory, a row a task, and what their rows have played, for tests of decisions to stop early."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracka.campaign.campaign import Campaign
from tracka.campaign.layout import Layout
from tracka.campaign.matrix import CPU, Row
from tracka.campaign.verdict_settings import VerdictSettings
from tracka.runs import claims, stop_decision
from tracka.runs.stop_decision import Decision, Played


def campaign_of(n_tasks: int, n_episodes: int, **settings: Any) -> Campaign:
    """Returns a campaign of so many tasks of libero_object and episodes of each, with these settings in `[verdict]`."""
    names = ["baseline", *(f"t{task}" for task in range(n_tasks))]
    rows = tuple(Row(name, "libero_object", 1, n_episodes, CPU, 7, "egl", "p", True) for name in names)
    tables = {row.run_id: {"task_ids": [max(0, index - 1)]} for index, row in enumerate(rows)}
    verdict = VerdictSettings(**settings)
    return Campaign(Layout(Path("/nowhere")), rows, "baseline", 0, row_tables=tables, verdict=verdict)


def decided(campaign: Campaign, *outcomes: Sequence[bool]) -> Decision | None:
    """Returns the decision by the outcomes of the first episodes of each task."""
    rows = zip(campaign.compared_rows, outcomes, strict=False)
    played = {row.run_id: dict(zip(claims.starts(campaign, row), task, strict=False)) for row, task in rows}
    return stop_decision.decide(campaign, Played(played, played))
