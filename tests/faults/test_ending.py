"""However a session is asked to end, its rows are closed as interrupted and nobody reads a traceback."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY, Made
from processes import wait_for_the_end_of, wait_until

from fixtures import terminal
from fixtures.terminal import Terminal, close_terminal, press_twice
from tracka.core import files, lock
from tracka.runs import row_state

ROW = "long_b1_e6"
End = Callable[[Terminal], None]


def send(number: signal.Signals) -> End:
    return lambda screen: screen.process.send_signal(number)


def command(made: Made, kind: str) -> list[str]:
    if kind == "sweep":
        return ["tracka", *made.sweep_words("--rows", ROW, "--resume")]
    if kind == "run":
        return ["tracka", *campaigns.run_words(made)]
    phases = ["-m", "phase3 or phase4"]
    return ["pytest", "acceptance", "--campaign", str(made.root), *phases, f"-n{kind[-1]}", "-p", "no:cacheprovider"]


@contextmanager
def running(made: Made, kind: str) -> Iterator[Terminal]:
    """A session on a terminal of its own whose rows have begun and would take a minute."""
    made.behave(**{run_id: ["slow:60"] for run_id in ("baseline_b1_e2", ROW, "wide_b4_e4")})
    words = [sys.executable, "-m", *command(made, kind)]
    with terminal.opened(words, REPOSITORY, {**os.environ, **made.environ}) as screen:
        wait_until(lambda: bool(made.started()) or screen.process.poll() is not None, 60)
        assert screen.process.poll() is None, screen.end()
        yield screen


SLOW = pytest.mark.slow
INTERRUPTED = {"sweep": 130, "run": 130, "gates0": 2, "gates2": 2}  # exit codes
WAYS = [
    pytest.param("sweep", press_twice, id="sweep-two_ctrl_c"),
    pytest.param("run", press_twice, id="run-two_ctrl_c", marks=SLOW),
    pytest.param("gates0", press_twice, id="gates-two_ctrl_c"),
    pytest.param("gates2", press_twice, id="gates_under_xdist-two_ctrl_c", marks=SLOW),
    pytest.param("sweep", close_terminal, id="sweep-closed_terminal", marks=SLOW),
    pytest.param("run", close_terminal, id="run-closed_terminal"),
    pytest.param("gates0", close_terminal, id="gates-closed_terminal"),
    pytest.param("gates2", close_terminal, id="gates_under_xdist-closed_terminal", marks=SLOW),
    pytest.param("run", send(signal.SIGTERM), id="run-term", marks=SLOW),
    pytest.param("sweep", send(signal.SIGHUP), id="sweep-hup", marks=SLOW),
    pytest.param("gates2", send(signal.SIGHUP), id="gates_under_xdist-hup", marks=SLOW),
]


@pytest.fixture(autouse=True)
def hang_up_is_not_ignored() -> Iterator[None]:
    """Lets programs start as from a shell, where these tests themselves run behind nohup too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("kind", "end"), WAYS)
def test_a_session_that_is_asked_to_end_closes_its_rows_and_shows_no_traceback(
    ready: Made, kind: str, end: End
) -> None:
    with running(ready, kind) as screen:
        end(screen)
        text = "" if end is close_terminal else "\n".join(screen.end())
        screen.process.wait(60)
    assert "Traceback" not in text and "Error" not in text, text
    assert screen.process.returncode == INTERRUPTED[kind], text
    if kind.startswith("gates") and text:
        flat = text.replace("\n", "")  # the terminal has broken the lines
        assert "phase3: blocked, interrupted" in flat or "phase4: partial, interrupted" in flat
        assert "--lf goes on where the session was interrupted, in phase" in flat
        assert "stderr.log says why" not in flat and "mend the cause" not in flat
    wait_for_the_end_of(ready.root, 5)
    for run_id in set(ready.started()):
        state = row_state.read(ready.layout, run_id)
        assert state is not None and (state["status"], state["reason"]) == ("fail", "interrupted")
        assert row_state.broken_steps(state) == []
        assert ready.results(run_id) == [("fail", "interrupted")]
        assert not lock.is_held(ready.layout.locks / f"{run_id}.lock")


def test_a_hang_up_that_a_sweep_was_told_to_ignore_is_ignored(ready: Made) -> None:
    ready.behave(**{ROW: ["slow:1.5"]})
    words = ["bash", "-c", 'trap "" HUP; exec "$@"', "-", sys.executable, "-m", *command(ready, "sweep")]
    with terminal.opened(words, REPOSITORY, {**os.environ, **ready.environ}) as screen:
        wait_until(lambda: bool(ready.started()))
        screen.process.send_signal(signal.SIGHUP)
        assert "1 of 1 rows passed" in "\n".join(screen.end())
    assert screen.process.returncode == 0


def test_a_state_file_that_cannot_be_written_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(OSError, match=r"'.*/state(/state\.json)?'$"):
        files.write_json(tmp_path / "state" / "state.json", {})
    assert list(tmp_path.iterdir()) == [tmp_path / "state"]
