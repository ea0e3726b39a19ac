"""Plays all episodes of a row in the environment slots: which slot plays which episode, and when the policy is asked.

Guarantees: each episode is played exactly once; a slot whose episode has ended gets the next one at once; when an
episode is played, and beside which others, changes none of its numbers.
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

FULL = 0.75  # the part of a batch that is enough for a call: waiting for the last places would take long
Take = tuple[Episode, Outcome, Path]  # an episode to play again, its recorded outcome, and the path of its video
Recorded = Callable[[Episode, Outcome, Looks], None]


@dataclass
class Party:
    """Episodes that ask the policy together: a single one when mixing, else a batch of lerobot-eval in lockstep."""

    episodes: Sequence[Episode]
    policy: Any = None
    slots: dict[int, int] = field(default_factory=dict)  # slot that plays -> index of its episode in `episodes`
    looks: dict[int, Look] = field(default_factory=dict)  # index -> the episode's last observation request
    seen: dict[int, dict[int, str]] = field(default_factory=dict)  # index -> control step -> hash of the observation
    waiting: set[int] = field(default_factory=set)  # indices of the episodes that wait for actions
    since: int = 0  # the count of policy calls when the last of these episodes began to wait
    company: Shapes | None = None  # parties with the same value may share a call; from the last observation request
    chunk: int = 0  # chunks of actions that these episodes have had

    @property
    def task(self) -> Task:
        """Returns the task, which all episodes of a party have in common."""
        return self.episodes[0].task

    @property
    def place(self) -> int:
        """Returns the place of the party's first episode in a call of the policy."""
        return self.episodes[0].position

    @property
    def ready(self) -> bool:
        """Returns whether all episodes of the party that are still playing wait for actions."""
        return bool(self.waiting) and len(self.waiting) == len(self.slots)


class Rollout:
    """Plays `episodes`, and calls `recorded` with each as it ends, with hashes of its observations if `hashing`.

    The flow of the loop, until all episodes have ended:
    1. `_parties` groups the episodes that ask the policy together: single episodes when mixing, else whole batches.
    2. `_deal` gives free environment slots the next episodes, and the worker processes reset the environments.
    3. `_take` turns the replies of the worker processes into observation requests, records the episodes that have
       ended, and goes through step 2 with their slots.
    4. `_due` chooses the parties of the next policy call, or none while too few wait for actions: then step 3 follows.
    5. `_ask` asks the policy for a chunk of actions for each episode of these parties, in one call.
    6. `_act` sends each slot its chunk, which the slot plays to the end of the chunk or of the episode. Step 4 follows.
    """

    def __init__(
        self, crew: Crew, player: Player, episodes: Sequence[Episode], recorded: Recorded, hashing: bool = False
    ) -> None:
        self.crew, self.player, self.recorded, self.hashing = crew, player, recorded, hashing
        self.parties = _parties(episodes, mixing=player.manner.mixing)
        self.playing: dict[int, Party] = {}  # slot -> its party
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls = self.mixed_calls = self.asked = 0

    def run(self) -> None:
        """Plays all episodes. Raises WorkerLost where a worker process failed or died."""
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
        """Plays recorded episodes again into video files, in all slots at once, and returns the workers' replies.

        `film` may be called only when no episode is playing. Raises WorkerLost where a worker process failed or died.
        """
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
        """Gives free slots the parties that have not begun, as long as a whole one fits."""
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
        """Returns the party that begins next: the first in lerobot-eval's order where batches run one at a time.

        Else the tasks that free slots have built come first, and among them the task that lags most. Of that task's
        parties, the one whose place in a call the fewest playing parties have is returned.
        """
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
        """Returns the parties of the next policy call, or none while it pays to wait for more of them."""
        ready = list({id(party): party for party in self.playing.values() if party.ready}.values())
        if not self.player.manner.mixing:
            return ready[:1]
        companies: dict[Shapes | None, list[Party]] = defaultdict(list)
        for party in ready:
            companies[party.company].append(party)
        calls = [_call(parties) for parties in companies.values() if self._enough(parties)]
        return min(calls, key=lambda parties: min(party.since for party in parties), default=[])

    def _enough(self, ready: Sequence[Party]) -> bool:
        """Returns whether a call for these parties is full enough, or no other playing party is likely to join it."""
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
        """Sends each slot its actions.

        `actions` has one entry for each party of a mixed call, or one for each episode of a lockstep call.
        """
        for number, party in enumerate(parties):
            party.waiting.clear()
            party.chunk += 1
            for slot, index in party.slots.items():
                self.asked += 1
                self.crew.send(slot, Act(slot, actions[number if self.player.manner.mixing else index]))


def _call(ready: Sequence[Party]) -> list[Party]:
    """Returns one of these parties for each place in a call, the one that has waited longest."""
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
