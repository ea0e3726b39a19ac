"""Makes the figures of the rows that benchmarks.suites plays: of each row, of all together, and an extrapolation."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracka.core.lerobot_facts import EPISODE_STEPS

STAGES = ("import", "policy_load", "load", "rollout", "film")
Ended = tuple[float, int]  # when an episode ended, in seconds from the first row's start, and its control steps


@dataclass(frozen=True)
class Row:
    """Some tasks of one suite, and how many episodes of each to play."""

    suite: str
    tasks: tuple[int, ...]
    episodes: int  # of each task

    @property
    def steps(self) -> int:
        """Returns the control steps of the row if no episode succeeds."""
        return EPISODE_STEPS[self.suite] * self.count

    @property
    def count(self) -> int:
        """Returns how many episodes the row has."""
        return len(self.tasks) * self.episodes


@dataclass(frozen=True)
class Played:
    """What one row took, in seconds from the first row's start.

    The rate under way leaves out the first round of slots; it is 0 where too few episodes have ended. A row that was
    cut off has no stages, and neither calls nor seconds of the policy and the workers.
    """

    gpu: int
    suite: str
    tasks: tuple[int, ...]
    expected: int
    cut: bool
    began: float
    seconds: float
    ended: Sequence[Ended]
    stages: Mapping[str, float]
    main: Mapping[str, float]
    workers: Mapping[str, float]
    policy_calls: int
    an_hour_under_way: float


def played(gpu: int, row: Row, output: Path, slots: int, start: float, began: float, seconds: float) -> Played:
    """Returns the figures of a row of which `output` has what was played, whole or cut off.

    `start` and `began` are the times of day of the first row's start and of this row's.
    """
    timings = _timings(output)
    ended = sorted(_ended(output, start))
    return Played(
        gpu=gpu,
        suite=row.suite,
        tasks=row.tasks,
        expected=row.count,
        cut=not timings,
        began=began - start,
        seconds=seconds,
        ended=ended,
        stages={name: timings["stages"].get(name, 0) for name in STAGES} if timings else {},
        main=timings.get("main", {}),
        workers=timings.get("workers", {}),
        policy_calls=timings.get("policy_calls", 0),
        an_hour_under_way=_an_hour(ended, slots),
    )


def _timings(output: Path) -> dict[str, Any]:
    path = output / "timings.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _ended(output: Path, start: float) -> Iterator[Ended]:
    """Yields the episodes that have ended; the file's own time says when the last of them did."""
    path = output / "episodes.jsonl"
    text = path.read_text() if path.is_file() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    if lines:
        zero = path.stat().st_mtime - max(line["at_secs"] for line in lines) - start
        yield from ((zero + line["at_secs"], line["steps"]) for line in lines)


def _an_hour(ended: Sequence[Ended], slots: int) -> float:
    first_round = max(1, min(slots, len(ended) // 2))
    if len(ended) <= first_round:
        return 0.0
    return 3600 * (len(ended) - first_round) / max(1e-9, ended[-1][0] - ended[first_round - 1][0])


def line(row: Played) -> str:
    """Returns the line that is printed for one row."""
    first = f"first episode at {row.ended[0][0]:.1f} s" if row.ended else "no episode has ended"
    parts = [_seconds(row.stages), first]
    if row.main:
        parts.append(f"main process: {row.policy_calls} calls of the policy, {_seconds(row.main)}")
        parts.append(f"all workers: {_seconds(row.workers)}")
    episodes = f"{len(row.ended)} of {row.expected} episodes" if row.cut else f"{len(row.ended)} episodes"
    took = f"cut off after {row.seconds:.1f} s" if row.cut else f"took {row.seconds:.1f} s"
    return (
        f"GPU {row.gpu} {row.suite} tasks {row.tasks[0]} to {row.tasks[-1]}, {episodes}: began at {row.began:.1f} s, "
        f"{took} ({'; '.join(filter(None, parts))}), {row.an_hour_under_way:.0f} an hour under way"
    )


def _seconds(stages: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.items())


def whole(rows: Sequence[Row], all_played: Sequence[Played], gpus: int, slots: int, seconds: float) -> list[str]:
    """Returns the lines that are printed of all rows together, after `seconds`."""
    ended = sum(len(row.ended) for row in all_played)
    lines = [f"{gpus} GPU: {ended} episodes in {seconds:.1f} s, {3600 * ended / seconds:.0f} an hour"]
    if ended < (expected := sum(row.count for row in rows)):
        lines.append(f"EXTRAPOLATED, not measured: {_extrapolation(rows, all_played, gpus * slots, seconds, expected)}")
    return lines


def _extrapolation(
    rows: Sequence[Row], all_played: Sequence[Played], first_round: int, seconds: float, expected: int
) -> str:
    """Returns in words how long all rows would take, at the pace since the first round of slots has ended."""
    ended = sorted(each for row in all_played for each in row.ended)
    under_way = ended[first_round:]
    if len(under_way) < first_round:
        return f"fewer than two rounds of {first_round} slots have ended, which tells nothing of {expected} episodes"
    pace = sum(steps for _, steps in under_way) / (ended[-1][0] - ended[first_round - 1][0])
    left = sum(row.steps for row in rows) - sum(
        EPISODE_STEPS[row.suite] * len(row.ended) for row in all_played
    )  # an episode that has ended, by success or not, is not played again
    return (
        f"{expected} episodes take about {seconds + left / pace:.0f} s, if the {expected - len(ended)} that have not "
        f"ended play to their full length at {pace:.0f} control steps a second, the pace since the first round"
    )
