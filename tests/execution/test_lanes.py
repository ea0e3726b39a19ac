"""Steps side by side: all of them end at once where their caller fails, and none is left behind."""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path

import pytest
from processes import is_alive, wait_until

from tracka.execution import process
from tracka.execution.lanes import Lanes
from tracka.execution.process import Bounds, Exit

SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"


def child(folder: Path, code: str = SLEEP) -> Exit:
    """Runs Python on `code` with its output in `folder`."""
    folder.mkdir()
    out, err = folder / "out", folder / "err"
    words = [sys.executable, "-c", code]
    return process.run(words, cwd=folder, env=dict(os.environ), stdout=out, stderr=err, bounds=Bounds(60))


def pids(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in folder.glob("*/out") if path.read_text().endswith("\n")]


def interrupted(lanes: Lanes, folder: Path, *steps: Callable[[], object]) -> list[Future[object]]:
    """Begins the steps in the lanes, and raises what Ctrl-C raises once a child runs; returns how the steps ended."""
    futures: list[Future[object]] = []
    with pytest.raises(KeyboardInterrupt), lanes:
        futures += map(lanes.submit, steps)
        wait_until(lambda: bool(pids(folder)))
        raise KeyboardInterrupt
    return futures


def test_where_the_caller_is_interrupted_children_are_ended_and_waiting_steps_are_not_begun(tmp_path: Path) -> None:
    began = time.monotonic()
    running, waiting = interrupted(
        Lanes(1), tmp_path, lambda: child(tmp_path / "running"), lambda: child(tmp_path / "waiting")
    )
    assert time.monotonic() - began < 10
    assert isinstance(running.exception(), CancelledError) and waiting.cancelled()
    assert not any(map(is_alive, pids(tmp_path))) and not (tmp_path / "waiting").exists()


def test_lanes_of_a_step_end_with_those_around_them_and_no_further_child_is_started(tmp_path: Path) -> None:
    def several() -> None:
        with Lanes(1) as inner:
            list(inner.map(lambda name: child(tmp_path / name), ("first", "second")))

    def one_after_the_other() -> None:
        try:
            child(tmp_path / "third")
        finally:
            child(tmp_path / "fourth")

    began = time.monotonic()
    ended = interrupted(Lanes(2), tmp_path, several, one_after_the_other)
    assert time.monotonic() - began < 10
    assert all(isinstance(step.exception(), CancelledError) for step in ended)
    assert not any(map(is_alive, pids(tmp_path)))
    assert not (tmp_path / "second").exists() and not (tmp_path / "fourth" / "out").exists()


def test_lanes_that_are_left_in_peace_wait_for_their_steps(tmp_path: Path) -> None:
    with Lanes(2) as lanes:
        steps = [lanes.submit(child, tmp_path / name, "print(1)") for name in ("one", "other")]
    assert [step.result().code for step in steps] == [0, 0]
