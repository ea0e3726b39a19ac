"""Simulates when a rollout asks its policy, in seconds, without simulator or policy: python -m benchmarks.batching.

The engine's own `Rollout` plays a row in slots that take pretended times: a reset, a chunk of steps, the pictures of a
look, a call. At most `--workers` slots work at a time, and none while it waits for its pictures. The default times are
those of docs/performance.md on one H200. The clock is pretended too, so the result is the same on each host.
"""

import argparse
import heapq
import random
import sys
from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from tracka.engines.resident.episode import Episode, EpisodeOutcome, episodes
from tracka.engines.resident.rollout import Rollout
from tracka.engines.resident.slot import BeginEpisode, EpisodeEnded, ObservationReady, PlayActions

CHUNK = 50  # actions for each look
SPREAD = 0.15  # by which the times of work and of pictures differ


class Slots:
    """Stands for a WorkerPool. `now` is the pretended time."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.pictures: dict[int, dict[str, Any]] = {number: {} for number in range(args.slots)}
        self.tasks: dict[int, Any] = {}
        self.now = self.worked = 0.0
        self._args, self._random = args, random.Random(0)
        self._turns = args.workers
        self._queue: deque[tuple[int, float]] = deque()  # slots that wait for a turn, and the seconds of their work
        self._events: list[tuple[float, int, bool]] = []  # time, slot, and whether its work has ended or its look
        self._left: dict[int, int] = {}  # slot -> control steps until the end of its episode
        self._replies: list[Any] = []

    def __len__(self) -> int:
        return len(self.pictures)

    def send(self, slot: int, command: Any) -> None:
        """Has a slot begin an episode or play actions."""
        if isinstance(command, BeginEpisode):
            self.tasks[slot], self._left[slot] = command.episode.task, self._args.steps
            seconds = self._args.reset
        else:
            assert isinstance(command, PlayActions)
            steps = min(CHUNK, self._left[slot])
            self._left[slot] -= steps
            seconds = self._args.step * steps
        self._queue.append((slot, self._about(seconds)))
        self._give_turns()

    def replies(self, timeout: float | None = None) -> list[Any]:
        """Returns the replies so far, after the time until the first one if there is none and `timeout` is None."""
        self.go_on(self.now)
        while timeout is None and not self._replies:
            self.go_on(self._events[0][0])
        replies, self._replies = self._replies, []
        return replies

    def go_on(self, until: float) -> None:
        """Lets the slots work until a time."""
        while self._events and self._events[0][0] <= until:
            self.now, slot, has_worked = heapq.heappop(self._events)
            if not has_worked:
                self._replies.append(ObservationReady(slot, {}, ""))
                continue
            self._turns += 1
            self._give_turns()
            if self._left[slot]:
                heapq.heappush(self._events, (self.now + self._about(self._args.pictures), slot, False))
            else:
                outcome = EpisodeOutcome(False, 0, 0, np.empty((self._args.steps, 7)), "", "")
                self._replies.append(EpisodeEnded(slot, outcome))
        self.now = until

    def _give_turns(self) -> None:
        while self._queue and self._turns:
            slot, seconds = self._queue.popleft()
            self._turns -= 1
            self.worked += seconds
            heapq.heappush(self._events, (self.now + seconds, slot, True))

    def _about(self, seconds: float) -> float:
        return seconds * self._random.uniform(1 - SPREAD, 1 + SPREAD)


class Policy:
    """Stands for a PolicyRunner that mixes episodes; tasks with the same remainder by `lengths` may share a call."""

    mode = SimpleNamespace(mixing=True, concurrent=True, lazy=True)
    answered = "exact"  # the mode of its last call
    chunk = CHUNK

    def __init__(self, slots: Slots, args: argparse.Namespace) -> None:
        self.slots, self.batch_size, self._seconds, self._lengths = slots, args.batch, args.call, args.lengths
        self._has_free_places = args.free_places

    def has_free_places(self, _: Any) -> bool:
        """Returns whether requests may have any place in a call."""
        return bool(self._has_free_places)

    def call_shapes(self, request: Any) -> tuple[int]:
        """Returns the length of an instruction, which all requests of a call have in common."""
        return (request.episode.task_id % self._lengths,)

    def mixed_actions(self, requests: Sequence[Any], _: Any = None) -> list[Any]:
        """Lets the time of a call pass and returns actions."""
        self.slots.go_on(self.slots.now + self._seconds)
        return [np.empty((CHUNK, 7))] * len(requests)


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--episodes", type=int, default=50, help="of each task")
    parser.add_argument("--steps", type=int, default=520, help="of each episode")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--slots", type=int, nargs="+", default=[40])
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--reset", type=float, default=0.05, help="seconds")
    parser.add_argument("--step", type=float, default=0.003, help="seconds")
    parser.add_argument("--pictures", type=float, default=0.1, help="seconds of a look")
    parser.add_argument("--call", type=float, nargs="+", default=[0.285, 0.127], help="seconds of a policy's call")
    parser.add_argument("--lengths", type=int, default=1, help="of instructions: only the same length shares a call")
    parser.add_argument("--free-places", action="store_true", help="episodes may have any place in a call")
    return parser.parse_args()


def simulate(args: argparse.Namespace) -> tuple[float, str]:
    """Plays a row and returns its pretended seconds, and a line about it."""
    slots = Slots(args)
    policy: Any = Policy(slots, args)
    played: list[Episode] = []
    row = episodes("libero_10", range(args.tasks), args.episodes, args.batch, 7)
    pool: Any = slots
    rollout = Rollout(pool, policy, row, lambda episode, *_: played.append(episode))
    rollout.run()
    assert len(played) == len(row)
    busy, cores = rollout.calls * args.call / slots.now, slots.worked / slots.now / args.workers
    return slots.now, (
        f"{args.slots} slots, {args.call} s a call: {slots.now:.1f} s; {rollout.calls} calls of "
        f"{rollout.asked / rollout.calls:.1f} on average; the policy is busy for {busy:.0%}, the cores for {cores:.0%}"
    )


def main() -> int:
    """Simulates each number of slots with each time of a call, and prints a line for each."""
    args = arguments()
    for call in args.call:
        for slots in args.slots:
            print(simulate(argparse.Namespace(**vars(args) | {"call": call, "slots": slots}))[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
