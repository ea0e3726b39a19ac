"""Recorded episodes played again: what the command says and leaves, what it refuses, and the films of the page."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import REPOSITORY, Made, contents
from pages import Page
from processes import wait_until

from tracka.core import files, schema
from tracka.report_page import page
from tracka.runs import replays

ROW = "long_b1_e12"  # lerobot-eval films the first ten episodes of a task
ROWS = (
    f"{ROW},libero_object,1,12,cpu,7,egl,checkpoints/fake,1",
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
)


@pytest.fixture
def played(ready: Made, make_campaign: Callable[..., Made], monkeypatch: pytest.MonkeyPatch) -> Made:
    """A campaign whose row has played twelve recorded episodes, of which 1 and 11 succeeded."""
    made = make_campaign(rows=ROWS)
    made.behave(**{ROW: ["filmed:0=1,11"]})
    assert made.run_row(ROW)["status"] == "pass"
    monkeypatch.setattr(replays, "PROGRAM", "fixtures.standin.replay")
    return made


def replay(
    made: Made, *words: str, row: str = ROW, task: int = 0, episode: int = 1
) -> subprocess.CompletedProcess[str]:
    named = ("--task", str(task), "--episode", str(episode))
    return made.call("replay", row, *named, "--root", str(made.root), *words)


def replay_file(made: Made, episode: int) -> Path:
    return made.root / "replays" / "_episodes" / ROW / "libero_object_0" / f"replay_of_episode_{episode}.json"


def test_a_replay_that_goes_as_recorded_exits_with_0_and_leaves_a_film_and_its_judgement(played: Made) -> None:
    before = contents(played.layout.artifacts)
    ended = replay(played)
    assert ended.returncode == 0, ended.stderr
    assert f"{ROW}, libero_object task 0, episode 1: succeeded after 35 steps, as recorded, to the bit" in ended.stdout
    kept = schema.read_or_empty("replay", replay_file(played, 1))
    film = played.root / kept["film"]
    assert kept["same_bits"] and kept["film_sha256"] == files.sha256_file(film) and str(film) in ended.stdout
    assert contents(played.layout.artifacts) == before
    assert [path.name for path in film.parents[2].iterdir()] == [ROW]  # nothing else is left


def test_other_bits_with_the_recorded_outcome_exit_with_0_and_another_outcome_with_1(played: Made) -> None:
    played.behave(replay=["bits"])
    ended = replay(played)
    assert ended.returncode == 0
    assert "succeeded after 35 steps, the outcome that was recorded, but not the bits: another" in ended.stdout
    played.behave(replay=["outcome"])
    ended = replay(played, episode=0)
    assert ended.returncode == 1
    assert "succeeded after 30 steps, but the record says that it failed after 30 steps" in ended.stdout


KILLED = """
from tracka import cli
from tracka.runs import replays
replays.PROGRAM = "fixtures.standin.replay"
cli.main()
"""


def test_the_next_command_removes_what_a_killed_replay_has_left(
    played: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.behave(replay=["hang"])
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = ("replay", ROW, "--task", "0", "--episode", "1", "--root", str(played.root))
    environ = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", KILLED, *words], cwd=REPOSITORY, env=environ) as owner:
        wait_until(lambda: list(temporary.glob("*/answers.jsonl")))
        monkeypatch.setattr("tempfile.tempdir", str(temporary))
        played.call("why", ROW, "--root", str(played.root))
        assert list(temporary.glob("*/answers.jsonl"))  # its owner lives
        owner.kill()
    played.call("why", ROW, "--root", str(played.root))
    assert list(temporary.iterdir()) == []


def test_a_replay_that_crashes_exits_with_1_and_its_cause(played: Made) -> None:
    played.behave(replay=["crash"])
    ended = replay(played)
    assert ended.returncode == 1 and "the stand-in was told to crash" in ended.stderr
    assert not replay_file(played, 1).exists()


def test_what_cannot_be_played_again_is_refused_with_2_and_the_remedy(played: Made) -> None:
    played.run_row("baseline_b1_e2")  # without a record
    told = {
        "was not recorded": replay(played, row="baseline_b1_e2"),
        "record_actions = true": replay(played, row="baseline_b1_e2"),
        "an episode from 0 to 11": replay(played, episode=12),
        "Name a task of 0": replay(played, task=3),
        "the matrix has no row": replay(played, row="nobody"),
    }
    assert {ended.returncode for ended in told.values()} == {2}
    assert [words for words, ended in told.items() if words not in ended.stderr] == []
    assert not (played.root / "replays").exists()


def test_a_row_that_has_not_run_is_refused_with_the_command_that_runs_it(made: Made) -> None:
    ended = replay(made, row="long_b1_e6")
    assert ended.returncode == 2 and "the row has not run. Run it: pytest --pyargs tracka.acceptance" in ended.stderr


def test_actions_that_are_not_those_of_the_record_are_refused(played: Made) -> None:
    folder = played.layout.run(ROW).attempt(1).output / "actions"
    (folder / "libero_object_0_1.npy").write_bytes((folder / "libero_object_0_2.npy").read_bytes())
    ended = replay(played)
    assert ended.returncode == 2 and "these are not the actions of episodes.jsonl" in ended.stderr


def test_the_page_films_failures_on_request_marks_them_and_gives_the_command_of_the_episode(played: Made) -> None:
    ended = played.call("report", str(played.root), "--film", "failures")
    assert ended.returncode == 0 and "1 episode was filmed by replay" in ended.stdout  # 10; 11 succeeded
    shown = {episode["number"]: episode for episode in Page(played.layout.report_page).data["episodes"]}
    marked = {number: (episode["video"] is not None, episode["replayed"]) for number, episode in shown.items()}
    assert {number: marked[number] for number in (9, 10, 11)} == {
        9: (True, False),
        10: (True, True),
        11: (False, False),
    }
    assert shown[11]["replay"] == f"tracka replay {ROW} --task 0 --episode 11 --root {played.root}"
    again = played.call("report", str(played.root), "--film", "failures")
    assert "filmed" not in again.stdout  # what is filmed stays


def test_the_setting_films_what_the_engine_did_not_film(played: Made) -> None:
    played.configure('[report]\nvideos = "all"')
    played.behave(replay=["same", "crash"])
    ended = played.call("report", str(played.root))
    assert "1 of 2 episodes were filmed by replay; 1 are left out: the replay failed" in ended.stdout
    assert not page.is_current(played.spec, played.root / "nothing.html") and played.layout.report_page.is_file()


def test_an_unknown_choice_of_films_is_refused_with_2(played: Made) -> None:
    ended = played.call("report", str(played.root), "--film", "some")
    assert ended.returncode == 2 and "Use one of all, failures, none" in ended.stderr
