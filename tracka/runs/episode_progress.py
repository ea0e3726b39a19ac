"""Reads how far a running or ended attempt is: the episodes of each task that have ended, and their successes.

The resident engine writes a line to `eval/episodes.jsonl` as each episode ends. lerobot-eval prints a progress bar,
"Stepping through eval batches", which moves when a whole batch has ended and shows the success rate of the task so far
(lerobot/scripts/lerobot_eval.py, `eval_policy`; its tasks follow each other by number, lerobot/envs/libero.py).

Guarantees: only regular files are read, and each call of a reader reads no more than what the files gained since the
call before, at most MOST_BYTES of each. Numbers that contradict each other or the row are left out, with all that
follows: what is returned has been played.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from pathlib import Path
from typing import ClassVar

from ..campaign.campaign import RESIDENT_NAMES
from ..campaign.layout import Layout, RunFolder
from ..core import files, parsing
from ..core.files import Json

MOST_BYTES = 64 << 20  # of a file, in one call
CHUNK_BYTES = 1 << 20
MOST_LINE_BYTES = 1 << 16  # of a line that has no end yet
EXACT_EPISODES = 1000  # the bar shows tenths of a per cent, which name the successes of fewer episodes than that
PARALLEL_TASKS = "--env.max_parallel_tasks="
_BATCHES = re.compile(
    r"Stepping through eval batches: +\d+%\|[^|\[\]]*\| (\d+)/(\d+) \[[^\[\]]*?(?:running_success_rate=([\d.]+)%)?\]"
)
_STEPS = re.compile(r"Running rollout with at most \d+ steps: +\d+%\|[^|\[\]]*\| (\d+)/(\d+) \[")


@dataclass(frozen=True)
class TaskProgress:
    """The episodes of one LIBERO task that have ended so far.

    `looks` counts the episodes 0, 1, 2 and so on up to the first one that has not ended: how many were played, and how
    many succeeded, after each episode of the resident engine and each batch of lerobot-eval. Episodes that succeed end
    sooner, so among all that have ended successes are too frequent; among the first ones they are not.
    """

    suite: str
    task_id: int
    played: int = 0
    successes: int = 0
    looks: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Progress:
    """The episodes of an attempt that have ended so far. `expected` is how many the row asks for, in all its tasks.

    `steps` has the step of the batch that lerobot-eval plays, and the most steps that it may take; None where neither
    is known.
    """

    run_id: str
    attempt: int
    expected: int
    tasks: tuple[TaskProgress, ...]
    steps: tuple[int, int] | None = None

    @property
    def played(self) -> int:
        """Returns the number of episodes that have ended."""
        return sum(task.played for task in self.tasks)

    @property
    def successes(self) -> int:
        """Returns how many of the episodes that have ended succeeded."""
        return sum(task.successes for task in self.tasks)


def read(layout: Layout, run_id: str) -> Progress | None:
    """Returns the progress of the row's last attempt; None where no attempt has been started."""
    return Reader(layout, run_id).read()


class Reader:
    """Reads the progress of a row's last attempt again and again, each time only what is new."""

    def __init__(self, layout: Layout, run_id: str) -> None:
        self.layout, self.run_id = layout, run_id
        self._attempt: _Attempt | None = None

    def read(self) -> Progress | None:
        """Returns the progress as of now; None where no attempt has been started."""
        numbers = self.layout.run(self.run_id).numbers()
        if not numbers:
            return None
        if self._attempt is None or self._attempt.number != numbers[-1]:
            self._attempt = _begin(self.layout.run(self.run_id).attempt(numbers[-1]), numbers[-1])
        return self._attempt.progress(self.run_id) if self._attempt else None


def _begin(folder: RunFolder, number: int) -> "_Attempt | None":
    """Returns an attempt to be read; None where its manifest cannot be read, or it could not start."""
    manifest = files.read_or_empty(folder.manifest)
    if not manifest.get("command"):
        return None
    try:
        row = _Row(
            manifest["task_suite"], tuple(manifest["task_ids"]), manifest["n_episodes"], int(manifest["batch_size"])
        )
    except (KeyError, TypeError, ValueError):
        return None
    if manifest.get("engine") in RESIDENT_NAMES:
        return _Attempt(number, row, [_NewLines(folder.output / "episodes.jsonl")], _EpisodeLines(row))
    several = [word for word in manifest["command"] if word.startswith(PARALLEL_TASKS) and word != f"{PARALLEL_TASKS}1"]
    # xvfb-run, which makes a display for a row, sends what its program prints on stderr to stdout.
    logs = [] if several else [_NewLines(folder.stderr), _NewLines(folder.stdout)]
    return _Attempt(number, row, logs, _BatchLines(row))


@dataclass(frozen=True)
class _Row:
    suite: str
    task_ids: tuple[int, ...]
    n_episodes: int  # of each task
    batch_size: int


@dataclass
class _Attempt:
    number: int
    row: _Row
    sources: "list[_NewLines]"
    content: "_EpisodeLines | _BatchLines"

    def progress(self, run_id: str) -> Progress:
        for source in self.sources:
            for line in source.read():
                self.content.add(line)
        tasks = tuple(self.content.task(task_id) for task_id in self.row.task_ids)
        return Progress(run_id, self.number, self.row.n_episodes * len(tasks), tasks, self.content.steps)


@dataclass
class _NewLines:
    """The lines that a growing file has gained; a progress bar ends its lines by a carriage return."""

    path: Path
    offset: int = 0
    rest: bytes = b""

    def read(self) -> Iterator[str]:
        """Yields the whole lines since the last call; none where `path` is no regular file."""
        limit = self.offset + MOST_BYTES
        while self.offset < limit and (chunk := self._chunk()):
            self.offset += len(chunk)
            *lines, rest = re.split(rb"[\r\n]", self.rest + chunk)
            self.rest = rest[-MOST_LINE_BYTES:]
            yield from (line.decode(errors="replace") for line in lines)

    def _chunk(self) -> bytes:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            return os.pread(descriptor, CHUNK_BYTES, self.offset) if is_regular else b""
        finally:
            os.close(descriptor)


@dataclass
class _EpisodeLines:
    """The lines of the resident engine, one for each episode, in the order in which the episodes ended."""

    row: _Row
    steps: ClassVar[None] = None
    outcomes: dict[tuple[int, int], bool] = field(default_factory=dict)  # (task, episode) -> success

    def add(self, line: str) -> None:
        """Takes a line; one that is no episode of the row is left out."""
        try:
            content = parsing.json_value(line)
        except ValueError:
            return
        if isinstance(content, dict) and self._is_of_row(content):
            self.outcomes.setdefault((content["task"], content["episode"]), content["success"])

    def _is_of_row(self, line: Json) -> bool:
        task, episode = line.get("task"), line.get("episode")
        if not isinstance(episode, int) or not isinstance(line.get("success"), bool):
            return False
        return task in self.row.task_ids and 0 <= episode < self.row.n_episodes

    def task(self, task_id: int) -> TaskProgress:
        """Returns the progress of a task."""
        outcomes = {episode: success for (task, episode), success in self.outcomes.items() if task == task_id}
        first = takewhile(lambda success: success is not None, map(outcomes.get, range(self.row.n_episodes)))
        looks = tuple(enumerate(accumulate(int(success or 0) for success in first), start=1))
        return TaskProgress(self.row.suite, task_id, len(outcomes), sum(outcomes.values()), looks)


@dataclass
class _BatchLines:
    """The progress bars of lerobot-eval, one for each task, which show batches and the success rate of the task."""

    row: _Row
    # of each task begun, in order: its episodes and successes after each batch
    looks: list[list[tuple[int, int]]] = field(default_factory=list)
    batches: int = 0  # of the last task begun
    contradicts: bool = False
    steps: tuple[int, int] | None = None  # of the batch that plays: the last step, and the most steps

    def add(self, line: str) -> None:
        """Takes a line of the log; only progress bars count."""
        for match in _STEPS.finditer(line):
            self.steps = int(match[1]), int(match[2])
        for match in _BATCHES.finditer(line):
            self.steps = None
            if not self.contradicts:
                self._bar(int(match[1]), int(match[2]), match[3])

    def _bar(self, batches: int, all_batches: int, rate: str | None) -> None:
        slots = min(self.row.batch_size, self.row.n_episodes)
        if all_batches != -(-self.row.n_episodes // max(1, slots)) or batches > all_batches:
            self.contradicts = True
        elif batches == 0 and rate is None:
            self._begin_task()
        elif batches > self.batches and rate is not None:
            # The first bar of a count is exact: later ones may show the rate of a batch that is not counted yet.
            self._count(batches, min(batches * slots, self.row.n_episodes), float(rate))

    def _begin_task(self) -> None:
        played, _ = self._last
        if self.looks and played == 0:
            return  # the bar of this task, drawn again
        is_due = not self.looks or played == self.row.n_episodes
        self.contradicts = not is_due or len(self.looks) == len(self.row.task_ids)
        if not self.contradicts:
            self.looks.append([])
            self.batches = 0

    @property
    def _last(self) -> tuple[int, int]:
        return self.looks[-1][-1] if self.looks and self.looks[-1] else (0, 0)

    def _count(self, batches: int, episodes: int, percent: float) -> None:
        played, won = self._last
        successes = round(percent * episodes / 100)
        is_exact = episodes < EXACT_EPISODES and abs(100 * successes / episodes - percent) < 0.051
        self.contradicts = not (self.looks and is_exact and 0 <= successes - won <= episodes - played)
        if not self.contradicts:
            self.looks[-1].append((episodes, successes))
            self.batches = batches

    def task(self, task_id: int) -> TaskProgress:
        """Returns the progress of a task. Batches are played in order, so all episodes that ended are the first."""
        index = self.row.task_ids.index(task_id)
        looks = tuple(self.looks[index]) if index < len(self.looks) else ()
        return TaskProgress(self.row.suite, task_id, *(looks[-1] if looks else (0, 0)), looks)
