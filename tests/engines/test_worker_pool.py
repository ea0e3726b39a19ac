"""The pool of worker processes and the builder processes above them, with simulators in which nothing moves."""

import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tracka.engines.resident import channel
from tracka.engines.resident.child_processes import WorkerLost
from tracka.engines.resident.episode import Episode
from tracka.engines.resident.slot import BeginEpisode, ObservationReady, VideoConfig
from tracka.engines.resident.worker_pool import KEPT_TASKS, WorkerPool

BROKEN = 99  # a task that cannot be built


UNKNOWN = 13  # a seed for which a simulator asks for a picture of a task that the renderer has not loaded
UNSEEN = 14  # a seed for which a simulator waits for no picture


def episode_of(task_id: int, seed: int = 7) -> Episode:
    return Episode("libero_object", task_id, 0, seed, 2)


class Still:
    """A simulator in which nothing moves, and of which renderers know nothing."""

    description, fallbacks, max_steps = "pick it up", (), 1
    drawn_by: Any = None

    def __init__(self, waiting: Path) -> None:
        self.waiting = waiting  # a file that is there once the simulator waits for a picture

    def state(self) -> Any:
        return np.zeros(3)

    def reset(self, seed: int, *_: Any) -> dict[str, Any]:
        if self.drawn_by and seed != UNSEEN:
            renderer, shared, slot, task, turn = self.drawn_by
            if seed == UNKNOWN:
                channel.send(renderer, channel.DrawPictures(slot, task, (channel.View(0, 2, 2),), (0,) * 6))
            self.waiting.touch()
            turn.wait(shared.wait_until_drawn, take_again=False)
        return {"pixels": {"image": np.full((2, 2, 3), 9, np.uint8)}}

    def open_graphics(self) -> None:
        pass

    def load_into(self, *_: Any) -> None:
        pass

    def draw_with(self, *renderer: Any) -> None:
        self.drawn_by = renderer


def begin(crew: WorkerPool, slot: int, episode: Episode) -> None:
    crew.send(slot, BeginEpisode(slot, episode))
    (seen,) = crew.replies()
    assert isinstance(seen, ObservationReady) and seen.slot == slot and crew.pictures[slot]["image"].max() == 9


@pytest.fixture
def crews(tmp_path: Path) -> Iterator[Callable[..., WorkerPool]]:
    """Makes pools of still simulators, which leave a line in `built` for each that is built and for each whose task is
    `BROKEN`, which cannot be built."""
    made: list[WorkerPool] = []

    def make(episode: Episode) -> Any:
        with (tmp_path / "built").open("a") as file:
            file.write(f"{episode.task_id}\n")
        if episode.task_id == BROKEN:
            raise ValueError("no such fixture")
        return Still(tmp_path / "waiting")

    def crew(n_workers: int, n_slots: int, n_renderers: int = 0) -> WorkerPool:
        arguments = {"image": (2, 2, 3)}, make, VideoConfig(1, 20)
        made.append(WorkerPool(n_workers, n_slots, *arguments, n_renderers=n_renderers))
        return made[-1]

    yield crew
    for each in made:
        for process in (*(one.process for one in each.builders), *(one.process for one in each.renderers)):
            process.kill()


def test_a_task_is_built_once_ahead_and_for_all_slots(tmp_path: Path, crews: Callable[..., WorkerPool]) -> None:
    ahead, other = episode_of(3), episode_of(task_id=4)
    crew = crews(2, 3)
    crew.build([ahead, ahead])
    assert crew.tasks == {0: ("libero_object", 3), 1: ("libero_object", 3)}
    for slot, episode in ((0, ahead), (1, ahead), (0, other), (2, other), (0, ahead)):
        begin(crew, slot, episode)
    assert sorted((tmp_path / "built").read_text().split()) == ["3", "4"]
    timings = crew.collect_timings()
    assert len(timings) == 5 and sum("build" in each.seconds for each in timings) == 2
    assert [each.seconds for each in crew.collect_timings()] == [{}, {}, {}]
    processes = [each.process for each in crew.builders]
    crew.stop()
    assert [process.exitcode for process in processes] == [0, 0]


def test_tasks_that_no_slot_has_are_forgotten_beyond_some(tmp_path: Path, crews: Callable[..., WorkerPool]) -> None:
    crew = crews(1, 1)
    for task in (*range(KEPT_TASKS), 1, KEPT_TASKS, 1, 0):
        begin(crew, 0, episode_of(task))
    built = list(map(int, (tmp_path / "built").read_text().split()))
    assert built == [*range(KEPT_TASKS + 1), 0], "the task that was needed last the longest ago is built again"


def test_tasks_that_are_built_ahead_are_not_built_again_and_stay_within_the_number_kept(
    tmp_path: Path, crews: Callable[..., WorkerPool]
) -> None:
    crew = crews(1, 1)
    begin(crew, 0, episode_of(2))
    crew.build_ahead([episode_of(BROKEN), *(episode_of(task) for task in range(KEPT_TASKS + 3))])
    begin(crew, 0, episode_of(KEPT_TASKS - 2))
    built = list(map(int, (tmp_path / "built").read_text().split()))
    assert built == [2, BROKEN, *(task for task in range(KEPT_TASKS - 1) if task != 2)]


def test_a_worker_process_that_dies_or_cannot_build_ends_the_evaluation_with_its_reason(
    crews: Callable[..., WorkerPool],
) -> None:
    crew = crews(1, 2)
    assert crew.lives
    begin(crew, 1, episode_of(3))
    assert crew.lives
    (builder,) = (psutil.Process(each.process.pid) for each in crew.builders)
    (worker,) = builder.children()
    worker.kill()
    with pytest.raises(WorkerLost, match="the worker process of slot 1 died with exit code -9"):
        crew.replies()
    assert not crew.lives
    crew.pipes.pop(1)
    with pytest.raises(WorkerLost, match=r"(?s)the worker process of slot 0 failed:.*no such fixture"):
        crew.send(0, BeginEpisode(0, episode_of(BROKEN)))  # raises where the process has failed already
        crew.replies()


def test_the_reason_is_told_though_an_environment_failed_before_its_slot_was_given_an_episode(
    crews: Callable[..., WorkerPool],
) -> None:
    crew = crews(1, 1)
    crew.build([episode_of(BROKEN)])
    closed = select.poll()
    closed.register(crew.pipes[0].fileno(), 0)  # POLLHUP is told of always
    closed.poll()
    with pytest.raises(WorkerLost, match=r"(?s)the worker process of slot 0 failed:.*no such fixture"):
        crew.send(0, BeginEpisode(0, episode_of(BROKEN)))
    assert crew.builders[0].process.is_alive()


def test_a_builder_process_that_dies_takes_its_worker_processes_with_it(crews: Callable[..., WorkerPool]) -> None:
    crew = crews(1, 1)
    begin(crew, 0, episode_of(3))
    (builder,) = (psutil.Process(each.process.pid) for each in crew.builders)
    workers = builder.children()
    builder.kill()
    with pytest.raises(WorkerLost, match="builder process 0 died with exit code -9"):
        crew.replies()
    assert psutil.wait_procs(workers, timeout=10)[1] == []


@pytest.mark.usefixtures("libero")
@pytest.mark.parametrize(
    ("seed", "reason"),
    [
        (7, "^renderer 0 died with exit code -9$"),
        (UNKNOWN, r"(?s)^renderer 0 failed:\nTraceback.*KeyError: \('libero_object', 3\)"),
    ],
    ids=["killed", "failed"],
)
def test_a_renderer_that_dies_ends_the_evaluation_though_a_slot_waits_for_its_picture(
    seed: int, reason: str, crews: Callable[..., WorkerPool]
) -> None:
    crew = crews(1, 1, n_renderers=1)
    crew.send(0, BeginEpisode(0, episode_of(3, seed)))
    if seed != UNKNOWN:
        crew.renderers[0].process.kill()
    with pytest.raises(WorkerLost, match=reason):
        crew.replies()
    crew.renderers[0].process.join()
    assert not crew.lives


@pytest.mark.usefixtures("libero")
def test_a_slot_that_waits_for_its_pictures_leaves_its_core_to_another(
    tmp_path: Path, crews: Callable[..., WorkerPool]
) -> None:
    crew = crews(1, 2, n_renderers=1)
    crew.send(0, BeginEpisode(0, episode_of(3)))
    while not (tmp_path / "waiting").exists():
        time.sleep(0.01)
    begin(crew, 1, episode_of(3, UNSEEN))
