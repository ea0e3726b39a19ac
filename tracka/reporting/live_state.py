"""Says where a session stands now: which rows run and how far they are, what waits for what, and when it will end.

A `Watcher` looks at the disk again and again. It reads only what rows under way have added since the last look, and the
result of each row once.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..campaign.campaign import Campaign
from ..campaign.matrix import AUTO, CPU, Row
from ..core import escaping, files
from ..core.artifacts import RowMarker
from ..core.errors import UsageError
from ..execution import gpu, lease
from ..runs import episode_progress, row_durations, row_state, time_left
from ..runs.session_rows import SessionRows
from ..runs.time_left import RowPace

SWEEP_PHASES = ("phase4", "")  # in which any row may begin; a sweep has no phases
SLACK_SECS = 1.0  # markers have whole seconds


@dataclass(frozen=True)
class Busy:
    """A worker that is busy: with a row, or with another test of the gates.

    `device` and `worker` are empty where they are not known. `doing` says what is done instead of playing, and is empty
    while the row plays. Times are in seconds.
    """

    name: str
    seconds: float
    device: str = ""
    worker: str = ""
    doing: str = ""
    attempt: int = 1
    played: int = 0
    successes: int = 0
    episodes: int = 0
    seconds_left: float | None = None
    steps: tuple[int, int] | None = None  # of the batch that plays: the last step and the most steps, where known


@dataclass(frozen=True)
class Waiting:
    """Rows that wait, and what they wait for."""

    what: str
    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class LiveState:
    """A session at one moment. `idle` names GPUs or workers without a row. Times are in seconds."""

    campaign: str
    phase: str
    seconds: float
    seconds_left: float | None
    rows: int
    ended: int
    failed: int
    episodes: int
    played: int
    busy: tuple[Busy, ...]
    idle: tuple[str, ...]
    waiting: tuple[Waiting, ...]


class Watcher:
    """Looks at the rows of a session again and again.

    Attributes:
        campaign: the session's campaign
        session: what the session itself knows; another thread changes it
        gpus: how many GPUs the session's rows share
        expected: run id -> seconds that the row is expected to take
        played: run id -> episodes of each row whose result has been read
        readers: run id -> the reader of the row's progress
        paces: run id and attempt -> how fast that attempt plays
        workers: run id and attempt -> the worker that runs that attempt
    """

    def __init__(self, campaign: Campaign, session: SessionRows) -> None:
        self.campaign, self.session = campaign, session
        self.gpus = row_durations.gpus(campaign, campaign.enabled)
        self.expected: dict[str, float] = {}
        self.played: dict[str, int] = {}
        self.readers: dict[str, episode_progress.Reader] = {}
        self.paces: dict[tuple[str, int], RowPace] = {}
        self.workers: dict[tuple[str, int], str] = {}
        self._expected_for: object = None

    def look(self) -> LiveState:
        """Returns where the session stands now."""
        session, now = self.session, time.time()
        rows = {row.run_id: row for row in session.rows}
        begun = {run_id: at for run_id, at in dict(session.begun).items() if run_id in rows}
        self.played = {run_id: played for run_id, played in self.played.items() if run_id not in begun}
        ended, phase = dict(session.ended), session.phase
        self._expect(rows, begun, ended)
        passed_before = {run_id for run_id in rows.keys() - begun.keys() if self.expected.get(run_id) == 0}
        done = (rows.keys() & ended.keys() | passed_before) - begun.keys()
        busy_rows = [(rows[run_id], self._busy_row(rows[run_id], at, now)) for run_id, at in begun.items()]
        waiting = [row for run_id, row in rows.items() if run_id not in done | begun.keys()]
        busy = [*(busy for _, busy in busy_rows), *_steps(dict(session.steps), now)]
        return LiveState(
            campaign=self.campaign.name,
            phase=phase,
            seconds=now - session.started,
            seconds_left=self._seconds_left(busy_rows, waiting),
            rows=len(rows),
            ended=len(done),
            failed=sum(not passed for passed in ended.values()),
            episodes=sum(map(self._episodes, rows.values())),
            played=sum(map(self._played, done)) + sum(each.played for each in busy),
            busy=tuple(sorted(busy, key=lambda each: (each.device, each.worker, each.name))),
            idle=tuple(self._idle(busy, phase)),
            waiting=tuple(_waiting(waiting, () if self.campaign.is_on_slurm else busy, phase)),
        )

    def _expect(self, rows: Mapping[str, Row], begun: Mapping[str, float], ended: Mapping[str, bool]) -> None:
        """Estimates the rows anew when another row has ended; a row under way has no last result on disk any more."""
        if self._expected_for != (len(rows), len(ended)):
            self._expected_for = (len(rows), len(ended))
            expected = time_left.expected_seconds(self.campaign, tuple(rows.values()), self.session.resume)
            kept = {run_id: self.expected[run_id] for run_id in begun.keys() & self.expected.keys()}
            self.expected = expected | {run_id: seconds for run_id, seconds in kept.items() if seconds}

    def _busy_row(self, row: Row, begun: float, now: float) -> Busy:
        """Returns what the worker does that has begun with the row."""
        marker = row_state.read(self.campaign.layout, row.run_id)
        if marker and marker["status"] == "running" and _seconds(marker["started_at_utc"]) >= begun - SLACK_SECS:
            return self._playing(row, marker, now)
        if marker and (marker["status"] == "pass" or _seconds(marker["ended_at_utc"]) >= begun - SLACK_SECS):
            played = self._reported(row.run_id).get("episodes") or 0
            return Busy(row.run_id, now - begun, doing="is judged", played=played)
        holder = lease.holder(row.gpu_id) if row.gpu_id >= 0 and not self.campaign.is_on_slurm else ""
        is_own = holder == row_state.holder(self.campaign.layout, row.run_id)  # which has its GPU and is about to run
        doing = f"waits for {holder}" if holder and not is_own else "starts"
        device = gpu.device_name(row.gpu_id) if holder else ""
        return Busy(row.run_id, now - begun, device, "", doing, seconds_left=self.expected.get(row.run_id) or None)

    def _playing(self, row: Row, marker: RowMarker, now: float) -> Busy:
        """Returns how far the row's attempt is."""
        run_id = row.run_id
        seconds = max(0.0, now - _seconds(marker["started_at_utc"]))
        progress = self.readers.setdefault(run_id, episode_progress.Reader(self.campaign.layout, run_id)).read()
        attempt = marker["history"][-1]["attempt"]
        played, successes = (progress.played, progress.successes) if progress else (0, 0)
        episodes = progress.expected if progress else self._episodes(row)
        pace = self.paces.setdefault((run_id, attempt), RowPace())
        left = pace.seconds_left(seconds, played, episodes, self.expected.get(run_id) or None)
        device = gpu.device_name(CPU if marker["gpu_id"] is None else marker["gpu_id"])
        worker = self._worker(run_id, attempt)
        if self.campaign.is_on_slurm:
            device = "Slurm"
        doing = escaping.line(marker["notes"], 100)  # what a row waits for on a cluster
        steps = progress.steps if progress else None
        return Busy(run_id, seconds, device, worker, doing, attempt, played, successes, episodes, left, steps)

    def _worker(self, run_id: str, attempt: int) -> str:
        if (run_id, attempt) not in self.workers:
            manifest = files.read_or_empty(self.campaign.layout.run(run_id).manifest)
            if not manifest:  # a look may come between the marker and the manifest
                return ""
            self.workers[run_id, attempt] = str(manifest.get("worker", ""))
        return self.workers[run_id, attempt]

    def _episodes(self, row: Row) -> int:
        return row.n_episodes * len(self.campaign.task_ids(row))

    def _played(self, run_id: str) -> int:
        """Returns the episodes of a row that the session is done with, by its result."""
        if run_id not in self.played:
            result = self._reported(run_id)
            if not result:  # a look may come between the marker and the result
                return 0
            self.played[run_id] = result.get("episodes") or 0
        return self.played[run_id]

    def _reported(self, run_id: str) -> files.Json:
        return files.read_or_empty(self.campaign.layout.run(run_id).result)

    def _seconds_left(self, busy: Sequence[tuple[Row, Busy]], waiting: Sequence[Row]) -> float | None:
        """Returns the seconds until the last row ends; None where a row is left of which nothing is known."""
        lefts = [0.0 if each.doing == "is judged" else each.seconds_left for _, each in busy]
        if not (busy or waiting) or None in lefts or any(row.run_id not in self.expected for row in waiting):
            return None
        running = [
            (_gpu_id(each, row), left) for (row, each), left in zip(busy, lefts, strict=True) if left is not None
        ]
        expected = {row: self.expected[row.run_id] for row in waiting}
        return time_left.of_session(running, expected, len(self.session.workers), self.gpus)

    def _idle(self, busy: Sequence[Busy], phase: str) -> Iterator[str]:
        """Yields the GPUs, or in a campaign of the CPU the workers, that have no row while rows may begin."""
        if phase not in SWEEP_PHASES or any(each.doing == "starts" for each in busy):
            return
        names = [gpu.device_name(number) for number in range(self.gpus)]
        names = names or list(self.session.workers)
        taken = {each.device if self.gpus else each.worker for each in busy}
        others = 0 if self.gpus else sum(bool(each.doing) for each in busy)
        free = [name for name in names if name not in taken]
        yield from free[: len(free) - others]


def _gpu_id(busy: Busy, row: Row) -> int:
    number = busy.device.removeprefix("GPU ")
    return int(number) if number.isdigit() else row.gpu_id


def _seconds(time_utc: str | None) -> float:
    """Returns a time of a marker in seconds since the epoch, 0 for no time."""
    try:
        return files.timestamp(time_utc) if time_utc else 0.0
    except UsageError:
        return 0.0


def _steps(steps: Mapping[str, float], now: float) -> Iterator[Busy]:
    yield from (Busy(name, now - at, doing="runs") for name, at in steps.items())


def _waiting(rows: Sequence[Row], busy: Sequence[Busy], phase: str) -> Iterator[Waiting]:
    """Yields what rows wait for, in the order of the matrix."""
    holders = {each.device: each.name for each in busy if each.device and not each.doing}
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(_what(row, holders, phase), []).append(row.run_id)
    yield from (Waiting(what, tuple(run_ids)) for what, run_ids in groups.items())


def _what(row: Row, holders: Mapping[str, str], phase: str) -> str:
    """Returns what a row waits for that no worker has begun."""
    if phase not in SWEEP_PHASES:
        return f"the end of {phase}"
    if row.gpu_id in (CPU, AUTO):
        return "a free worker" if row.gpu_id == CPU else "a free GPU"
    device = gpu.device_name(row.gpu_id)
    return f"{device}, where {holders[device]} runs" if device in holders else f"a worker for {device}"
