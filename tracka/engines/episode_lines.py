"""The lines of episodes.jsonl that the resident engine writes: which are whole, and which a later attempt may keep.

Guarantees: a line is kept only where its actions have the hash that it says, it is of exactly the episode that its row
means, and all episodes that must be played together with it are kept too. An attempt's own lines say no attempt.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import files, parsing, reading
from ..core.errors import UsageError
from ..core.files import Json
from . import recorded_arrays

NAME = "episodes.jsonl"
ATTEMPT = "attempt"  # the key of a kept line: the number of the attempt that played the episode
PRECISION = "precision"  # the key that says by which mode of the engine the policy answered the episode
EXACT, FAST, BOTH = "exact", "fast", "fast and exact"
UNIT = "unit"  # the key that says what must be played as a whole, since its episodes depend on each other
EPISODE, BATCH, ROW = "episode", "batch", "row"
TRUTHS = ("success",)
NUMBERS = ("steps", "sum_reward", "max_reward")
HASHES = ("actions_sha", "first_state_sha", "final_state_sha")
Key = tuple[int, int]  # LIBERO task and episode


def answered(modes: Iterable[object]) -> str | None:
    """Returns the mode of several episodes or calls: EXACT, FAST or BOTH; None where no mode is known.

    Lines of lerobot-eval and of older versions say no mode.
    """
    found = {mode for mode in modes if isinstance(mode, str)}
    if BOTH in found or {EXACT, FAST} <= found:
        return BOTH
    return FAST if FAST in found else EXACT if EXACT in found else None


@dataclass(frozen=True)
class RowEpisodes:
    """The episodes that a row means: which tasks, how many episodes of each, from which seed, in which batches."""

    suite: str
    task_ids: Sequence[int]
    n_episodes: int
    batch_size: int
    seed: int

    def beginning(self, task_id: int, episode: int) -> Mapping[str, object]:
        """Returns what the line of an episode must say of how the episode began."""
        return {
            "suite": self.suite,
            "task": task_id,
            "episode": episode,
            "init_state": episode,
            "seed": self.seed + episode,
            "reset_ordinal": episode // self.batch_size,
        }

    def group(self, unit: str) -> dict[Key, frozenset[Key]]:
        """Returns for each episode all episodes that must be kept or played together with it."""
        keys = [(task_id, episode) for task_id in self.task_ids for episode in range(self.n_episodes)]
        batches: dict[tuple[int, ...], set[Key]] = {}
        for task_id, episode in keys:
            batches.setdefault(self._place(unit, task_id, episode), set()).add((task_id, episode))
        return {key: frozenset(batches[self._place(unit, *key)]) for key in keys}

    def _place(self, unit: str, task_id: int, episode: int) -> tuple[int, ...]:
        if unit == EPISODE:
            return task_id, episode
        return (task_id, episode // self.batch_size) if unit == BATCH else ()


def whole(path: Path) -> list[Json]:
    """Returns the lines of a file that are whole JSON objects; an empty list where the file cannot be read.

    A line that its writer could not end is left out.
    """
    try:
        *lines, _ = files.read_text(path, most=reading.RESULTS).split("\n")
    except UsageError:
        return []
    return [content for line in lines if (content := _object(line)) is not None]


def _object(line: str) -> Json | None:
    try:
        value = parsing.json_value(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def key(line: Mapping[str, Any]) -> Key | None:
    """Returns the task and the episode of a line; None where it says no numbers."""
    task_id, episode = line.get("task"), line.get("episode")
    return (task_id, episode) if type(task_id) is int and type(episode) is int else None


def keepable(
    output: Path, row: RowEpisodes, lines: Iterable[Json], is_as_left: Callable[[Json], bool] = lambda line: True
) -> dict[Key, Json]:
    """Returns the lines of one attempt's own episodes that a later attempt may keep, in whole units.

    An episode that has several lines, or a damaged one, is not kept, nor one of which `is_as_left` says that its files
    have changed. `output` is the folder of the lines.
    """
    lines = [line for line in lines if ATTEMPT not in line]
    counted = Counter(map(key, lines))
    sound = {
        name: line
        for line in lines
        if (name := key(line)) is not None and counted[name] == 1 and is_sound(output, row, line) and is_as_left(line)
    }
    groups = {unit: row.group(unit) for unit in {line[UNIT] for line in sound.values()}}
    kept = {name: line for name, line in sound.items() if groups[line[UNIT]][name] <= sound.keys()}
    return {name: kept[name] for name in sorted(kept)}


def is_sound(output: Path, row: RowEpisodes, line: Mapping[str, Any]) -> bool:
    """Returns whether a line is of an episode of the row, has all that a result needs, and its actions are there."""
    name = key(line)
    if name is None or name[0] not in row.task_ids or not 0 <= name[1] < row.n_episodes:
        return False
    if any(line.get(each) != value for each, value in row.beginning(*name).items()):
        return False
    return _has_outcome(line) and _has_actions(output, line)


def _has_outcome(line: Mapping[str, Any]) -> bool:
    numbers = [line.get(each) for each in NUMBERS]
    return (
        all(type(line.get(each)) is bool for each in TRUTHS)
        and all(type(number) in (int, float) and math.isfinite(float(number or 0)) for number in numbers)
        and all(isinstance(line.get(each), str) for each in HASHES)
        and line.get(UNIT) in (EPISODE, BATCH, ROW)
    )


def _has_actions(output: Path, line: Mapping[str, Any]) -> bool:
    try:
        steps: int = line["steps"]
        return len(recorded_arrays.read(actions(output, line), line["actions_sha"])) == steps
    except UsageError:
        return False


def actions(output: Path, line: Mapping[str, Any]) -> Path:
    """Returns the file of an episode's actions."""
    return recorded_arrays.path(output, recorded_arrays.ACTIONS, line["suite"], line["task"], line["episode"])
