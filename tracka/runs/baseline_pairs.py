"""Pairs a policy's episodes so far with those of the exported baseline of `[verdict]`, and bounds the difference.

The bound may be looked at after each episode. A difference of two rates is the rate of gains less the rate of losses,
and each of these has bounds of its own in each task (`statistics.sequential`), as the rates of a claim have. Only an
exported baseline counts, since its hash is registered before the first row. Every episode that the matrix asks of the
policy must have its partner there: the test at the end is then of the same pairs.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import cast

from ..campaign.campaign import Campaign
from ..core import fact_cache, files, schema
from ..core.errors import TrackaError
from . import claims
from .claims import Outcomes, Start

Task = tuple[str, int]  # suite and LIBERO task
Partners = Mapping[tuple[str, Start, int], bool]  # suite, start and length of an episode -> outcome of the baseline


@dataclass(frozen=True)
class TaskPairs:
    """The first pairs of one task, in the order in which the matrix deals them.

    `successes` counts those that the policy won, and `expected` is how many pairs the task will have.
    """

    gains: tuple[bool, ...]
    losses: tuple[bool, ...]
    successes: int
    expected: int


def of_policy(campaign: Campaign, policy_path: str, known: Mapping[str, Outcomes]) -> list[TaskPairs]:
    """Returns the policy's pairs so far, task by task; an empty list where not every episode has its partner.

    `known` has the outcomes whose places are known, by run id. Pairs after an episode without outcome are left out.
    """
    partners = _partners(campaign)
    tasks: dict[Task, dict[tuple[Start, int], tuple[bool | None, bool | None]]] = {}
    for row in campaign.compared_rows:
        if row.policy_path == policy_path:
            length = campaign.steps(row)
            for start in claims.starts(campaign, row):
                pairs = tasks.setdefault((row.task_suite, start[0]), {})
                if pairs.get((start, length), (None, None))[0] is None:
                    outcome = known.get(row.run_id, {}).get(start)
                    pairs[start, length] = (outcome, partners.get((row.task_suite, start, length)))
    everything = [pair for pairs in tasks.values() for pair in pairs.values()]
    if not everything or any(partner is None for _, partner in everything):
        return []
    return [_task_pairs([*pairs.values()]) for pairs in tasks.values()]


def upper_difference(tasks: list[TaskPairs], level: float) -> float:
    """Returns an upper bound of the policy's rate minus the baseline's; a task that has not begun may have gained all.

    The chance that the bound is ever too low, after whichever episode, is at most `level`.
    """
    from ..statistics import sequential

    each = level / (2 * len(tasks))
    bounds = [sequential.upper_rate(task.gains, each) - sequential.lower_rate(task.losses, each) for task in tasks]
    expected = [task.expected for task in tasks]
    return float(sum(map(operator.mul, expected, bounds))) / sum(expected)


def _task_pairs(pairs: list[tuple[bool | None, bool | None]]) -> TaskPairs:
    first = [*takewhile(lambda pair: pair[0] is not None, pairs)]
    return TaskPairs(
        tuple(bool(policy and not partner) for policy, partner in first),
        tuple(bool(partner and not policy) for policy, partner in first),
        sum(bool(policy) for policy, _ in first),
        len(pairs),
    )


def _partners(campaign: Campaign) -> Partners:
    """Returns the baseline's outcomes; none where it is no exported baseline, or cannot be read."""
    settings = campaign.verdict
    path = campaign.layout.root / settings.baseline if settings and settings.baseline else None
    if path is None or not path.is_file():
        return {}
    try:
        return _read(path)
    except TrackaError:
        return {}


@fact_cache.remembered
def _read(path: Path) -> Partners:
    baseline = schema.read("baseline", path)
    if files.own_sha256(baseline) != baseline["sha256"]:
        return {}
    return {
        (each["suite"], claims.start(cast(Mapping[str, int], each)), each["length"]): each["success"]
        for each in baseline["episodes"]
        if each["seed"] is not None and each["reset_ordinal"] is not None and each["length"] is not None
    }
