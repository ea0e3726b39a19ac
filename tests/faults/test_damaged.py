"""Files that a crash, a full disk or a hand has damaged are set aside or made again, and their row runs again.

The table at the end damages every file that a session leaves, one a row or a folder, in every way, and gives each such
campaign one further `pytest acceptance`: it must be accepted again, with nothing deleted by hand.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import campaigns
import damages
import pytest
from campaigns import Made

from tracka.campaign.layout import PHASES
from tracka.core import damaged, files, lock
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


def test_a_result_that_is_damaged_before_the_marker_ended_stops_nothing(ready: Made) -> None:
    """The process died between the result and the marker, and the result was damaged later."""
    ready.behave(**{ROW: ["ok"]})
    ready.run_row(ROW)
    marker = files.read_json(ready.layout.marker(ROW))
    ended = marker | {"history": marker["history"][:-1], "status": "running", "ended_at_utc": None}
    for content in (b"", b"{}", ready.layout.run(ROW).attempt(1).result.read_bytes().replace(b"long", b"wide")):
        files.write_json(ready.layout.marker(ROW), ended | {"result_path": None, "result_sha256": None})
        last = ready.layout.run(ROW).numbers()[-1]
        damages.damage(ready.layout.run(ROW).attempt(last).result, "other", content)
        assert ready.run_row(ROW)["status"] == "pass"
        assert ready.evidence(ROW) == []


def test_what_is_set_aside_keeps_its_content_and_its_predecessors(tmp_path: Path) -> None:
    for content in ("a", "b", "c"):
        (tmp_path / "x.json").write_text(content)
        damaged.set_aside(tmp_path / "x.json")
    damaged.set_aside(tmp_path / "x.json")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "x.json.damaged": "a",
        "x.json.damaged.2": "b",
        "x.json.damaged.3": "c",
    }


def test_a_folder_in_the_place_of_a_file_makes_way_and_is_kept(tmp_path: Path) -> None:
    for name in ("whole", "copy", "lock"):
        (tmp_path / name / "inside").mkdir(parents=True)
    files.write_text(tmp_path / "whole", "new")
    files.copy_atomic(tmp_path / "whole", tmp_path / "copy")
    lock.open_lock_file(tmp_path / "lock").close()
    assert [(tmp_path / name).is_file() for name in ("whole", "copy", "lock")] == [True] * 3
    assert [(tmp_path / f"{name}.damaged" / "inside").is_dir() for name in ("whole", "copy", "lock")] == [True] * 3


# whole sessions

FIRST = "baseline_b1_e2"
ACCEPTED = "verdict: accepted"
VERDICT = "\n[verdict]\nthreshold = 0.1\n"


def finished(folder: Path, rows: int) -> Made:
    """A campaign that was accepted: a baseline and so many rows, each of which crashed once and then passed.

    The rows have records of their episodes, as those of the resident engine and of `record_actions` have.
    """
    names = [f"row{number:02}_b1_e2" for number in range(rows)]
    lines = [f"{name},libero_object,1,2,cpu,{number},egl,checkpoints/fake,1" for number, name in enumerate(names)]
    made = campaigns.make(folder, [campaigns.ROWS[0], *lines], campaigns.SETTINGS + VERDICT)
    made.behave(**{FIRST: ["ok:2"]}, **{name: ["crash", "filmed:0=0,1"] for name in names})
    assert ACCEPTED in made.pytest("-n0").stdout
    return made


def rows_of(made: Made) -> list[str]:
    return [row.run_id for row in made.spec.enabled if row.run_id != FIRST]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An accepted campaign of a baseline and one row, to be copied."""
    return finished(tmp_path_factory.mktemp("small") / "campaign", 1)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An accepted campaign with as many rows as a row has files, and one more, to be copied."""
    files_of_a_row = 29
    return finished(tmp_path_factory.mktemp("large") / "campaign", files_of_a_row)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_session_heals_folders_in_the_place_of_files_and_says_so(
    small: Made, copy_of: Callable[[Made], Made]
) -> None:
    made = copy_of(small)
    row = rows_of(made)[0]
    for path in (made.layout.run(row).result, made.layout.handoff("phase2"), made.layout.plan):
        damages.damage(path, "folder", b"")
    ended = made.pytest("-n0")
    assert (ended.returncode, ACCEPTED in ended.stdout) == (0, True), ended.stdout
    assert "healed: phase2_handoff.json was damaged; it was made again" in ended.stdout
    assert "healed: plan.md was damaged" in ended.stdout
    assert f"healed: {row} ran again, because the files of attempt 2 no longer showed its pass" in ended.stdout
    again = made.pytest("-n0")
    assert (again.returncode, "healed:" in again.stdout) == (0, False)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", damages.KINDS)
def test_one_session_heals_any_file_of_a_row(large: Made, copy_of: Callable[[Made], Made], kind: str) -> None:
    made = copy_of(large)
    rows = rows_of(made)
    names = damages.row_files(made, rows[0])
    assert 15 < len(names) <= len(rows), "give `large` as many rows as a row has files"
    damages.damage_each_row(made, kind, rows, names)
    ended = made.pytest("-n0", "-q")
    assert (ended.returncode, ACCEPTED in ended.stdout) == (0, True), ended.stdout


STATE, REPEATED = "artifacts/state/", pytest.mark.repeated


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", damages.KINDS)
@pytest.mark.parametrize("part", ["state", *(pytest.param(part, marks=REPEATED) for part in ("others", "cache"))])
def test_one_session_heals_the_files_of_a_campaign(
    small: Made, copy_of: Callable[[Made], Made], kind: str, part: str
) -> None:
    """The files of the state, each of which makes phases run again; all others, such as tables, pages, preflight,
    locks; and what is kept in the user's cache.
    """
    made = copy_of(small)
    names = damages.campaign_files(made, [FIRST, *rows_of(made)])
    of_state = [name for name in names if name.startswith(STATE) and "locks" not in name]
    parts = {"state": of_state, "others": [name for name in names if name not in of_state]}
    chosen = parts.get(part) or damages.cached_files(made)
    assert len(chosen) > 5
    damages.damage_all(made, kind, chosen)
    ended = made.pytest("-n0", "-q")
    assert (ended.returncode, ACCEPTED in ended.stdout) == (0, True), ended.stdout
    assert made.pytest("-n0", "-q").returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("phase", PHASES)
def test_one_session_heals_each_handoff_alone(small: Made, copy_of: Callable[[Made], Made], phase: str) -> None:
    """Of another campaign, too: its name, its inputs and their hashes are not this one's."""
    made = copy_of(small)
    handoff = made.layout.handoff(phase)
    foreign = handoff.read_bytes().replace(b"row00", b"row99")
    foreign = re.sub(rb"[0-9a-f]{64}", lambda found: bytes(reversed(found[0])), foreign)
    for kind in damages.KINDS:
        damages.damage(handoff, kind, foreign)
        ended = made.pytest("-n0", "-q")
        assert (ended.returncode, ACCEPTED in ended.stdout) == (0, True), f"{kind}: {ended.stdout}"


LOST = {
    "a row's result": "artifacts/runs/{row}/result.json",
    "a row's record": "artifacts/runs/{row}/attempts/2/eval/episodes.jsonl",
    "a handoff": "artifacts/state/phase2_handoff.json",
    "preflight": "artifacts/preflight/preflight.json",
    "pytest's list": ".cache/v/cache/lastfailed",
    "our own list": ".cache/v/tracka/lastfailed",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("lost", LOST)
def test_the_last_failed_tests_after_a_damage_lead_to_accepted(
    small: Made, copy_of: Callable[[Made], Made], lost: str
) -> None:
    made = copy_of(small)
    path = made.root / LOST[lost].format(row=rows_of(made)[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    # A cut file; in our own list a list, too, which pytest itself does not take in its own.
    path.write_text("[1]\n" if lost == "our own list" else '{"acceptance": tr')
    ended = made.pytest("-n0", "-q", "--lf")
    assert (ended.returncode, ACCEPTED in ended.stdout) == (0, True), ended.stdout
