"""Where a session stands, by its files: what a worker does, which GPU is idle, and what waits for what."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from campaigns import Made

from tracka.campaign.matrix import CPU
from tracka.core import files, lock
from tracka.execution import gpu, lease
from tracka.reporting.live_state import Busy, LiveState, Waiting, Watcher
from tracka.reporting.live_table import LiveTable
from tracka.reporting.live_words import line
from tracka.runs import row_state
from tracka.runs.session_rows import SessionRows

BASELINE, LONG, WIDE = "baseline_b1_e2", "long_b1_e6", "wide_b4_e4"
GPU_ROWS = [f"row{number},libero_object,1,3,{place},7,egl,checkpoints/fake,1" for number, place in enumerate("0001")]


def start(made: Made, run_id: str, gpu_id: int = CPU) -> None:
    """Leaves what a row leaves that has begun its first attempt."""
    row_state.ensure_pending_held(made.layout, run_id)
    row_state.advance(made.layout, run_id, "running", 1, gpu_id=gpu_id)
    files.write_json(made.layout.run(run_id).manifest, {"worker": "gw3"})


def end(made: Made, run_id: str, status: str = "pass", episodes: int | None = None) -> None:
    result = {"status": status, "episodes": episodes, "duration_sec": 30.0, "reason": None}
    files.write_json(made.layout.run(run_id).result, result)
    row_state.advance(made.layout, run_id, status, 1)


def watcher(made: Made) -> Watcher:
    return Watcher(made.spec, SessionRows(made.spec.enabled, ("gw0", "gw3"), phase="phase4"))


def test_a_row_that_has_begun_starts_plays_and_is_judged(made: Made) -> None:
    watch = watcher(made)
    watch.session.begin(LONG)
    assert [(each.name, each.doing) for each in watch.look().busy] == [(LONG, "starts")]
    start(made, LONG)
    (playing,) = watch.look().busy
    assert (playing.device, playing.worker, playing.doing, playing.episodes) == ("cpu", "gw3", "", 6)
    assert watch.look().idle == ("gw0",)
    end(made, LONG, episodes=6)
    judged = watch.look()
    assert [each.doing for each in judged.busy] == ["is judged"]
    assert judged.played == 6
    watch.session.end(LONG, passed=True)
    assert (watch.look().ended, watch.look().busy, watch.look().played) == (1, (), 6)


def test_a_look_before_a_rows_manifest_or_result_is_there_is_made_up_for_by_the_next(made: Made) -> None:
    watch = watcher(made)
    watch.session.begin(LONG)
    start(made, LONG)
    manifest = made.layout.run(LONG).manifest
    manifest.rename(manifest.with_name("later"))
    assert [each.worker for each in watch.look().busy] == [""]
    manifest.with_name("later").rename(manifest)
    assert [each.worker for each in watch.look().busy] == ["gw3"]
    row_state.advance(made.layout, LONG, "pass", 1)
    watch.session.end(LONG, passed=True)
    assert watch.look().played == 0
    files.write_json(made.layout.run(LONG).result, {"episodes": 6})
    assert watch.look().played == 6


def test_a_row_that_failed_before_the_session_waits_and_one_that_passed_is_done(made: Made) -> None:
    for run_id, status in ((LONG, "fail"), (WIDE, "pass")):
        start(made, run_id)
        end(made, run_id, status, 6)
    state = watcher(made).look()
    assert (state.ended, state.failed) == (1, 0)
    assert state.waiting == (Waiting("a free worker", (BASELINE, LONG)),)


def test_a_row_that_does_not_reach_its_threshold_counts_as_failed(made: Made) -> None:
    watch = watcher(made)
    watch.session.begin(LONG)
    watch.session.end(LONG, passed=False)
    assert (watch.look().ended, watch.look().failed) == (1, 1)


def test_the_time_left_is_said_as_soon_as_it_is_known(made: Made) -> None:
    watch = watcher(made)
    watch.session.begin(BASELINE)
    assert watch.look().seconds_left is None
    start(made, BASELINE)
    end(made, BASELINE, episodes=2)
    watch.session.end(BASELINE, passed=True)
    assert watch.look().seconds_left == pytest.approx(90)  # 30 s for two episodes: the longest row has six


def test_while_an_earlier_phase_runs_its_end_is_what_rows_wait_for(made: Made) -> None:
    watch = watcher(made)
    watch.session.phase = "phase2"
    watch.session.steps["a backend renders a libero frame"] = time.time() - 5
    state = watch.look()
    assert state.waiting == (Waiting("the end of phase2", (BASELINE, LONG, WIDE)),)
    assert [(each.name, each.doing) for each in state.busy] == [("a backend renders a libero frame", "runs")]
    assert state.idle == ()


@pytest.fixture
def on_gpus(make_campaign: Callable[..., Made], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Made:
    monkeypatch.setenv(gpu.PRETEND, "3")
    monkeypatch.setenv(lease.LOCKS, str(tmp_path / "locks"))
    made = make_campaign(GPU_ROWS)
    text = made.layout.settings.read_text()
    made.layout.settings.write_text(text.replace(BASELINE, "row0").replace("expected_gpus = 0", "expected_gpus = 3"))
    return made


def test_gpus_without_a_row_are_idle_and_a_pinned_row_waits_for_the_row_on_its_gpu(on_gpus: Made) -> None:
    watch = watcher(on_gpus)
    watch.session.begin("row0")
    start(on_gpus, "row0", gpu_id=0)
    state = watch.look()
    assert state.idle == ("GPU 1", "GPU 2")
    assert state.waiting == (
        Waiting("GPU 0, where row0 runs", ("row1", "row2")),
        Waiting("a worker for GPU 1", ("row3",)),
    )


def test_a_row_whose_gpu_another_process_has_says_which_and_one_that_has_its_own_starts(on_gpus: Made) -> None:
    watch = watcher(on_gpus)
    watch.session.begin("row3")
    path = Path(os.environ[lease.LOCKS]) / f"{gpu.PRETENDED}1.lock"
    with lock.hold(path, "GPU 1", shared=True) as file:
        lock.sign(file, "process 4242")
        assert [(each.device, each.doing) for each in watch.look().busy] == [("GPU 1", "waits for process 4242")]
        lock.sign(file, f"process {os.getpid()}")
        with row_state.lock(on_gpus.layout, "row3"):
            assert [each.doing for each in watch.look().busy] == ["starts"]
    assert [each.doing for each in watch.look().busy] == ["starts"]  # nobody has the GPU any more


# the table and the line

BUSY = tuple(
    Busy(f"object_t{number}_b10_e50", 60.0, f"GPU {number}", f"gw{number}", "", 1, 10, 9, 50, 240.0)
    for number in range(8)
)
WAITING = (Waiting("a free GPU", tuple(f"row{number}" for number in range(9))),)
STATE = LiveState("my-policy", "phase4", 3725.0, 4000.0, 30, 7, 1, 1500, 430, BUSY, (), WAITING)


def table(state: LiveState, width: int = 100, height: int = 40) -> list[str]:
    lines = LiveTable(colour=False).lines(state, width, height)
    assert len(lines) <= height and max(map(len, lines)) <= width
    return lines


def test_the_table_has_the_campaign_a_line_for_each_gpu_and_what_waits() -> None:
    head, columns, *gpus, waiting = table(STATE, width=120)
    assert head == (
        "my-policy phase4, 7 of 30 rows ended (1 failed), 430 of 1500 episodes, about 1:06:40 left, elapsed 1:02:05"
    )
    assert columns.split() == ["device", "worker", "row", "episodes", "succeeded", "elapsed", "left"]
    assert " ".join(gpus[3].split()) == "GPU 3 gw3 object_t3_b10_e50 10 of 50 90% (60 to 98) 1:00 4:00"
    assert len(gpus) == 8
    assert waiting == "waiting: 9 rows for a free GPU: row0, row1, row2, ..."


@pytest.mark.parametrize("width", [120, 79, 60, 40])
def test_on_a_narrow_terminal_the_row_its_episodes_and_the_time_left_stay(width: int) -> None:
    lines = table(STATE, width)
    assert all(name in lines[1] for name in ("row", "episodes", "left"))
    assert all(part in lines[2] for part in ("object_t0", "10 of 50", "4:00"))


def test_on_a_low_terminal_the_table_says_how_many_lines_are_missing() -> None:
    lines = table(STATE, height=6)
    assert lines[-2:] == [
        "and 6 more: the terminal is too low for them",
        "waiting: 9 rows for a free GPU: row0, row1, row2, ...",
    ]


def test_an_attempt_after_the_first_is_named() -> None:
    state = replace(STATE, busy=(replace(BUSY[0], attempt=2),))
    assert "object_t0_b10_e50 (attempt 2)" in table(state)[2]


def test_a_name_cannot_move_the_cursor_nor_break_a_line() -> None:
    hostile = replace(STATE, campaign="a\x1b[2J\nb\u202e\N{CJK UNIFIED IDEOGRAPH-6A5F}")
    assert table(hostile)[0].startswith("a b? phase4, ")
    assert line(hostile).startswith("a b") and "\x1b" not in line(hostile) and "\n" not in line(hostile)


def test_the_line_has_all_of_it_but_the_names_of_rows_that_wait() -> None:
    assert line(replace(STATE, busy=BUSY[:1], idle=("GPU 1",))) == (
        "my-policy phase4, 7 of 30 rows ended (1 failed), 430 of 1500 episodes, about 1:06:40 left, elapsed 1:02:05; "
        "GPU 0 object_t0_b10_e50 10 of 50 episodes, 90% (60 to 98); GPU 1 idle; waiting: 9 rows for a free GPU"
    )


@pytest.mark.parametrize(("doing", "said"), [("", " 10 of 50 episodes, step 150 of 280, 90%"), ("is judged", "judged")])
def test_the_line_has_the_step_while_a_batch_plays(doing: str, said: str) -> None:
    text = line(replace(STATE, busy=(replace(BUSY[0], steps=(150, 280), doing=doing),)))
    assert said in text and ("step" in text) == (not doing)
