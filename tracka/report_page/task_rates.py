"""Sums the success rate of each task, with its interval, beside what it has to reach and what the baseline reached."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..campaign.campaign import Campaign
from ..core.comparisons import ComparedTask
from ..core.figures import percent
from ..core.verdicts import RateRecord
from ..reporting import collect, results_page
from .episodes import ShownEpisode
from .matrix_rows import ShownRow

Key = tuple[str, str, int]  # policy path, suite, LIBERO task


@dataclass(frozen=True)
class TaskRate:
    """The episodes of one policy in one task, over all compared rows that passed.

    `threshold` is the highest rate that one of these rows or the task itself has to reach, None without one.
    `baseline` is the rate of the campaign that the page compares with, None without one. `is_worst` marks the lowest
    rate of all tasks, where the tasks differ.
    """

    policy_path: str
    suite: str
    task: int
    words: str
    successes: int
    episodes: int
    threshold: float | None
    baseline: float | None
    is_worst: bool

    @property
    def rate(self) -> float:
        return self.successes / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson interval."""
        return collect.wilson(self.successes, self.episodes)

    @property
    def sentence(self) -> str:
        """What a screen reader says of the drawing."""
        low, high = self.interval
        parts = [f"{percent(self.rate)}, between {100 * low:.1f} and {100 * high:.1f}%"]
        parts += [] if self.threshold is None else [f"threshold {percent(self.threshold)}"]
        parts += [] if self.baseline is None else [f"baseline {percent(self.baseline)}"]
        return "; ".join(parts)


def read(
    campaign: Campaign,
    rows: Sequence[ShownRow],
    episodes: Sequence[ShownEpisode],
    claims: Sequence[RateRecord] = (),
    compared: Sequence[ComparedTask] = (),
) -> list[TaskRate]:
    """Returns the rate of each task by policy, suite and number, counted from the episodes that the page shows.

    `claims` are those of `[verdict]`, and `compared` has the baseline's rates.
    """
    counts, thresholds = _counts(campaign, rows, episodes), _thresholds(campaign, claims)
    baselines = {(task["suite"], task["task"]): task["baseline"]["rate"] for task in compared}
    rates = {key: successes / episodes for key, (successes, episodes) in counts.items()}
    worst = min(rates.values(), default=0.0)
    differ = len(set(rates.values())) > 1
    return [
        TaskRate(
            *key,
            results_page.task_in_words(key[1], key[2]),
            *counts[key],
            thresholds.get(key),
            baselines.get(key[1:]),
            differ and rates[key] == worst,
        )
        for key in sorted(counts)
    ]


def without_result(campaign: Campaign, rows: Sequence[ShownRow]) -> list[str]:
    """Returns a sentence for each task that no row has a result of, although one should: with the row and why."""
    counted = {key for row in rows if row.is_counted for key in _keys(campaign, row)}
    missing: dict[Key, list[str]] = defaultdict(list)
    for row in rows:
        for key in _keys(campaign, row) if campaign.is_compared(campaign.row(row.result.run_id)) else ():
            if key not in counted:
                missing[key].append(f"{row.result.run_id}: {row.reason or row.result.status}")
    return [f"task {task} of {suite} ({', '.join(why)})" for (_, suite, task), why in sorted(missing.items())]


def _keys(campaign: Campaign, shown: ShownRow) -> list[Key]:
    row = campaign.row(shown.result.run_id)
    return [(row.policy_path, row.task_suite, task) for task in campaign.task_ids(row)]


def _counts(
    campaign: Campaign, rows: Sequence[ShownRow], shown: Sequence[ShownEpisode]
) -> Mapping[Key, tuple[int, int]]:
    """Returns successes and episodes of each task, over the rows that count."""
    counts: dict[Key, tuple[int, int]] = defaultdict(lambda: (0, 0))
    counted = {row.result.run_id: campaign.row(row.result.run_id) for row in rows if row.is_counted}
    for episode in shown:
        row = counted.get(episode.run_id)
        if row and episode.task in campaign.task_ids(row):
            key = (row.policy_path, row.task_suite, episode.task)
            successes, episodes = counts[key]
            counts[key] = (successes + episode.success, episodes + 1)
    return counts


def _thresholds(campaign: Campaign, claims: Sequence[RateRecord]) -> Mapping[Key, float]:
    thresholds: dict[Key, float] = {
        (claim["policy_path"], claim["suite"], claim["task"]): claim["threshold"]
        for claim in claims
        if claim["task"] is not None
    }
    for row in campaign.compared_rows:
        for task in campaign.task_ids(row) if campaign.threshold(row) > 0 else ():
            key = (row.policy_path, row.task_suite, task)
            thresholds[key] = max(thresholds.get(key, 0.0), campaign.threshold(row))
    return thresholds
