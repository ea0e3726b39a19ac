"""How long a campaign is expected to take on GPUs, by what was measured with pi0 on an H100 (docs/performance.md)."""

import heapq
from dataclasses import dataclass

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row

GATES = 120  # seconds of phases 1, 2 and 5 (docs/several-gpus.md)
BATCH = 10  # episodes, of the batches that were measured


@dataclass(frozen=True)
class Pace:
    """Seconds that an engine takes: for all that is done once, before a row's first step, and for a step of a batch."""

    once: float
    row: float
    step: float


PACES = {
    "lerobot-eval": Pace(once=0, row=142, step=41.3 / 280),
    # Once: the engine is held against lerobot-eval (222 s), and each GPU's first row loads the policy.
    "resident": Pace(once=222 + 30, row=1, step=BATCH * 3600 / 17100 / 280),
}


def words(campaign: Campaign) -> str:
    """The campaign's size and, where it has GPUs, the time it is expected to take by either engine."""
    episodes = sum(row.n_episodes * len(campaign.task_ids(row)) for row in campaign.enabled)
    longest = max(map(campaign.steps, campaign.enabled))
    told = f"{len(campaign.enabled)} rows, {episodes} episodes of at most {longest} steps"
    if not campaign.expected_gpus:
        return f"{told}; how long that takes on a CPU, the baseline of phase 3 tells"
    times = [f"{in_words(seconds(campaign, engine))} with engine = {engine}" for engine in PACES]
    gpus = "1 GPU" if campaign.expected_gpus == 1 else f"{campaign.expected_gpus} GPUs"
    return f"{told}; for pi0 on {gpus} like an H100, with no early success, about {' or '.join(times)}"


def seconds(campaign: Campaign, engine: str) -> float:
    """The time from the first gate to the last: the baseline alone, then the other rows, dealt out to the GPUs."""
    pace = PACES[engine]
    busy = [0.0] * max(campaign.expected_gpus, 1)
    for time in sorted((_row(campaign, row, pace) for row in campaign.compared), reverse=True):
        heapq.heapreplace(busy, busy[0] + time)
    return GATES + pace.once + _row(campaign, campaign.row(campaign.baseline), pace) + max(busy)


def _row(campaign: Campaign, row: Row, pace: Pace) -> float:
    """A step of a smaller batch takes as long: the policy's calls bind, whose time hardly grows with the batch."""
    batches = -(-row.n_episodes // row.batch_size) * max(1, row.batch_size / BATCH)
    return pace.row + batches * len(campaign.task_ids(row)) * campaign.steps(row) * pace.step


def in_words(time: float) -> str:
    """A time in seconds as minutes or hours."""
    return f"{time / 60:.0f} minutes" if time < 5400 else f"{time / 3600:.1f} hours"
