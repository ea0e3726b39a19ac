"""How long rows are expected to take: by their past where they have one, else by the matrix, in one unit."""

import time
from collections.abc import Callable

import pytest
from campaigns import ROWS, Made

from tracka.campaign.matrix import AUTO
from tracka.core import files
from tracka.runs import row_durations
from tracka.runs.row_scheduler import Job

BASELINE, LONG, WIDE = "baseline_b1_e2", "long_b1_e6", "wide_b4_e4"  # 2, 6 and 1 episodes one after the other


def remember(made: Made, run_id: str, seconds: object, episodes: int | None = None, **more: object) -> None:
    """Leaves a result of an earlier run."""
    result = {"status": "pass", "reason": None, "duration_sec": seconds, "episodes": episodes, **more}
    files.write_json(made.layout.run(run_id).result, result)


def jobs(made: Made, resume: bool = False) -> dict[str, Job]:
    spec = made.spec
    found = row_durations.jobs(spec, dict(enumerate(spec.enabled)), resume)
    assert [job.index for job in found] == list(range(len(spec.enabled)))
    return {spec.enabled[job.index].run_id: job for job in found}


def costs(made: Made) -> list[float]:
    """Of BASELINE, LONG and WIDE."""
    return [job.cost for job in jobs(made).values()]


def test_rows_without_a_past_cost_what_the_matrix_says(made: Made) -> None:
    assert costs(made) == [2 * 280, 6 * 280, 280]


def test_the_length_of_an_episode_is_the_settings_or_the_suites(make_campaign: Callable[..., Made]) -> None:
    made = make_campaign([*ROWS, "ten,libero_10,1,2,cpu,7,egl,checkpoints/fake,1"])
    made.configure(f"[rows.{BASELINE}]\nepisode_length = 100")
    assert costs(made) == [200, 6 * 280, 280, 2 * 520]


def test_a_row_that_ran_costs_what_it_took_and_the_others_are_scaled_to_seconds(made: Made) -> None:
    remember(made, BASELINE, 20.0, 2)
    assert costs(made) == pytest.approx([20, 60, 10])


def test_the_scale_is_the_median_of_what_was_measured(make_campaign: Callable[..., Made]) -> None:
    made = make_campaign([*ROWS, "new,libero_object,1,3,cpu,7,egl,checkpoints/fake,1"])
    for run_id, seconds, episodes in ((BASELINE, 20.0, 2), (LONG, 120.0, 6), (WIDE, 5000.0, 4)):
        remember(made, run_id, seconds, episodes)
    assert costs(made) == pytest.approx([20, 120, 5000, 60])


def test_a_row_that_timed_out_costs_at_least_that(made: Made) -> None:
    remember(made, WIDE, 60.0, status="fail", reason="timeout")
    assert costs(made) == pytest.approx([120, 360, 60])


@pytest.mark.parametrize(
    "past",
    [
        {"seconds": 1.0, "status": "fail", "reason": "crash"},
        {"seconds": 1.0, "episodes": 3},  # the matrix asked for another number then
        {"seconds": 0.0, "episodes": 2},
        {"seconds": "long", "episodes": 2},
        {"seconds": None, "episodes": 2},
    ],
)
def test_a_past_that_tells_nothing_of_the_length_counts_for_nothing(made: Made, past: dict[str, object]) -> None:
    remember(made, BASELINE, **past)  # type: ignore[arg-type]
    assert costs(made) == [2 * 280, 6 * 280, 280]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"duration_sec": 1e999, "status": "pass", "episodes": 2}'])
def test_a_damaged_result_counts_for_nothing(made: Made, text: str) -> None:
    files.write_text(made.layout.run(BASELINE).result, text)
    assert costs(made) == [2 * 280, 6 * 280, 280]


def test_a_row_that_is_only_judged_again_costs_nothing_and_takes_no_gpu(make_campaign: Callable[..., Made]) -> None:
    made = make_campaign([*ROWS, "gpu,libero_object,1,3,auto,7,egl,checkpoints/fake,1"])
    remember(made, "gpu", 60.0, 3)
    assert jobs(made, resume=True)["gpu"] == Job(3)
    assert jobs(made, resume=False)["gpu"] == Job(3, 60.0, AUTO)


def test_ten_thousand_results_are_read_in_a_few_seconds(make_campaign: Callable[..., Made]) -> None:
    names = [f"row{number}" for number in range(10_000)]
    made = make_campaign([*ROWS, *(f"{name},libero_object,1,3,cpu,7,egl,checkpoints/fake,1" for name in names)])
    for name in names:
        path = made.layout.run(name).result
        path.parent.mkdir(parents=True)
        path.write_text('{"status": "fail", "reason": "timeout", "duration_sec": 7.0}')
    spec = made.spec
    start = time.process_time()
    found = row_durations.jobs(spec, dict(enumerate(spec.enabled)), resume=True)
    assert time.process_time() - start < 5
    assert sum(job.cost == 7.0 for job in found) == 10_000
