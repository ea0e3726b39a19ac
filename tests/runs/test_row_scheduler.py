"""The scheduler: which row a free worker gets, by itself and on random matrices played through to their end."""

import heapq
import random
from collections.abc import Iterator, Sequence
from statistics import mean

import pytest

from tracka.campaign.matrix import AUTO, CPU
from tracka.runs.row_scheduler import Job, RowScheduler


def jobs(*rows: tuple[float, int]) -> list[Job]:
    """Rows with these costs and gpu_ids, numbered from 0."""
    return [Job(index, float(cost), gpu_id) for index, (cost, gpu_id) in enumerate(rows)]


def scheduler(gpus: int, *rows: tuple[float, int]) -> RowScheduler:
    made = RowScheduler(gpus)
    made.add(jobs(*rows))
    return made


def deal(scheduler: RowScheduler, *workers: int) -> dict[int, int]:
    """Worker -> index of the row that it gets."""
    return {worker: job.index for worker, job in scheduler.assign(workers).items()}


# one deal


@pytest.mark.parametrize("gpu_id", [CPU, AUTO])
def test_the_longest_rows_come_first_and_equals_in_their_order(gpu_id: int) -> None:
    table = scheduler(4, (1, gpu_id), (9, gpu_id), (4, gpu_id), (4, gpu_id))
    assert deal(table, 0, 1, 2) == {0: 1, 1: 2, 2: 3}


def test_a_worker_has_one_row_at_a_time() -> None:
    table = scheduler(0, (2, CPU), (1, CPU))
    assert (deal(table, 0), deal(table, 0)) == ({0: 0}, {})
    table.done(0)
    assert deal(table, 0) == {0: 1}


def test_a_pinned_row_goes_to_the_worker_of_its_gpu() -> None:
    assert deal(scheduler(3, (9, 2), (8, 0), (7, 1)), 0, 1, 2) == {2: 0, 0: 1, 1: 2}


def test_a_pinned_row_waits_for_the_worker_of_its_gpu_while_another_has_other_work() -> None:
    table = scheduler(2, (9, CPU), (8, CPU), (5, 0), (4, CPU))
    assert deal(table, 0) == {0: 0}
    assert deal(table, 0, 1) == {1: 1}
    table.done(1)
    assert deal(table, 0, 1) == {1: 3}


def test_a_worker_that_would_idle_takes_a_pinned_row_of_another() -> None:
    table = scheduler(2, (9, CPU))
    assert deal(table, 0) == {0: 0}
    table.add([Job(1, 5, 0)])
    assert deal(table, 0, 1) == {1: 1}


def test_with_fewer_workers_than_gpus_anyone_takes_a_row_pinned_beyond_them() -> None:
    assert deal(scheduler(8, (3, 7), (2, 5)), 0, 1) == {0: 0, 1: 1}


def test_after_a_crash_anyone_takes_the_rows_of_the_gpu_that_lost_its_worker() -> None:
    table = scheduler(2, (9, 1), (8, 1), (7, 0))
    assert deal(table, 0, 1) == {0: 2, 1: 0}
    table.done(1)  # with its worker; the one that replaces it is called 2, and asks for GPU 0 first
    assert deal(table, 0, 2) == {2: 1}


def test_a_row_whose_gpu_is_held_is_not_dealt_until_that_row_ends() -> None:
    table = scheduler(2, (9, 0), (8, 0))
    assert deal(table, 0, 1) == {0: 0}
    assert deal(table, 0, 1) == {}
    table.done(0)
    assert deal(table, 0, 1) == {0: 1}


def test_an_auto_row_is_taken_to_hold_the_gpu_that_its_worker_asks_for_first() -> None:
    table = scheduler(2, (9, AUTO))
    assert deal(table, 1) == {1: 0}
    table.add([Job(1, 5, 1), Job(2, 1, 0)])
    assert deal(table, 1, 2) == {2: 2}
    table.done(1)
    assert deal(table, 1, 2) == {1: 1}


def test_a_worker_whose_gpu_is_held_is_taken_to_get_the_next_free_one() -> None:
    table = scheduler(3, (9, 0), (8, AUTO), (7, 1), (6, 2))
    assert deal(table, 0) == {0: 0}
    assert deal(table, 0, 3) == {3: 2}  # worker 3 would get GPU 1 for an auto row, whose pinned row comes first


def test_rows_pinned_to_one_gpu_count_as_one_long_row() -> None:
    rows = [*[(1.0, 7)] * 6, (5.0, CPU), (4.0, CPU)]
    assert deal(scheduler(8, *rows), 0) == {0: 0}
    assert deal(scheduler(8, *rows[2:]), 0) == {0: 4}


def test_a_gpus_pinned_rows_come_before_auto_rows_however_short() -> None:
    table = scheduler(2, (9, AUTO), (8, AUTO), (1, 0))
    assert deal(table, 0, 1) == {0: 2, 1: 0}
    table.done(0)
    assert deal(table, 0, 1) == {0: 1}


def test_workers_beyond_the_gpus_take_rows_of_the_cpu() -> None:
    table = scheduler(2, (9, AUTO), (8, AUTO), (7, AUTO), (2, CPU), (1, CPU))
    assert deal(table, 0, 1, 2, 3) == {0: 0, 1: 1, 2: 3, 3: 4}
    assert deal(table, 0, 1, 2, 3, 4) == {}


def test_where_gpus_are_short_all_that_needs_one_counts_as_one_long_row() -> None:
    rows = [(3.0, CPU), (3.0, CPU), *[(2.0, AUTO)] * 6]
    assert deal(scheduler(2, *rows), 0, 1, 2) == {0: 2, 1: 3, 2: 0}
    assert deal(scheduler(3, *rows), 0, 1, 2) == {0: 0, 1: 1, 2: 2}


@pytest.mark.parametrize("gpus", [0, 2])
def test_a_row_whose_gpu_is_not_there_is_dealt_all_the_same(gpus: int) -> None:
    assert deal(scheduler(gpus, (9, 5), (8, 5)), 0, 1) == {0: 0, 1: 1}


def test_without_gpus_auto_rows_are_dealt_all_the_same() -> None:
    assert deal(scheduler(0, (9, AUTO), (8, AUTO)), 0, 1) == {0: 0, 1: 1}


# whole matrices


def play(rows: Sequence[Job], workers: int, gpus: int) -> float:
    """The makespan of `rows`. Each leases its GPU as lease.hold does; fails where one would have to wait for it."""
    table, now, started = RowScheduler(gpus), 0.0, list[int]()
    running: list[tuple[float, int]] = []
    leases: dict[int, int] = {}
    table.add(rows)

    def start() -> None:
        for worker, job in table.assign(range(workers)).items():
            started.append(job.index)
            heapq.heappush(running, (now + job.cost, worker))
            if gpus and job.gpu_id != CPU:
                order = [(worker + k) % gpus for k in range(gpus)] if job.gpu_id == AUTO else [job.gpu_id]
                free = [gpu for gpu in order if gpu not in leases.values()]
                assert free, f"row {job.index} of worker {worker} waits for its GPU"
                leases[worker] = free[0]

    start()
    while running:
        now = running[0][0]
        while running and running[0][0] == now:
            worker = heapq.heappop(running)[1]
            leases.pop(worker, None)
            table.done(worker)
        start()
    assert sorted(started) == [job.index for job in rows], "each row runs once"
    return now


def bound(rows: Sequence[Job], workers: int, gpus: int) -> float:
    """No schedule is shorter: each GPU's chain, all rows on the workers, and those that need a GPU on the GPUs."""
    chains = [sum(job.cost for job in rows if job.gpu_id == gpu) for gpu in range(gpus)]
    return max(*chains, spread(rows, workers), spread([job for job in rows if job.gpu_id != CPU], gpus))


def spread(rows: Sequence[Job], machines: int) -> float:
    """At least this long take rows on so many machines: their sum, the longest, and two where there is one too many."""
    costs = sorted((job.cost for job in rows), reverse=True)
    return max(sum(costs) / machines, sum(costs[:1]), sum(costs[machines - 1 : machines + 1]))


def matrices(kinds: Sequence[str], count: int = 400) -> Iterator[tuple[list[Job], int, int]]:
    """Random rows with workers and GPUs, the same each time."""
    draw = random.Random(1)
    for _ in range(count):
        gpus, workers = draw.choice([1, 2, 4, 8]), draw.choice([1, 2, 4, 8, 12])
        costs = [draw.choice([1.0, draw.uniform(1, 10), draw.expovariate(0.2)]) for _ in range(draw.randint(1, 60))]
        ids = {"auto": lambda gpus=gpus: AUTO, "cpu": lambda: CPU, "pinned": lambda gpus=gpus: draw.randrange(gpus)}
        yield jobs(*((cost, ids[draw.choice(kinds)]()) for cost in costs)), workers, gpus


# The longest first is at most a third above the best (Graham), and where rows are bound to GPUs not even the best may
# reach the bound: the last column is what these very matrices come to, and what a change must not make worse.
KINDS = [
    (["auto"], 4 / 3),
    (["cpu"], 4 / 3),
    (["pinned"], 1.5),
    (["auto", "pinned"], 1.5),
    (["auto", "pinned", "cpu"], 1.5),
]


@pytest.mark.parametrize(("kinds", "worst"), KINDS, ids=["-".join(kinds) for kinds, _ in KINDS])
def test_no_row_waits_for_its_gpu_each_runs_once_and_the_end_is_near_the_bound(
    kinds: Sequence[str], worst: float
) -> None:
    ratios = [play(*matrix) / bound(*matrix) for matrix in matrices(kinds)]
    assert mean(ratios) < 1.03
    assert max(ratios) < worst + 1e-9


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_where_every_row_is_pinned_and_each_gpu_has_its_worker_the_end_is_the_longest_chain(gpus: int) -> None:
    for rows, _, _ in matrices(["pinned"], 50):
        rows = [Job(job.index, job.cost, job.index % gpus) for job in rows]
        assert play(rows, gpus, gpus) == pytest.approx(bound(rows, gpus, gpus))


def test_sixteen_rows_on_four_workers_reach_the_bound() -> None:
    rows = jobs(*((seconds, AUTO) for seconds in [1, 4, 2, 0.5, 3, 2.5, 1.5, 8, 1, 4, 2, 0.5, 3, 2.5, 1.5, 1]))
    assert play(rows, 4, 4) == bound(rows, 4, 4) == 9.5
