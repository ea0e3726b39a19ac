"""Who plays what when: the resident engine's rollout over slots that are played by numbers alone."""

import itertools
import random
from collections import Counter, deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tracka.engines import episode_lines
from tracka.engines.resident.episode import Episode, EpisodeOutcome, ObservationRequest, Task, digest, episodes
from tracka.engines.resident.player import BatchingMode, PolicyRunner, Shapes
from tracka.engines.resident.record import ObservationHashes
from tracka.engines.resident.rollout import Rollout
from tracka.engines.resident.slot import (
    BeginEpisode,
    EpisodeEnded,
    ObservationReady,
    PlayActions,
    RecordVideo,
    VideoConfig,
    VideoRecorded,
)
from tracka.engines.resident.worker_pool import WorkerPool

CHUNK = 5
MIXING, LOCKSTEP, REFERENCE = (
    BatchingMode(True, True, True),
    BatchingMode(False, True, True),
    BatchingMode(False, True, False),
)


class Slots:
    """A crew without processes: an episode ends after a number of steps of its own, and answers come in any order."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.pictures = {number: {"image": np.zeros((2, 2, 3), np.uint8)} for number in range(count)}
        self.tasks: dict[int, Task] = {}
        self.replied: deque[Any] = deque()
        self.playing: dict[int, tuple[Episode, list[float]]] = {}
        self.begun: list[tuple[int, Episode]] = []
        self.random = random.Random(seed)

    def __len__(self) -> int:
        return len(self.pictures)

    def send(self, number: int, command: Any) -> None:
        if isinstance(command, BeginEpisode | RecordVideo):
            self.tasks[number] = command.episode.task
        if isinstance(command, BeginEpisode):
            assert number not in self.playing
            self.begun.append((number, command.episode))
            self.playing[number] = (command.episode, [])
            self.replied.append(ObservationReady(number, {}, f"task {command.episode.task_id}"))
        elif isinstance(command, PlayActions):
            self.replied.append(self._act(number, command.actions))
        elif isinstance(command, RecordVideo):
            self.replied.append(VideoRecorded(number, command.path, None))

    def _act(self, number: int, actions: Any) -> Any:
        episode, done = self.playing[number]
        for action in actions:
            done.append(float(action[0]))
            if len(done) == length(episode):
                del self.playing[number]
                taken = np.array(done, np.float32)[:, None]
                return EpisodeEnded(number, EpisodeOutcome(bool(episode.number % 2), 0.0, 0.0, taken, "first", "last"))
        return ObservationReady(number, {}, f"task {episode.task_id}")

    def replies(self, timeout: float | None = None) -> list[Any]:
        count = self.random.randint(0 if timeout == 0 else 1, len(self.replied))
        self.random.shuffle(self.replied)
        return [self.replied.popleft() for _ in range(count)]


class Words:
    """A player whose actions tell for whom and when they are, so that a mix-up is seen.

    Calls of more than one task are answered in fast mode, others in exact mode.
    """

    answered = episode_lines.EXACT
    is_free = False  # whether episodes may have any place in a call

    def __init__(self, manner: BatchingMode, batch_size: int, lengths: bool) -> None:
        self.mode, self.batch_size, self.lengths = manner, batch_size, lengths
        self.calls: list[list[ObservationRequest]] = []
        self.copies = 0

    def copy(self) -> int:
        self.copies += 1
        return self.copies

    def keep_copy(self, mine: int) -> None:
        pass

    def call_shapes(self, look: ObservationRequest) -> Shapes:
        """Instructions of the first task are longer."""
        return (("tokens", (1, 12 if self.lengths and look.episode.task_id == 0 else 8)),)

    def has_free_places(self, shapes: Shapes | None) -> bool:
        return self.is_free

    def mixed_actions(self, looks: Sequence[ObservationRequest], shapes: Shapes | None = None) -> list[Any]:
        self.calls.append(list(looks))
        is_mixed = len({look.episode.task for look in looks}) > 1
        self.answered = episode_lines.FAST if is_mixed else episode_lines.EXACT
        return [np.full((CHUNK, 7), mark(look.episode, look.chunk), np.float32) for look in looks]

    def lockstep_actions(self, policy: Any, looks: Sequence[ObservationRequest]) -> list[Any]:
        return self.mixed_actions(looks)


def length(episode: Episode) -> int:
    return 3 + (7 * episode.number + 5 * episode.task_id) % 23


def mark(episode: Episode, chunk: int) -> float:
    return 1000 * episode.task_id + 10 * episode.number + chunk


def played(
    manner: BatchingMode,
    slots: int,
    batch_size: int,
    seed: int = 0,
    n_episodes: int = 7,
    lengths: bool = False,
    sharing: bool = False,
) -> SimpleNamespace:
    todo = episodes("libero_object", (0, 3, 4), n_episodes, batch_size, 7)
    crew, player, outcomes = Slots(slots, seed), Words(manner, batch_size, lengths), {}
    modes: dict[Episode, str | None] = {}

    def record(episode: Episode, outcome: EpisodeOutcome, looks: ObservationHashes, precision: str | None) -> None:
        assert episode not in outcomes
        outcomes[episode], modes[episode] = outcome, precision

    rollout = Rollout(cast(WorkerPool, crew), cast(PolicyRunner, player), todo, record, sharing=sharing)
    rollout.run()
    return SimpleNamespace(todo=todo, crew=crew, player=player, outcomes=outcomes, rollout=rollout, modes=modes)


@pytest.mark.parametrize("manner", [MIXING, LOCKSTEP, REFERENCE], ids=["mixing", "lockstep", "reference"])
@pytest.mark.parametrize(("slots", "batch_size"), [(1, 1), (4, 1), (4, 4), (9, 4), (32, 4)])
def test_every_episode_is_played_once_with_its_own_actions(manner: BatchingMode, slots: int, batch_size: int) -> None:
    for seed in range(3):
        run = played(manner, slots, batch_size, seed)
        assert set(run.outcomes) == set(run.todo)
        for episode, outcome in run.outcomes.items():
            assert outcome.steps == length(episode)
            assert outcome.actions[:, 0].tolist() == [mark(episode, step // CHUNK) for step in range(length(episode))]


def test_no_two_looks_of_a_call_have_the_same_position_when_episodes_mix() -> None:
    run = played(MIXING, 12, 4, n_episodes=9)
    for call in run.player.calls:
        assert max(Counter(look.episode.position for look in call).values()) == 1
    assert any(len({look.episode.task_id for look in call}) > 1 for call in run.player.calls)


def test_where_places_are_free_episodes_with_the_same_position_share_calls_that_are_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bound = played(MIXING, 12, 4, n_episodes=9)
    monkeypatch.setattr(Words, "is_free", True)
    run = played(MIXING, 12, 4, n_episodes=9)
    assert {episode: outcome.actions.tolist() for episode, outcome in run.outcomes.items()} == {
        episode: outcome.actions.tolist() for episode, outcome in bound.outcomes.items()
    }
    assert max(len(call) for call in run.player.calls) == 4
    assert any(len({look.episode.position for look in call}) < len(call) for call in run.player.calls)
    assert len(run.player.calls) < len(bound.player.calls)


@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize(("slots", "n_episodes"), [(2, 3), (4, 3), (5, 7), (12, 9)])
def test_the_first_calls_are_of_several_tasks_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, slots: int, n_episodes: int, is_free: bool
) -> None:
    monkeypatch.setattr(Words, "is_free", is_free)
    for seed in range(20):
        run = played(MIXING, slots, 2, seed, n_episodes, sharing=True)
        assert len({look.episode.task_id for look in run.player.calls[0]}) > 1
        assert set(run.outcomes) == set(run.todo)


@pytest.mark.parametrize("manner", [MIXING, LOCKSTEP, REFERENCE], ids=["mixing", "lockstep", "reference"])
@pytest.mark.parametrize(("slots", "batch_size", "lengths"), [(1, 1, False), (4, 1, False), (4, 2, True)])
def test_where_no_call_can_be_shared_none_is_waited_for(
    manner: BatchingMode, slots: int, batch_size: int, lengths: bool
) -> None:
    run = played(manner, slots, batch_size, lengths=lengths, sharing=True)
    assert set(run.outcomes) == set(run.todo)


class OneByOne(Slots):
    """Slots whose answers come one by one; `events` has an answer or the actions that a slot got, in their order."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.events: list[str] = []

    def send(self, number: int, command: Any) -> None:
        super().send(number, command)
        if isinstance(command, PlayActions):
            self.events.append("actions")

    def replies(self, timeout: float | None = None) -> list[Any]:
        if timeout == 0:
            return []
        self.events.append("answer")
        return [self.replied.popleft()]


@pytest.mark.parametrize(("places", "answers"), [([0], 1), ([0, 1], 1), ([0, 1, 2, 3], 2)])
def test_a_call_waits_for_half_of_the_places_that_playing_episodes_have(places: list[int], answers: int) -> None:
    todo = [Episode("libero_object", 0, 4 * count + place, 7, 4) for count in range(3) for place in places]
    crew, player, outcomes = OneByOne(len(todo)), Words(MIXING, 4, lengths=False), []
    runner = cast(PolicyRunner, player)
    Rollout(cast(WorkerPool, crew), runner, todo, lambda episode, *_: outcomes.append(episode)).run()
    assert crew.events.index("actions") == answers
    assert sorted(outcomes, key=todo.index) == todo


def test_a_call_waits_for_most_places_where_each_has_one_episode() -> None:
    todo = [Episode("libero_object", 0, place, 7, 4) for place in range(4)]
    crew, runner = OneByOne(4), cast(PolicyRunner, Words(MIXING, 4, lengths=False))
    Rollout(cast(WorkerPool, crew), runner, todo, lambda *_: None).run()
    assert crew.events.index("actions") == 3


@pytest.mark.parametrize(("slots", "batch_size"), [(1, 1), (4, 4), (12, 4), (32, 8)])
def test_looks_whose_instructions_differ_in_length_share_no_call(slots: int, batch_size: int) -> None:
    for seed in range(3):
        run = played(MIXING, slots, batch_size, seed, n_episodes=9, lengths=True)
        assert set(run.outcomes) == set(run.todo)
        for call in run.player.calls:
            assert len({look.episode.task_id == 0 for look in call}) == 1
    if batch_size > 1:
        assert run.rollout.mixed_calls > 0


def test_each_episode_says_which_modes_have_answered_it_and_the_row_says_so_of_all() -> None:
    run = played(MIXING, 12, 4, n_episodes=9)
    answered: dict[Episode, set[str]] = {episode: set() for episode in run.todo}
    for call in run.player.calls:
        mode = episode_lines.FAST if len({look.episode.task for look in call}) > 1 else episode_lines.EXACT
        for look in call:
            answered[look.episode].add(mode)
    assert run.modes == {episode: episode_lines.answered(modes) for episode, modes in answered.items()}
    assert episode_lines.BOTH in run.modes.values() and run.rollout.modes == set().union(*answered.values())


def test_in_reference_batches_are_played_one_after_the_other_in_lerobot_evals_order() -> None:
    run = played(REFERENCE, 12, 4)
    batches = [call[0].episode.batch for call in run.player.calls]
    assert list(dict.fromkeys(batches)) == list(dict.fromkeys(episode.batch for episode in run.todo))
    assert batches == sorted(batches)


def test_batches_in_lockstep_are_played_beside_each_other_each_with_a_policy_of_its_own() -> None:
    run = played(LOCKSTEP, 12, 4)
    batches = [call[0].episode.batch for call in run.player.calls]
    assert batches != sorted(batches)
    assert run.player.copies == len(set(batches))


def test_a_slot_goes_on_with_its_task_where_it_can() -> None:
    run = played(MIXING, 3, 1, n_episodes=30)
    tasks: dict[int, list[int]] = {}
    for slot, episode in run.crew.begun:
        tasks.setdefault(slot, []).append(episode.task_id)
    changes = sum(a != b for line in tasks.values() for a, b in itertools.pairwise(line))
    assert changes <= len(tasks)


def test_films_are_made_on_all_slots() -> None:
    run = played(MIXING, 3, 1)
    films = [(episode, outcome, f"{episode.number}.mp4") for episode, outcome in run.outcomes.items()]
    assert len(run.rollout.record_videos(films)) == len(films)


class Place:
    """A simulator of a task, whose state is the number of the task."""

    fallbacks, max_steps = (), 3

    def __init__(self, episode: Episode) -> None:
        self.task_id, self.description = episode.task_id, f"task {episode.task_id}"

    def open_graphics(self) -> None:
        pass

    def state(self) -> Any:
        return np.array([self.task_id])

    def reset(self, *_: Any) -> Any:
        return {"pixels": {"image": np.zeros((2, 2, 3), np.uint8)}}

    def step(self, action: Any, observe: bool) -> Any:
        return SimpleNamespace(observation=self.reset() if observe else None, reward=0.0, success=False, done=False)


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_each_episode_is_played_in_an_environment_of_its_task_whatever_the_slot_had_before(slots: int) -> None:
    todo, outcomes = episodes("libero_object", range(5), 3, 1, 7), {}
    crew = WorkerPool(2, slots, {"image": (2, 2, 3)}, cast(Any, Place), VideoConfig(1, 20))

    def record(episode: Episode, outcome: EpisodeOutcome, looks: ObservationHashes, precision: str | None) -> None:
        outcomes[episode] = outcome.first_state, outcome.final_state

    crew.build(todo[:slots])
    Rollout(crew, cast(PolicyRunner, Words(MIXING, 1, False)), todo, record).run()
    crew.stop()
    assert outcomes == {each: (digest(np.array([each.task_id])),) * 2 for each in todo}
