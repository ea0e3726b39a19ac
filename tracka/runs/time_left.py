"""Estimates how much longer a running row and a whole session take.

A row's own pace counts once the number of its episodes has grown twice, since before the first episode a row starts
processes and loads its policy. Until then past durations count. The estimates are for people, and decide nothing.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..campaign.campaign import Campaign
from ..campaign.matrix import CPU, Row
from . import forecast, row_durations


def expected_seconds(campaign: Campaign, rows: Sequence[Row], resume: bool) -> dict[str, float]:
    """Returns how many seconds each row is expected to take, by its run id, as far as anything is known.

    Past durations come first. Where there are none, a row of a campaign for GPUs gets what `forecast` says.
    """
    forecasts = {row.run_id: forecast.row_seconds(campaign, row) for row in rows} if campaign.expected_gpus else {}
    return forecasts | row_durations.expected_seconds(campaign, rows, resume)


@dataclass
class RowPace:
    """How fast a row plays, by the first and the last time at which the number of its episodes grew."""

    first: tuple[float, int] = (0.0, 0)  # seconds since the row began, and episodes
    last: tuple[float, int] = (0.0, 0)

    def seconds_left(self, seconds: float, played: int, episodes: int, expected_secs: float | None) -> float | None:
        """Returns how much longer a row takes that began `seconds` ago and has played so many of its episodes.

        Returns None where nothing is known, and where the row takes longer than was expected.
        """
        if played > self.last[1]:
            self.last = (seconds, played)
            self.first = self.first if self.first[1] else self.last
        if played > self.first[1] > 0:
            pace = (self.last[0] - self.first[0]) / (self.last[1] - self.first[1])
            return _unless_exceeded((episodes - played) * pace - (seconds - self.last[0]), played == episodes)
        if expected_secs is not None:
            return _unless_exceeded(expected_secs - seconds, played == episodes)
        return (episodes - played) * self.last[0] / played if played else None


def _unless_exceeded(seconds_left: float, is_played: bool) -> float | None:
    """Returns the estimate; None where its time is up although the row still plays."""
    return seconds_left if seconds_left > 0 else 0.0 if is_played else None


def of_session(running: Iterable[tuple[int, float]], waiting: Mapping[Row, float], workers: int, gpus: int) -> float:
    """Returns the seconds until the last row ends.

    `running` has the gpu_id of each running row and the seconds that it takes yet, `waiting` the seconds of each row
    that has not begun. The longest waiting row goes first, as `row_scheduler` deals them; the rows pinned to one GPU
    run one after the other.
    """
    seconds_of_gpu: dict[int, float] = {}
    for gpu_id, seconds in [*running, *((row.gpu_id, seconds) for row, seconds in waiting.items())]:
        seconds_of_gpu[gpu_id] = seconds_of_gpu.get(gpu_id, 0.0) + seconds
    need_gpus = bool(gpus) and all(row.gpu_id != CPU for row in waiting)
    slots = max(1, min(workers, gpus) if need_gpus else workers)
    busy = sorted([*(seconds for _, seconds in running), *[0.0] * slots])[-slots:]
    heapq.heapify(busy)
    for seconds in sorted(waiting.values(), reverse=True):
        heapq.heapreplace(busy, busy[0] + seconds)
    pinned = [seconds for gpu_id, seconds in seconds_of_gpu.items() if gpu_id >= 0]
    return max(*busy, *pinned, 0.0)
