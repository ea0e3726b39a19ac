"""Reads lerobot-eval's progress bars out of a log, and holds each rollout against the episodes that it played.

A bar tells after each step how many steps a rollout has taken and which share of its environments has succeeded.
Another bar tells after each rollout the share of a task's episodes so far. lerobot prints neither in a job of Slurm.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core import reading
from ..engines.lerobot_eval import Metrics

WHOLE_LOG = 4 * reading.MIB  # of a longer log only head and tail may be left
_BAR = re.compile(
    r"(?P<kind>Stepping through eval batches|Running rollout with at most (?P<most>\d+) steps):"
    r"[^\r\n]{0,80}?\| (?P<count>\d+)/(?P<all>\d+) \[[^\]\r\n]*?(?:running_success_rate=(?P<rate>[\d.]+)%)?\]"
)


@dataclass(frozen=True)
class Rollout:
    """The last of a rollout's bar: the steps shown, the most that it may take, and the share that succeeded, in %."""

    shown: int
    most: int
    rate: str | None


def read(log: Path) -> tuple[list[Rollout], list[str | None]]:
    """Returns the rollouts in a log, and the share of successes after the last rollout of each task, in %."""
    if not log.is_file() or log.stat().st_size > WHOLE_LOG:
        return [], []
    rollouts: list[Rollout] = []
    shares: list[str | None] = []
    for match in _BAR.finditer(reading.text_or_empty(log, reading.LOG)):
        count, rate = int(match["count"]), match["rate"]
        is_first = count == 0 and rate is None
        if match["most"] is None:
            shares = [*shares, rate] if is_first else [*shares[:-1], rate]
        else:
            rollout = Rollout(count, int(match["most"]), rate)
            rollouts = [*rollouts, rollout] if is_first else [*rollouts[:-1], rollout]
    return rollouts, shares


def faults(log: Path, metrics: Metrics, slots: int, limit: int) -> Iterator[str]:
    """Yields where the bars tell of other outcomes or other lengths than the metrics of episodes played `slots` a time.

    A log without bars, or one that does not have them all, yields nothing.
    """
    rollouts, shares = read(log)
    if len(shares) == len(metrics.tasks):
        for task, share in zip(metrics.tasks, shares, strict=True):
            if share is not None and (told := _percent(task.successes)) != share:
                yield f"it tells of {share}% successes in task {task.task_id}, but other files of {told}%"
    batches = [
        [(task.task_id, number) for number in range(first, min(first + slots, len(task.successes)))]
        for task in metrics.tasks
        for first in range(0, len(task.successes), slots)
    ]
    outcomes = {
        (task.task_id, number): success for task in metrics.tasks for number, success in enumerate(task.successes)
    }
    if len(rollouts) == len(batches):
        for rollout, batch in zip(rollouts, batches, strict=True):
            yield from _rollout_faults(rollout, batch, outcomes, metrics, slots, limit)


def _rollout_faults(
    rollout: Rollout,
    batch: Sequence[tuple[int, int]],
    outcomes: Mapping[tuple[int, int], bool],
    metrics: Metrics,
    slots: int,
    limit: int,
) -> Iterator[str]:
    wins, where = [outcomes[key] for key in batch], f"episode {batch[0][1]} of task {batch[0][0]}"
    if len(batch) < slots:
        return  # further episodes of the rollout are not reported
    if rollout.rate is not None and rollout.rate != (told := _percent(wins)):
        yield f"its rollout of {where} had {rollout.rate}% successes, but other files say {told}%"
    if rollout.most != limit:
        return
    steps = [metrics.lines.get(key, {}).get("steps") for key in batch]
    known = [length for length in steps if isinstance(length, int)]
    longest = limit if not all(wins) else max(known) if len(known) == len(batch) else None
    if longest is not None and rollout.shown not in (longest, longest - 1):  # the last step may not be drawn any more
        yield f"its rollout of {where} took {rollout.shown} steps, but by other files {longest}"


def _percent(successes: Sequence[bool]) -> str:
    """Returns a share as the bars print it."""
    return f"{100 * (sum(successes) / len(successes)):.1f}" if successes else "0.0"
