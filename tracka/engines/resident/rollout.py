"""Plays all episodes of a row in the environment slots: which slot plays which episode, and when the policy is asked.

Guarantees: each episode is played exactly once; a slot whose episode has ended gets the next one at once; when an
episode is played, and beside which others, changes none of its numbers.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import episode_lines
from . import episode_groups
from .episode import Array, Episode, EpisodeOutcome, ObservationRequest, observation_sha
from .episode_groups import EpisodeGroup
from .player import PolicyRunner, Shapes
from .record import ObservationHashes
from .slot import BeginEpisode, EpisodeEnded, ObservationReady, PlayActions, RecordVideo, VideoRecorded
from .worker_pool import WorkerPool

# The part of the places in play that is enough for a call: waiting for the last places would take long. With two groups
# for each place a call may be smaller, since the other slots work meanwhile and the next call comes at once.
FULL, FULL_OF_TWO_BATCHES = 0.75, 0.5
SHARED_CALLS = 3  # so many calls wait until several tasks can share them, where this is asked for
# an episode to play again, its recorded outcome, and the path of its video
VideoTask = tuple[Episode, EpisodeOutcome, Path]
Recorded = Callable[[Episode, EpisodeOutcome, ObservationHashes, str | None], None]


class Rollout:
    """Plays `episodes`, and calls `recorded` with each as it ends, with hashes of its observations if `hashing`.

    With `sharing` the first calls wait until looks of several tasks share them, which is otherwise a matter of time.

    The flow of the loop, until all episodes have ended:
    1. `_groups` groups the episodes that ask the policy together: single episodes when mixing, else whole batches.
    2. `_fill_free_slots` gives free environment slots the next episodes, and the worker processes reset the
       environments.
    3. `_handle_replies` turns the replies of the worker processes into observation requests, records the episodes that
       have ended, and goes through step 2 with their slots.
    4. `_next_call` chooses the groups of the next policy call, or none while too few wait for actions: then step 3
       follows.
    5. `_call_policy` asks the policy for a chunk of actions for each episode of these groups, in one call.
    6. `_send_actions` sends each slot its chunk, which the slot plays to the end of the chunk or of the episode. Step 4
       follows.
    """

    def __init__(
        self,
        pool: WorkerPool,
        runner: PolicyRunner,
        episodes: Sequence[Episode],
        recorded: Recorded,
        hashing: bool = False,
        sharing: bool = False,
    ) -> None:
        self.pool, self.runner, self.recorded, self.hashing = pool, runner, recorded, hashing
        self.waiting_groups = episode_groups.groups(episodes, mixing=runner.mode.mixing)
        self.playing: dict[int, EpisodeGroup] = {}  # slot -> its group
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls = self.mixed_calls = self.asked = 0
        self.calls_to_share = SHARED_CALLS if sharing and runner.batch_size > 1 else 0
        self.modes: set[str] = set()  # that have answered a call

    def run(self) -> None:
        """Plays all episodes. Raises WorkerLost where a worker process failed or died."""
        self._fill_free_slots()
        while self.playing:
            if groups := self._next_call():
                self._call_policy(groups)
                self._handle_replies(self.pool.replies(timeout=0))  # slots that became ready meanwhile
                continue
            start = time.perf_counter()
            replies = self.pool.replies()
            self.seconds["waiting"] += time.perf_counter() - start
            self._handle_replies(replies)

    def record_videos(self, videos: Sequence[VideoTask]) -> list[VideoRecorded]:
        """Plays recorded episodes again into video files, in all slots at once, and returns the workers' replies.

        `record_videos` may be called only when no episode is playing. Raises WorkerLost where a worker process failed
        or died.
        """
        queue, free = list(videos), list(range(len(self.pool)))
        done: list[VideoRecorded] = []
        while len(done) < len(videos):
            while queue and free:
                episode, outcome, path = queue.pop(0)
                slot = next((slot for slot in free if self.pool.tasks.get(slot) == episode.task), free[0])
                free.remove(slot)
                self.pool.send(slot, RecordVideo(slot, episode, outcome.actions, outcome.final_state, path))
            for reply in self.pool.replies():
                free.append(reply.slot)
                done.append(reply)
        return done

    def _fill_free_slots(self) -> None:
        """Gives free slots the groups that have not begun, as long as a whole one fits."""
        while self.waiting_groups and (self.runner.mode.concurrent or not self.playing):
            free = [slot for slot in range(len(self.pool)) if slot not in self.playing]
            group = self._next_group(free)
            if len(group.episodes) > len(free):
                return
            self.waiting_groups.remove(group)
            if not self.runner.mode.mixing:
                group.policy = self.runner.copy()
            free.sort(key=lambda slot: self.pool.tasks.get(slot) != group.task)
            for index, episode in enumerate(group.episodes):
                self._begin(free[index], group, index, episode)

    def _begin(self, slot: int, group: EpisodeGroup, index: int, episode: Episode) -> None:
        group.slots[slot] = index
        self.playing[slot] = group
        self.pool.send(slot, BeginEpisode(slot, episode))

    def _next_group(self, free: Sequence[int]) -> EpisodeGroup:
        """Returns the group that begins next: the first in lerobot-eval's order where batches run one at a time.

        Else the tasks that free slots have built come first, and among them the task that lags most. Of that task's
        groups, the one whose place in a call the fewest playing groups have is returned.
        """
        if not self.runner.mode.concurrent:
            return self.waiting_groups[0]
        left = Counter(group.task for group in self.waiting_groups)
        held = Counter(self.pool.tasks.values())
        built = {self.pool.tasks.get(slot) for slot in free}
        task = max(left, key=lambda task: (task in built, left[task] / (1 + held[task]), -task[1]))
        taken = Counter(group.place for group in self.playing.values())
        return min((group for group in self.waiting_groups if group.task == task), key=lambda group: taken[group.place])

    def _handle_replies(self, replies: Sequence[Any]) -> None:
        for reply in replies:
            group = self.playing[reply.slot]
            index = group.slots[reply.slot]
            if isinstance(reply, ObservationReady):
                group.requests[index] = self._observation_request(group, index, reply)
                group.waiting.add(index)
                group.waiting_since = self.calls
                if self.runner.mode.mixing:
                    group.call_shapes = self.runner.call_shapes(group.requests[index])
            elif isinstance(reply, EpisodeEnded):
                self._end(group, index, reply)
        self._fill_free_slots()

    def _observation_request(self, group: EpisodeGroup, index: int, reply: ObservationReady) -> ObservationRequest:
        pictures = {camera: np.array(picture) for camera, picture in self.pool.pictures[reply.slot].items()}
        observation = {"pixels": pictures}
        if reply.robot_state:
            observation["robot_state"] = reply.robot_state
        if self.hashing:
            step = group.chunk * self.runner.chunk
            group.observation_hashes.setdefault(index, {})[step] = observation_sha(observation)
        return ObservationRequest(group.episodes[index], group.chunk, reply.description, observation)

    def _end(self, group: EpisodeGroup, index: int, reply: EpisodeEnded) -> None:
        del group.slots[reply.slot], self.playing[reply.slot]
        hashes, precision = group.observation_hashes.pop(index, {}), episode_lines.answered(group.modes)
        self.recorded(group.episodes[index], reply.outcome, hashes, precision)
        if not group.slots and group.policy is not None and self.runner.mode.concurrent:
            self.runner.keep_copy(group.policy)

    def _next_call(self) -> list[EpisodeGroup]:
        """Returns the groups of the next policy call, or none while it pays to wait for more of them."""
        ready = list({id(group): group for group in self.playing.values() if group.ready}.values())
        if not self.runner.mode.mixing:
            return ready[:1]
        groups_by_shapes: dict[Shapes | None, list[EpisodeGroup]] = defaultdict(list)
        for group in ready:
            groups_by_shapes[group.call_shapes].append(group)
        calls = [self._together(groups) for groups in groups_by_shapes.values() if self._is_full_enough(groups)]
        return min(calls, key=lambda groups: min(group.waiting_since for group in groups), default=[])

    def _is_full_enough(self, ready: Sequence[EpisodeGroup]) -> bool:
        """Returns whether a call for these groups is full enough, or no other playing group is likely to join it.

        A call is judged by the places that playing groups have: towards the end of a row some places have no episodes
        left, so that waiting for them would mean to wait for every slot.
        """
        shapes = ready[0].call_shapes
        likely = [group for group in self.playing.values() if group.call_shapes in (None, shapes)]
        if self._waits_to_share(likely):
            return len(ready) == len(likely)
        places = self._places(likely, shapes)
        enough = FULL if len(likely) < 2 * places else FULL_OF_TWO_BATCHES
        return self._places(ready, shapes) >= enough * places or len(ready) == len(likely)

    def _waits_to_share(self, groups: Sequence[EpisodeGroup]) -> bool:
        return self.mixed_calls < self.calls_to_share and len({group.task for group in groups}) > 1

    def _places(self, groups: Sequence[EpisodeGroup], shapes: Shapes | None) -> int:
        """Returns how many of these groups have a place in one call."""
        if self.runner.has_free_places(shapes):
            return min(len(groups), self.runner.batch_size)
        return len({group.place for group in groups})

    def _together(self, ready: Sequence[EpisodeGroup]) -> list[EpisodeGroup]:
        """Returns those of the groups that one call answers, the ones that have waited longest."""
        is_free = self.runner.has_free_places(ready[0].call_shapes)
        if self._waits_to_share(ready):
            shared = episode_groups.of_several_tasks(ready, is_free)
            return shared[: self.runner.batch_size]
        if is_free:
            return sorted(ready, key=lambda group: group.waiting_since)[: self.runner.batch_size]
        return episode_groups.one_per_place(ready)

    def _call_policy(self, groups: Sequence[EpisodeGroup]) -> None:
        start = time.perf_counter()
        if self.runner.mode.mixing:
            requests = [group.requests[0] for group in groups]
            actions = self.runner.mixed_actions(requests, groups[0].call_shapes)
        else:
            (group,) = groups
            actions = self.runner.lockstep_actions(
                group.policy, [group.requests[i] for i in range(len(group.episodes))]
            )
        self.seconds["policy"] += time.perf_counter() - start
        self.calls += 1
        self.modes.add(self.runner.answered)
        self.mixed_calls += len({group.task for group in groups}) > 1
        self._send_actions(groups, actions)

    def _send_actions(self, groups: Sequence[EpisodeGroup], actions: Sequence[Array]) -> None:
        """Sends each slot its actions.

        `actions` has one entry for each group of a mixed call, or one for each episode of a lockstep call.
        """
        for number, group in enumerate(groups):
            group.waiting.clear()
            group.chunk += 1
            group.modes.add(self.runner.answered)
            for slot, index in group.slots.items():
                self.asked += 1
                self.pool.send(slot, PlayActions(slot, actions[number if self.runner.mode.mixing else index]))
