"""Compares two plays of the same episodes, quantity by quantity.

Guarantees: quantities are compared in the order of cause and effect, so the first quantity that differs is the one to
look at; a quantity that was not recorded does not count as equal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import files
from ..core.errors import Finding, UsageError, joined_names
from ..core.files import Json
from . import recorded_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

ABSENT = "not recorded"
BEYOND = 1e9  # stands for the difference of actions that are NaN or infinite


@dataclass(frozen=True)
class RecordedEpisode:
    """Holds one episode as an engine recorded it.

    `line` is the episode's line of episodes.jsonl, and `actions_file` is the file of its actions, of shape (steps, 7).
    """

    line: Json
    actions_file: Path

    @property
    def name(self) -> str:
        return f"{self.line['suite']} task {self.line['task']}, episode {self.line['episode']}"

    @cached_property
    def actions(self) -> "NDArray[Any]":
        """Returns the actions as float32, of shape (steps, 7).

        Raises UsageError where the actions cannot be read, or are not those of the line.
        """
        return recorded_arrays.read(self.actions_file, self.line["actions_sha"])


PlayedEpisodes = Mapping[tuple[int, int], RecordedEpisode]  # (LIBERO task, episode) -> the episode as it was played
NEEDED = (
    "suite",
    "task",
    "episode",
    "success",
    "steps",
    "sum_reward",
    "actions_sha",
    "first_state_sha",
    "final_state_sha",
)


def read(folder: Path) -> PlayedEpisodes:
    """Returns the episodes that an engine recorded in its output folder. Raises UsageError for an unreadable record."""
    path = folder / "episodes.jsonl"
    played: dict[tuple[int, int], RecordedEpisode] = {}
    for line in files.read_lines(path):
        if missing := [key for key in NEEDED if key not in line]:
            what = f"this is not a record of episodes: {joined_names(missing)} is missing"
            raise UsageError(Finding(str(path), what, "See the logs beside it"))
        name = (line["suite"], line["task"], line["episode"])
        actions = recorded_arrays.path(folder, recorded_arrays.ACTIONS, *name)
        played[line["task"], line["episode"]] = RecordedEpisode(line, actions)
    if not played:
        raise UsageError(Finding(str(path), "the record of episodes is empty", "See the logs beside it"))
    return played


@dataclass(frozen=True)
class Difference:
    """Describes the first quantity in which two plays of an episode differ.

    `size` is the largest difference of a number in the actions that both plays have.
    """

    episode: str
    quantity: str
    step: int | None = None  # control step, from 0
    size: float | None = None
    detail: str = ""  # both values, where the values are informative

    def __str__(self) -> str:
        at = "" if self.step is None else f" at step {self.step}"
        size = "" if self.size is None else f", by {self.size:.2g}"
        return f"{self.episode}: the {self.quantity} differs{at}{size}{f' ({self.detail})' if self.detail else ''}"


def first_difference(first: RecordedEpisode, second: RecordedEpisode) -> Difference | None:
    """Returns the first difference of two plays; None where all that was recorded is the same to the bit."""
    return next((difference for look in QUANTITIES if (difference := look(first, second))), None)


def _first_state(first: RecordedEpisode, second: RecordedEpisode) -> Difference | None:
    same = first.line["first_state_sha"] == second.line["first_state_sha"]
    return None if same else Difference(first.name, "init state")


def _first_step_difference(first: RecordedEpisode, second: RecordedEpisode) -> Difference | None:
    """Returns the first difference in observations and actions: a step's observation comes before its action."""
    observation_change, action_change = _first_observation_change(first, second), _action_change(first, second)
    if observation_change is not None and (action_change is None or observation_change[0] <= action_change[0]):
        return Difference(first.name, "observation", observation_change[0], detail=observation_change[1])
    return None if action_change is None else Difference(first.name, "action", *action_change)


def _first_observation_change(first: RecordedEpisode, second: RecordedEpisode) -> tuple[int, str] | None:
    """Returns the first step that both plays observed, and observed differently, with a note; None without one.

    Both plays must have recorded the observation before the first action; otherwise step 0 is returned as not recorded.
    """
    first_shas, second_shas = (episode.line.get("observations", {}) for episode in (first, second))
    if not {"0"} <= first_shas.keys() & second_shas.keys():
        return 0, ABSENT
    both = sorted(map(int, first_shas.keys() & second_shas.keys()))
    return next(((step, "") for step in both if first_shas[str(step)] != second_shas[str(step)]), None)


def _action_change(first: RecordedEpisode, second: RecordedEpisode) -> tuple[int, float] | None:
    """Returns the first step with different actions, and the largest difference of a number over all common steps."""
    if first.line["actions_sha"] == second.line["actions_sha"]:
        return None
    common = min(len(first.actions), len(second.actions))
    sizes = abs(first.actions[:common] - second.actions[:common]).max(axis=1)
    differing = [int(step) for step in sizes.nonzero()[0]]
    return (differing[0], float(sizes.max())) if differing else None


def _line_comparer(key: str, quantity: str) -> "Comparer":
    def comparer(first: RecordedEpisode, second: RecordedEpisode) -> Difference | None:
        values = [episode.line[key] for episode in (first, second)]
        detail = "" if key.endswith("_sha") else f"{values[0]} and {values[1]}"
        return None if values[0] == values[1] else Difference(first.name, quantity, detail=detail)

    return comparer


Comparer = Callable[[RecordedEpisode, RecordedEpisode], Difference | None]
QUANTITIES: Sequence[Comparer] = (
    _first_state,
    _first_step_difference,
    _line_comparer("steps", "number of steps"),
    _line_comparer("success", "success"),
    _line_comparer("sum_reward", "reward"),
    _line_comparer("final_state_sha", "final state"),
)


def begins_alike(first: RecordedEpisode, second: RecordedEpisode) -> bool:
    """Returns whether init state and first observation are the same to the bit."""
    first_sha, second_sha = (episode.line.get("observations", {}).get("0") for episode in (first, second))
    return _first_state(first, second) is None and first_sha is not None and first_sha == second_sha


def first_chunk(first: RecordedEpisode, second: RecordedEpisode, chunk: int) -> float:
    """Returns the largest difference of a number in the actions of the first `chunk` steps, at most BEYOND."""
    steps = min(chunk, len(first.actions), len(second.actions))
    largest = float(abs(first.actions[:steps] - second.actions[:steps]).max())
    return largest if largest < BEYOND else BEYOND  # NaN is not below it


@dataclass(frozen=True)
class Comparison:
    """Counts how far two plays of the same episodes agree.

    `first_differences` holds the first difference of each episode that has one.
    """

    episodes: int
    same: int  # episodes that are the same to the bit in every quantity
    same_begin: int  # episodes with the same init state and first observation
    same_outcome: int
    successes: tuple[int, int]
    first_chunk: float  # the largest difference in the first chunks of the episodes that begin alike
    first_differences: tuple[Difference, ...]

    @property
    def exact(self) -> bool:
        """Returns whether there are episodes, and all of them are the same to the bit."""
        return self.same == self.episodes > 0


def compare(first: PlayedEpisodes, second: PlayedEpisodes, chunk: int = 1) -> Comparison:
    """Compares two plays and returns the counts. Raises UsageError where the plays are not of the same episodes."""
    if first.keys() != second.keys():
        unpaired = sorted(first.keys() ^ second.keys())
        raise UsageError(
            Finding("parity", f"only one engine played {joined_names([str(each) for each in unpaired])}", "Run again")
        )
    pairs = [(first[name], second[name]) for name in sorted(first)]
    differing = tuple(difference for pair in pairs if (difference := first_difference(*pair)))
    alike = [pair for pair in pairs if begins_alike(*pair)]
    return Comparison(
        len(pairs),
        len(pairs) - len(differing),
        len(alike),
        sum(one.line["success"] == other.line["success"] for one, other in pairs),
        (sum(one.line["success"] for one, _ in pairs), sum(other.line["success"] for _, other in pairs)),
        max((first_chunk(*pair, chunk) for pair in alike), default=0.0) if differing else 0.0,
        differing,
    )
