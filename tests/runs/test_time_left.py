"""How much longer a row and a session take: by past durations first, by the row's own pace as soon as there is one."""

from collections.abc import Callable

import pytest
from campaigns import Made

from tracka.campaign.matrix import AUTO, CPU, Row
from tracka.core import files
from tracka.runs import time_left
from tracka.runs.time_left import RowPace


def row(name: str, gpu_id: int = CPU) -> Row:
    return Row(name, "libero_object", 1, 1, gpu_id, 7, "egl", "checkpoints/fake", True)


def test_before_its_first_episode_a_row_takes_what_is_left_of_its_expected_time() -> None:
    pace = RowPace()
    assert pace.seconds_left(30, 0, 10, expected_secs=100) == 70


def test_nothing_is_said_of_a_row_that_takes_longer_than_expected_until_its_episodes_are_played() -> None:
    pace = RowPace()
    assert pace.seconds_left(130, 0, 10, expected_secs=100) is None
    assert pace.seconds_left(140, 10, 10, expected_secs=100) == 0
    slower = RowPace()
    assert [slower.seconds_left(at, played, 10, None) for at, played in ((10, 1), (20, 2))] == [90, 80]
    assert slower.seconds_left(101, 2, 10, None) is None


def test_a_row_of_which_nothing_is_known_has_no_time_until_its_first_episode() -> None:
    pace = RowPace()
    assert pace.seconds_left(30, 0, 10, None) is None
    assert pace.seconds_left(50, 1, 5, None) == 4 * 50


def test_the_time_before_the_first_episode_does_not_count_for_the_pace() -> None:
    """Here a row needs 60 s to start, and then 10 s an episode."""
    pace = RowPace()
    assert pace.seconds_left(70, 1, 10, expected_secs=500) == 430
    assert pace.seconds_left(80, 2, 10, expected_secs=500) == 8 * 10
    assert pace.seconds_left(84, 2, 10, expected_secs=500) == 8 * 10 - 4
    assert pace.seconds_left(90, 3, 10, expected_secs=500) == 7 * 10
    assert pace.seconds_left(160, 10, 10, expected_secs=500) == 0


def test_a_session_ends_with_its_last_worker_the_longest_row_first() -> None:
    waiting = {row("a"): 30.0, row("b"): 50.0, row("c"): 20.0}
    assert time_left.of_session([(CPU, 40.0)], waiting, workers=2, gpus=0) == 70  # b: 0 to 50; a: 40 to 70; c: 50 to 70
    assert time_left.of_session([], waiting, workers=1, gpus=0) == 100
    assert time_left.of_session([], {}, workers=2, gpus=0) == 0


def test_rows_pinned_to_one_gpu_run_one_after_the_other() -> None:
    waiting = {row("a", 0): 30.0, row("b", 0): 50.0, row("c", 1): 20.0}
    assert time_left.of_session([(0, 40.0)], waiting, workers=4, gpus=2) == 120


def test_more_workers_than_gpus_do_not_help_rows_that_need_one() -> None:
    waiting = {row(name, AUTO): 10.0 for name in "abcd"}
    assert time_left.of_session([], waiting, workers=8, gpus=2) == 20


def test_the_forecast_stands_in_where_no_row_of_a_campaign_for_gpus_has_run(make_campaign: Callable[..., Made]) -> None:
    made = make_campaign()
    made.layout.settings.write_text(made.layout.settings.read_text().replace("expected_gpus = 0", "expected_gpus = 1"))
    forecast = time_left.expected_seconds(made.spec, made.spec.enabled, resume=True)
    assert forecast["long_b1_e6"] > forecast["baseline_b1_e2"] > 0
    result = {"status": "fail", "reason": "timeout", "duration_sec": 60.0, "episodes": None}
    files.write_json(made.layout.run("baseline_b1_e2").result, result)
    assert time_left.expected_seconds(made.spec, made.spec.enabled, resume=True) == pytest.approx(
        {"baseline_b1_e2": 60, "long_b1_e6": 180, "wide_b4_e4": 30}
    )


def test_on_the_cpu_nothing_is_known_of_rows_before_one_has_run(made: Made) -> None:
    assert time_left.expected_seconds(made.spec, made.spec.enabled, resume=True) == {}
