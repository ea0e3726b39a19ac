"""Estimates how long rows take: as long as their last run took or, for rows that never ran, as the matrix says.

The estimates decide the order and what a live table says of the time left, never an outcome, so a damaged or forged
result costs a bad order at most.
"""

import math
from collections.abc import Iterable, Mapping
from statistics import median

from ..campaign.campaign import Campaign
from ..campaign.matrix import CPU, Row
from ..core import files
from ..core.files import Json
from ..execution import gpu
from .row_scheduler import Job


def gpus(campaign: Campaign, rows: Iterable[Row]) -> int:
    """Returns how many GPUs the scheduler has; 0, without looking for GPUs, where no row asks for one of this host."""
    asks = not campaign.is_on_slurm and any(row.gpu_id != CPU for row in rows)
    return len(gpu.visible_gpus()) if asks else 0


def jobs(campaign: Campaign, rows: Mapping[int, Row], resume: bool) -> list[Job]:
    """Returns the scheduler's job for each row in `rows`, which maps a place in the order to the row.

    With `resume`, a passed row is only judged again, which takes no GPU and next to no time. Where no row has run yet,
    the matrix's steps stand for seconds.
    """
    seconds = expected_seconds(campaign, rows.values(), resume)
    return [
        Job(place)
        if seconds.get(row.run_id) == 0
        else Job(place, seconds.get(row.run_id, campaign.cost(row)), row.gpu_id)
        for place, row in rows.items()
    ]


def expected_seconds(campaign: Campaign, rows: Iterable[Row], resume: bool) -> dict[str, float]:
    """Returns how many seconds each row is expected to take, by its run id.

    With `resume`, a passed row takes 0. Where none of `rows` has run yet, the rows that would run are left out.
    """
    rows = tuple(rows)
    results = {row.run_id: files.read_or_empty(campaign.layout.run(row.run_id).result) for row in rows}
    known = {row.run_id: seconds for row in rows if (seconds := _seconds(campaign, row, results[row.run_id]))}
    expected = dict(known)
    if known:
        # The median seconds per step make rows that have run comparable with rows that have not.
        pace = median(known[row.run_id] / campaign.cost(row) for row in rows if row.run_id in known)
        expected = {row.run_id: pace * campaign.cost(row) for row in rows} | known
    passed = {run_id for run_id, result in results.items() if resume and result.get("status") == "pass"}
    return expected | dict.fromkeys(passed, 0.0)


def _seconds(campaign: Campaign, row: Row, result: Json) -> float | None:
    """Returns the seconds that the row's last run took, if it ran to its end or to its timeout.

    Returns None for any other end, where that run had another number of episodes, and where it kept some of an earlier
    attempt, so that its seconds are those of the others alone.
    """
    seconds, episodes = result.get("duration_sec"), result.get("episodes")
    if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        return None
    attempt = result.get("attempt")
    if isinstance(attempt, int) and campaign.layout.run(row.run_id).attempt(attempt).resumed.is_file():
        return None
    is_complete = result.get("status") == "pass" and episodes == row.n_episodes * len(campaign.task_ids(row))
    return float(seconds) if is_complete or result.get("reason") == "timeout" else None
