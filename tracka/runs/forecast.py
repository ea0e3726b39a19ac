"""Estimates how long a campaign takes on GPUs, from measurements with pi0 on an H100 (docs/performance.md)."""

import heapq
from dataclasses import dataclass

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core.counting import counted

GATES = 120  # seconds of phases 1, 2 and 5 (docs/several-gpus.md)
MEASURED = "pi0"  # the policy type of those measurements
BATCH = 10  # episodes of a batch in those measurements


@dataclass(frozen=True)
class Pace:
    """Seconds that an engine takes: once for a campaign, before a row's first step, and for each step of a batch."""

    once: float
    row: float
    step: float


PACES = {
    "lerobot-eval": Pace(once=0, row=142, step=41.3 / 280),
    # `once`: the parity gate compares the engine with lerobot-eval (222 s), and each GPU's first row loads the policy.
    "resident": Pace(once=222 + 30, row=1, step=BATCH * 3600 / 17100 / 280),
}


def words(campaign: Campaign) -> str:
    """Returns the campaign's size as text and, if the campaign has GPUs, the expected time with either engine.

    No time is given on the CPU, nor for policy types that were not measured.
    """
    size = size_words(campaign)
    if not campaign.expected_gpus:
        return f"{size}; the baseline of phase 3 shows how long that takes on a CPU"
    kinds = {kind for row in campaign.enabled if (kind := campaign.settings(row).policy_type)}
    if others := sorted(kinds - {MEASURED}):
        return f"{size}; the baseline of phase 3 shows how long that takes with {' and '.join(others)}"
    times = [f"{in_words(seconds(campaign, engine))} with engine = {engine}" for engine in PACES]
    gpus = counted(campaign.expected_gpus, "GPU")
    return f"{size}; for pi0 on {gpus} like an H100, with no early success, about {' or '.join(times)}"


def size_words(campaign: Campaign) -> str:
    """Returns the campaign's size as text: its rows, their episodes, and the longest episode."""
    episodes = sum(row.n_episodes * len(campaign.task_ids(row)) for row in campaign.enabled)
    longest = max(map(campaign.steps, campaign.enabled))
    return f"{counted(len(campaign.enabled), 'row')}, {counted(episodes, 'episode')} of at most {longest} steps"


def seconds(campaign: Campaign, engine: str) -> float:
    """Returns the expected seconds from the first gate to the last.

    The baseline runs alone, then the other rows are dealt to the GPUs.
    """
    pace = PACES[engine]
    busy = [0.0] * max(campaign.expected_gpus, 1)
    for time in sorted((_row(campaign, row, pace) for row in campaign.compared_rows), reverse=True):
        heapq.heapreplace(busy, busy[0] + time)
    return GATES + pace.once + _row(campaign, campaign.row(campaign.baseline), pace) + max(busy)


def row_seconds(campaign: Campaign, row: Row) -> float:
    """Returns the expected seconds of a row with the campaign's engine."""
    return _row(campaign, row, PACES[campaign.engine])


def _row(campaign: Campaign, row: Row, pace: Pace) -> float:
    """Returns the expected seconds of a row.

    A step of a batch smaller than BATCH takes as long as one of BATCH episodes: the policy's calls are the bottleneck,
    and their time hardly grows with the batch.
    """
    batch = row.played_batch
    batches = -(-row.n_episodes // batch) * max(1, batch / BATCH)
    return pace.row + batches * len(campaign.task_ids(row)) * campaign.steps(row) * pace.step


def in_words(time: float) -> str:
    """Returns a time in seconds as text in minutes or hours."""
    return f"{time / 60:.0f} minutes" if time < 5400 else f"{time / 3600:.1f} hours"
