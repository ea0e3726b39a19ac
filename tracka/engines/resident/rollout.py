"""All episodes of a row over the slots: who plays what, when the policy is asked, and for whom.

Guarantees: each episode is played exactly once; a slot that ends one gets the next at once; when an episode is played,
and beside which, changes none of its numbers.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .crew import Crew
from .episode import Array, Episode, Look, Outcome, Task, observation_sha
from .player import Player, Shapes
from .record import Looks
from .slot import Act, Begin, Ended, Film, Filmed, Seen

FULL = 0.75  # of a batch is worth a call: who waits for the last places waits long
Take = tuple[Episode, Outcome, Path]  # what to play again, and where the video goes
Recorded = Callable[[Episode, Outcome, Looks], None]


@dataclass
class Party:
    """Episodes that ask the policy together: one alone, or a batch of lerobot-eval in lockstep."""

    episodes: Sequence[Episode]
    policy: Any = None
    slots: dict[int, int] = field(default_factory=dict)  # slot -> index of its episode
    looks: dict[int, Look] = field(default_factory=dict)  # index -> what was seen last
    seen: dict[int, dict[int, str]] = field(default_factory=dict)  # index -> control step -> hash of what was seen
    waiting: set[int] = field(default_factory=set)  # indices that wait for actions
    since: int = 0  # the policy calls when the last of them began to wait
    company: Shapes | None = None  # with whom it may share a call, by the last look
    chunk: int = 0

    @property
    def task(self) -> Task:
        return self.episodes[0].task

    @property
    def place(self) -> int:
        """The place of its first episode in a call of the policy."""
        return self.episodes[0].position

    @property
    def ready(self) -> bool:
        """Whether all that are still playing wait for actions."""
        return bool(self.waiting) and len(self.waiting) == len(self.slots)


class Rollout:
    """Plays `episodes` and tells `recorded` of each as it ends, with a hash of each look where `hashing`."""

    def __init__(
        self, crew: Crew, player: Player, episodes: Sequence[Episode], recorded: Recorded, hashing: bool = False
    ) -> None:
        self.crew, self.player, self.recorded, self.hashing = crew, player, recorded, hashing
        self.parties = _parties(episodes, mixing=player.manner.mixing)
        self.playing: dict[int, Party] = {}  # slot -> its party
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls = self.mixed_calls = self.asked = 0

    def run(self) -> None:
        self._deal()
        while self.playing:
            if parties := self._due():
                self._ask(parties)
                continue
            start = time.perf_counter()
            replies = self.crew.replies()
            self.seconds["waiting"] += time.perf_counter() - start
            self._take(replies)

    def film(self, films: Sequence[Take]) -> list[Filmed]:
        """Plays recorded episodes again into video files, on all slots at once."""
        queue, free = list(films), list(range(len(self.crew)))
        done: list[Filmed] = []
        while len(done) < len(films):
            while queue and free:
                episode, outcome, path = queue.pop(0)
                slot = next((slot for slot in free if self.crew.tasks.get(slot) == episode.task), free[0])
                free.remove(slot)
                self.crew.tasks[slot] = episode.task
                self.crew.send(slot, Film(slot, episode, outcome.actions, outcome.final_state, path))
            for reply in self.crew.replies():
                free.append(reply.slot)
                done.append(reply)
        return done

    def _deal(self) -> None:
        """Gives free slots the parties that wait, as far as whole ones fit."""
        while self.parties and (self.player.manner.concurrent or not self.playing):
            free = [slot for slot in range(len(self.crew)) if slot not in self.playing]
            party = self._next(free)
            if len(party.episodes) > len(free):
                return
            self.parties.remove(party)
            if not self.player.manner.mixing:
                party.policy = self.player.copy()
            free.sort(key=lambda slot: self.crew.tasks.get(slot) != party.task)
            for index, episode in enumerate(party.episodes):
                self._begin(free[index], party, index, episode)

    def _begin(self, slot: int, party: Party, index: int, episode: Episode) -> None:
        party.slots[slot] = index
        self.playing[slot] = party
        self.crew.tasks[slot] = episode.task
        self.crew.send(slot, Begin(slot, episode))

    def _next(self, free: Sequence[int]) -> Party:
        """In lerobot-eval's order where that matters; else of a task that a free slot has built, or that lags most."""
        if not self.player.manner.concurrent:
            return self.parties[0]
        left = Counter(party.task for party in self.parties)
        held = Counter(self.crew.tasks.values())
        built = {self.crew.tasks.get(slot) for slot in free}
        task = max(left, key=lambda task: (task in built, left[task] / (1 + held[task]), -task[1]))
        taken = Counter(party.place for party in self.playing.values())
        return min((party for party in self.parties if party.task == task), key=lambda party: taken[party.place])

    def _take(self, replies: Sequence[Any]) -> None:
        for reply in replies:
            party = self.playing[reply.slot]
            index = party.slots[reply.slot]
            if isinstance(reply, Seen):
                party.looks[index] = self._look(party, index, reply)
                party.waiting.add(index)
                party.since = self.calls
                if self.player.manner.mixing:
                    party.company = self.player.company(party.looks[index])
            elif isinstance(reply, Ended):
                self._end(party, index, reply)
        self._deal()

    def _look(self, party: Party, index: int, seen: Seen) -> Look:
        pictures = {camera: np.array(picture) for camera, picture in self.crew.pictures[seen.slot].items()}
        observation = {"pixels": pictures}
        if seen.robot_state:
            observation["robot_state"] = seen.robot_state
        if self.hashing:
            step = party.chunk * self.player.chunk
            party.seen.setdefault(index, {})[step] = observation_sha(observation)
        return Look(party.episodes[index], party.chunk, seen.description, observation)

    def _end(self, party: Party, index: int, ended: Ended) -> None:
        del party.slots[ended.slot], self.playing[ended.slot]
        self.recorded(party.episodes[index], ended.outcome, party.seen.pop(index, {}))
        if not party.slots and party.policy is not None and self.player.manner.concurrent:
            self.player.give_back(party.policy)

    def _due(self) -> list[Party]:
        """The parties to ask the policy for now; none while it pays to wait for more."""
        ready = list({id(party): party for party in self.playing.values() if party.ready}.values())
        if not self.player.manner.mixing:
            return ready[:1]
        companies: dict[Shapes | None, list[Party]] = defaultdict(list)
        for party in ready:
            companies[party.company].append(party)
        calls = [_call(parties) for parties in companies.values() if self._enough(parties)]
        return min(calls, key=lambda parties: min(party.since for party in parties), default=[])

    def _enough(self, ready: Sequence[Party]) -> bool:
        """Whether a call is full enough, or nobody is left who is likely to join it."""
        company = ready[0].company
        likely = [party for party in self.playing.values() if party.company in (None, company)]
        return len({party.place for party in ready}) >= FULL * self.player.batch_size or len(ready) == len(likely)

    def _ask(self, parties: Sequence[Party]) -> None:
        start = time.perf_counter()
        if self.player.manner.mixing:
            actions = self.player.mixed([party.looks[0] for party in parties])
        else:
            (party,) = parties
            actions = self.player.in_step(party.policy, [party.looks[i] for i in range(len(party.episodes))])
        self.seconds["policy"] += time.perf_counter() - start
        self.calls += 1
        self.mixed_calls += len({party.task for party in parties}) > 1
        self._act(parties, actions)

    def _act(self, parties: Sequence[Party], actions: Sequence[Array]) -> None:
        """Sends each slot its actions: of the mixed call one a party, of a lockstep call one an episode."""
        for number, party in enumerate(parties):
            party.waiting.clear()
            party.chunk += 1
            for slot, index in party.slots.items():
                self.asked += 1
                self.crew.send(slot, Act(slot, actions[number if self.player.manner.mixing else index]))


def _call(ready: Sequence[Party]) -> list[Party]:
    """Of these parties one for each place of a call, those that wait longest."""
    places: dict[int, Party] = {}
    for party in sorted(ready, key=lambda party: party.since):
        places.setdefault(party.place, party)
    return list(places.values())


def _parties(episodes: Sequence[Episode], mixing: bool) -> list[Party]:
    if mixing:
        return [Party([episode]) for episode in episodes]
    batches: dict[tuple[int, int], list[Episode]] = {}
    for episode in episodes:
        batches.setdefault(episode.batch, []).append(episode)
    return [Party(batch) for batch in batches.values()]
