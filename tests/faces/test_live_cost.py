"""What the view of a session costs: less than 1% of a core, by its own thread's clock."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY

from fixtures import terminal
from tracka import live_view
from tracka.execution import gpu, lease

# Runs `tracka` and writes how long its view has lasted, how much of a core it took, and how often it drew.
COUNTED = """
import json, sys, time
from pathlib import Path
from tracka import cli, live_view
repeat, path = live_view._repeat, Path(sys.argv.pop(1))
def counted(step, period, ended):
    start, draws = time.monotonic(), []
    repeat(lambda: draws.append(step()), period, ended)
    path.write_text(json.dumps([time.monotonic() - start, time.thread_time(), len(draws)]))
live_view._repeat = counted
cli.main()
"""


def row(number: int, episodes: int) -> str:
    return f"row{number}_b1_e{episodes},libero_object,1,{episodes},{number},7,egl,checkpoints/fake,1"


@pytest.mark.slow
def test_a_minute_of_eight_gpus_takes_less_than_a_hundredth_of_a_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row prints ten progress lines a second, as lerobot-eval does."""
    for name, value in ((gpu.PRETEND, "8"), (lease.LOCKS, str(tmp_path / "locks"))):
        monkeypatch.setenv(name, value)
    rows = [row(number, 60) for number in range(8)]
    settings = campaigns.SETTINGS.replace("expected_gpus = 0", "expected_gpus = 8").replace(
        "row_secs = 60", "row_secs = 600"
    )
    settings = settings.replace('"baseline_b1_e2"', '"row0_b1_e60"')
    made = campaigns.make(tmp_path / "campaign", rows, settings)
    made.behave(**{line.partition(",")[0]: ["paced:1"] for line in rows})
    for name, value in made.environ.items():
        monkeypatch.setenv(name, value)
    made.pass_preflight()
    environ = {name: value for name, value in os.environ.items() if name not in live_view.CI}
    command = [sys.executable, "-c", COUNTED, str(tmp_path / "cost.json"), *made.sweep_words()]
    with terminal.opened(command, REPOSITORY, environ) as session:
        assert "8 of 8 rows passed" in "\n".join(session.end())
    seconds, of_a_core, draws = json.loads((tmp_path / "cost.json").read_text())
    print(f"{seconds:.0f} s, of a core {of_a_core:.3f} s ({of_a_core / seconds:.2%}), {draws} draws")
    assert seconds > 60 and draws > 10
    assert of_a_core < 0.01 * seconds


def test_a_view_that_takes_long_is_drawn_less_often() -> None:
    ended, calls = threading.Event(), list[float]()

    def draw() -> None:
        calls.append(time.monotonic())
        start = time.thread_time()
        while time.thread_time() - start < 0.01:
            pass

    thread = threading.Thread(target=live_view._repeat, args=(draw, 0.001, ended))
    thread.start()
    while len(calls) < 2:
        time.sleep(0.05)
    ended.set()
    thread.join()
    assert calls[1] - calls[0] >= 0.01 / live_view.SHARE


def test_a_failure_to_show_ends_neither_the_view_nor_the_session() -> None:
    calls = list[int]()

    def draw() -> None:
        calls.append(1)
        raise OSError("the disk is away")

    with live_view._repeated(draw, 0.001):
        while len(calls) < 3:
            time.sleep(0.01)
    assert "live view" not in {thread.name for thread in threading.enumerate()}
