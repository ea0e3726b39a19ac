"""Episodes that ask the policy together, and which of them one call answers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .episode import Episode, ObservationRequest, Task
from .player import Shapes


@dataclass
class EpisodeGroup:
    """Episodes that ask the policy together: a single one when mixing, else a batch of lerobot-eval in lockstep."""

    episodes: Sequence[Episode]
    policy: Any = None
    slots: dict[int, int] = field(default_factory=dict)  # slot that plays -> index of its episode in `episodes`
    # index -> the episode's last observation request
    requests: dict[int, ObservationRequest] = field(default_factory=dict)
    # index -> control step -> hash of the observation
    observation_hashes: dict[int, dict[int, str]] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)  # indices of the episodes that wait for actions
    waiting_since: int = 0  # the count of policy calls when the last of these episodes began to wait
    modes: set[str] = field(default_factory=set)  # of the engine, exact and fast, that have answered these episodes
    call_shapes: Shapes | None = None  # groups with the same value may share a call; from the last observation request
    chunk: int = 0  # chunks of actions that these episodes have had

    @property
    def task(self) -> Task:
        """Returns the task, which all episodes of a group have in common."""
        return self.episodes[0].task

    @property
    def place(self) -> int:
        """Returns the place of the group's first episode in a call of the policy."""
        return self.episodes[0].position

    @property
    def ready(self) -> bool:
        """Returns whether all episodes of the group that are still playing wait for actions."""
        return bool(self.waiting) and len(self.waiting) == len(self.slots)


def groups(episodes: Sequence[Episode], mixing: bool) -> list[EpisodeGroup]:
    """Returns the groups of these episodes: each by itself when mixing, else batches of lerobot-eval."""
    if mixing:
        return [EpisodeGroup([episode]) for episode in episodes]
    batches: dict[tuple[int, int], list[Episode]] = {}
    for episode in episodes:
        batches.setdefault(episode.batch, []).append(episode)
    return [EpisodeGroup(batch) for batch in batches.values()]


def one_per_place(ready: Sequence[EpisodeGroup]) -> list[EpisodeGroup]:
    """Returns one of these groups for each place in a call, the one that has waited longest."""
    places: dict[int, EpisodeGroup] = {}
    for group in sorted(ready, key=lambda group: group.waiting_since):
        places.setdefault(group.place, group)
    return list(places.values())


def of_several_tasks(ready: Sequence[EpisodeGroup], is_free: bool) -> list[EpisodeGroup]:
    """Returns groups for one call, the first ones of different tasks where that is possible.

    Each has a place of its own, unless any place is as good (`is_free`). Places that fewer tasks can have are taken
    first, so that their tasks are left out at the others.
    """
    if is_free:
        return _tasks_in_turn(ready)
    candidates: dict[int, list[EpisodeGroup]] = {}
    for group in ready:
        candidates.setdefault(group.place, []).append(group)
    taken: Counter[Task] = Counter()
    chosen = []
    for of_place in sorted(candidates.values(), key=lambda groups: len({group.task for group in groups})):
        group = min(of_place, key=lambda group: (taken[group.task], group.waiting_since))
        taken[group.task] += 1
        chosen.append(group)
    return chosen


def _tasks_in_turn(ready: Sequence[EpisodeGroup]) -> list[EpisodeGroup]:
    """Returns the groups in rounds of one for each task, those that have waited longest first."""
    counts: Counter[Task] = Counter()
    rounds: list[tuple[int, EpisodeGroup]] = []
    for group in sorted(ready, key=lambda group: group.waiting_since):
        rounds.append((counts[group.task], group))
        counts[group.task] += 1
    return [group for _, group in sorted(rounds, key=lambda each: each[0])]
