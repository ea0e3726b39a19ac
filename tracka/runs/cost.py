"""How long rows are expected to take: as long as in the past, and those that never ran as the matrix says.

It decides the order alone, never an outcome, so a damaged or forged result costs a bad order at most.
"""

import math
from collections.abc import Iterable, Mapping
from statistics import median

from ..campaign.campaign import Campaign
from ..campaign.matrix import CPU, Row
from ..core import files
from ..core.files import Json
from ..execution import gpu
from .dealer import Job


def gpus(rows: Iterable[Row]) -> int:
    """How many GPUs there are to deal; nobody looks where no row asks for one."""
    return len(gpu.inventory()) if any(row.gpu_id != CPU for row in rows) else 0


def jobs(campaign: Campaign, rows: Mapping[int, Row], resume: bool) -> list[Job]:
    """The rows, by their place in the order, as the dealer sees them.

    With `resume` one that has passed is only judged again, which takes no GPU and next to no time.
    """
    results = {place: files.read_or_empty(campaign.layout.run(row.run_id).result) for place, row in rows.items()}
    judged = {place for place, result in results.items() if resume and result.get("status") == "pass"}
    took = {place: seconds for place, row in rows.items() if (seconds := _seconds(campaign, row, results[place]))}
    # seconds a step, so that rows with a past and rows without one can be compared
    pace = median([seconds / campaign.cost(rows[place]) for place, seconds in took.items()] or [1.0])
    return [
        Job(place) if place in judged else Job(place, took.get(place, pace * campaign.cost(row)), row.gpu_id)
        for place, row in rows.items()
    ]


def _seconds(campaign: Campaign, row: Row, result: Json) -> float | None:
    """What the row's last run took; None where it was another amount of work, or ended early for another reason."""
    seconds, episodes = result.get("duration_sec"), result.get("episodes")
    if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        return None
    whole = result.get("status") == "pass" and episodes == row.n_episodes * len(campaign.task_ids(row))
    return float(seconds) if whole or result.get("reason") == "timeout" else None
