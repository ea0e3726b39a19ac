"""State files that a crash, a full disk or a hand has damaged are set aside, and their row runs again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import campaigns
import pytest
from campaigns import Made

from tracka.core import files
from tracka.runs import row_state, run

ROW = "long_b1_e6"


def twice(content: bytes) -> bytes:
    """JSON with a key that is there twice: the second says that the row passed."""
    return content.rstrip().removesuffix(b"}") + b', "status": "pass"}'


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "list": lambda content: b"[]",
    "nested": lambda content: b'{"a":' * 100_000,
    "number": lambda content: b"1e999",
    "no text": lambda content: b"\xff\xfe" + content,
    "foreign": lambda content: content.replace(ROW.encode(), b"wide_b4_e4"),
}


def after_a_run(prepared: Path, folder: Path, *words: str) -> Made:
    """A campaign whose row was run once; `words` are what its stand-in does, now and later."""
    shutil.copytree(prepared, folder / "campaign")
    made = campaigns.make(folder / "campaign")
    made.behave(**{ROW: words})
    assert made.start_row(ROW).communicate()[0]  # its status
    return made


@pytest.fixture(scope="module")
def failed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign whose row failed twice, for copies, in which it will pass."""
    return after_a_run(prepared, tmp_path_factory.mktemp("failed"), "crash", "crash", "ok")


@pytest.fixture(scope="module")
def passed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign whose row passed, for copies."""
    return after_a_run(prepared, tmp_path_factory.mktemp("passed"), "ok")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_marker_is_set_aside_and_its_row_runs(
    failed: Made, copy_of: Callable[[Made], Made], damage: str
) -> None:
    made = copy_of(failed)
    path = made.layout.marker(ROW)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert made.run_row(ROW)["status"] == "pass"
    state = row_state.read(made.layout, ROW)
    assert state is not None and (state["status"], row_state.broken_steps(state)) == ("pass", [])
    assert path.with_name(f"{path.name}.damaged").exists()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["result", "manifest"])
def test_a_pass_whose_files_are_damaged_is_none_and_runs_again(
    passed: Made, copy_of: Callable[[Made], Made], name: str, damage: str
) -> None:
    made = copy_of(passed)
    path: Path = getattr(made.layout.run(ROW), name)
    content = path.read_bytes()
    path.unlink()  # the attempt's own file is the same one, where the campaign is no copy
    path.write_bytes(DAMAGES[damage](content))
    assert run.read_result(made.layout, ROW) is None
    assert made.run_row(ROW)["attempt"] == 2


def test_a_key_that_is_there_twice_makes_no_pass(ready: Made) -> None:
    ready.behave(**{ROW: ["crash"]})
    ready.run_row(ROW)
    path = ready.layout.run(ROW).result
    path.write_bytes(twice(path.read_bytes()))
    assert run.read_result(ready.layout, ROW) is None
    path = ready.layout.marker(ROW)
    path.write_bytes(twice(path.read_bytes()))
    assert row_state.read(ready.layout, ROW) is None


def test_a_damaged_attempt_manifest_of_a_killed_row_stops_nothing(ready: Made) -> None:
    ready.run_row(ROW)
    folder = ready.layout.run(ROW).attempt(2)
    folder.path.mkdir()
    folder.manifest.write_text("{")
    assert ready.run_row(ROW)["status"] == "pass"
    assert not folder.path.exists()  # kept under a name that no attempt has


def test_lines_of_json_that_name_a_pass_do_not_outvote_the_disk(ready: Made) -> None:
    """A result edited by hand is found: the evaluation's own file tells otherwise."""
    ready.run_row(ROW)
    path = ready.layout.run(ROW).result
    result = files.read_json(path) | {"successes": 6, "success_rate": 1.0}
    path.write_text(json.dumps(result))
    ended = ready.pytest("-n0", "-m", "phase3 or phase4")
    assert ended.returncode == 1 and ROW in ended.stdout
