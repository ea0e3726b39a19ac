"""Divides a campaign's rows into shards, one for each host that sweeps a part of the matrix.

Guarantees: the shards follow from the matrix and the settings alone, so every host with the same files divides the rows
in the same way, and each row is in exactly one shard. How long rows took before changes nothing: a host that begins
later would know other durations, and divide differently.
"""

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import Finding, UsageError, shortened
from .campaign import Campaign
from .matrix import Row

MOST = 100_000  # shards


@dataclass(frozen=True)
class Shard:
    """One of `count` shards; the first has the number 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse(flag: str, text: str) -> Shard:
    """Returns the shard that `text`, the value of `flag`, names as I/N. Raises UsageError where it names none."""
    match = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", text)
    shard = Shard(int(match[1]), int(match[2])) if match else None
    if shard is None or not 1 <= shard.number <= shard.count <= MOST:
        remedy = f"Write I/N, such as 1/4 for the first of four; N is at most {MOST}"
        raise UsageError(Finding(flag, f"{shortened(text)!r} names no shard", remedy))
    return shard


def rows_of(campaign: Campaign, rows: Sequence[Row], shard: Shard) -> tuple[Row, ...]:
    """Returns those of `rows` that belong to `shard`, in their order.

    The longest row comes first, each row goes to the shard that has the least to play so far, and of equal rows or
    shards the earlier one is taken.
    """
    lengths = [_length(campaign, row) for row in rows]
    shards = [(0, number) for number in range(1, shard.count + 1)]  # what a shard has to play, and its number: a heap
    places = []
    for place in sorted(range(len(rows)), key=lambda place: -lengths[place]):
        load, number = shards[0]
        heapq.heapreplace(shards, (load + lengths[place], number))
        if number == shard.number:
            places.append(place)
    return tuple(rows[place] for place in sorted(places))


def _length(campaign: Campaign, row: Row) -> int:
    """Returns the most control steps that a row plays: its episodes of all tasks, each to its step limit."""
    return row.n_episodes * len(campaign.task_ids(row)) * campaign.steps(row)
