"""A cut-off row of the resident engine goes on with the episodes that are missing, and nobody can tell by its results.

The engine's part is played by a stand-in that records and resumes as the engine does; tests/faults has the real one.
"""

import csv
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import campaigns
import pytest
import resident_rows
from campaigns import STANDIN, Made
from resident_rows import ROW, ROWS

from tracka.core import files
from tracka.engines import episode_lines, lerobot_eval
from tracka.execution import process
from tracka.reporting import caveats, collect
from tracka.runs import early_stop, replays, run
from tracka.runs.endings import NoLongerWanted, SessionStop
from tracka.runs.run import RerunPolicy

SETTINGS = f"{resident_rows.SETTINGS}\n[timeouts]\nrow_secs = 60\ngrace_secs = 1\n"
Line = dict[str, Any]
ONCE = RerunPolicy(resume=True, retry=False)
NEW = RerunPolicy(allow_overwrite=True, retry=False)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The campaign after phases 1 and 2, with a folder in which its row has run without a disturbance."""
    made = campaigns.make(tmp_path_factory.mktemp("resume") / "campaign", ROWS, SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environ.items():
            patch.setenv(name, value)
        made.pass_preflight()
        stand_in(patch)
        assert play(made, "ok")["status"] == "pass"
        files.write_json(made.root / "undisturbed.json", {**essence(made, 1)})
    forget(made)
    return made


@pytest.fixture(scope="module")
def resumed_row(prepared: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The campaign with a row that was killed after five episodes and then went on."""
    made = campaigns.copied(prepared, tmp_path_factory.mktemp("resumed"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environ.items():
            patch.setenv(name, value)
        stand_in(patch)
        play(made, "die:5")
        assert play(made, "die:5", "ok")["status"] == "pass" and made.evidence(ROW) == []
    return made


@pytest.fixture
def row(prepared: Made, copy_of: Callable[[Made], Made], monkeypatch: pytest.MonkeyPatch) -> Made:
    stand_in(monkeypatch)
    return copy_of(prepared)


@pytest.fixture
def undisturbed(row: Made) -> Mapping[str, Any]:
    """What the row finds out where nobody disturbs it."""
    return files.read_json(row.root / "undisturbed.json")


def stand_in(patch: pytest.MonkeyPatch) -> None:
    real = process.python

    def python(module: str, *words: str) -> list[str]:
        is_engine = module == "tracka.engines.resident"
        return [sys.executable, str(STANDIN / "resident.py")] if is_engine else real(module, *words)

    patch.setattr(process, "python", python)


def forget(made: Made) -> None:
    """Takes the row's run away, with its marker."""
    shutil.rmtree(made.layout.run(ROW).path)
    made.layout.marker(ROW).unlink()


def play(made: Made, *words: str, policy: RerunPolicy = ONCE) -> Line:
    """Plays the row's next attempt, or its next two, as the words of all its attempts say."""
    made.behave(**{ROW: words})
    return dict(made.run_row(ROW, policy))


def output(made: Made, attempt: int) -> Path:
    return made.layout.run(ROW).attempt(attempt).output


def lines(made: Made, attempt: int) -> list[Line]:
    return episode_lines.whole(output(made, attempt) / "episodes.jsonl")


def played(made: Made, attempt: int) -> list[tuple[int, int]]:
    """The tasks and numbers of the episodes that the attempt itself has played."""
    return [(line["task"], line["episode"]) for line in lines(made, attempt) if "attempt" not in line]


def kept(made: Made, attempt: int) -> dict[tuple[int, int], int]:
    """The episodes that the attempt has kept, and of which attempts."""
    return {(line["task"], line["episode"]): line["attempt"] for line in lines(made, attempt) if "attempt" in line}


def essence(made: Made, attempt: int) -> Mapping[str, Any]:
    """What the attempt found out, without times and places."""
    found = {(line["task"], line["episode"]): line for line in lines(made, attempt)}
    assert len(found) == len(lines(made, attempt))
    info = json.loads((output(made, attempt) / "eval_info.json").read_text())
    for part in (info["overall"], *info["per_group"].values(), *(task["metrics"] for task in info["per_task"])):
        for name in ("eval_s", "eval_ep_s", "video_paths"):
            part.pop(name, None)
    left_out = {"attempt", "at_secs"}
    content = [{k: v for k, v in line.items() if k not in left_out} for _, line in sorted(found.items())]
    actions = {path.name: files.sha256_file(path) for path in (output(made, attempt) / "actions").iterdir()}
    return {"lines": content, "info": info, "actions": actions}


def table(made: Made) -> list[str]:
    """The row's counts in the table of all runs."""
    path = made.layout.summary / "all_runs.csv"
    files.write_text(path, collect.tables(made.spec)["all_runs.csv"])
    (line,) = [line for line in csv.DictReader(path.open()) if line["run_id"] == ROW]
    return [line[name] for name in ("status", "episodes", "successes", "success_rate")]


def shorten_timeout(made: Made) -> None:
    text = made.layout.settings.read_text()
    made.layout.settings.write_text(text.replace("row_secs = 60", "row_secs = 8"))


ENDS = [("torn:7", "killed"), ("hang:7", "timeout")]


@pytest.mark.parametrize(("word", "reason"), ENDS)
def test_the_retry_of_a_cut_off_attempt_plays_what_is_missing_in_the_same_batches(
    word: str, reason: str, row: Made, undisturbed: Mapping[str, Any]
) -> None:
    shorten_timeout(row)
    result = play(row, word, "ok", policy=RerunPolicy(resume=True))
    assert row.results(ROW) == [("fail", reason), ("pass", None)] and result["attempt"] == 2
    assert played(row, 2) == [(3, 2), (3, 3), (3, 4)] and set(kept(row, 2).values()) == {1}
    assert essence(row, 2) == undisturbed
    manifest = files.read_json(row.layout.run(ROW).manifest)
    assert (manifest["batch_size"], manifest["comparable"]) == (2, True)
    assert "--resident.resume=true" in manifest["command"]
    assert row.evidence(ROW) == []
    assert len(replays.recorded(row.layout, ROW)) == 10 and table(row) == ["pass", "10", "4", "0.4"]


@pytest.mark.slow
def test_a_row_that_is_cut_off_again_and_again_keeps_what_each_attempt_has_played(
    row: Made, undisturbed: Mapping[str, Any]
) -> None:
    words = ["die:3", "torn:0", "torn:4", "die:2", "ok"]
    for count in range(1, 6):
        play(row, *words[:count])
    assert [played(row, number) for number in range(1, 6)] == [
        [(0, 0), (0, 1), (0, 2)],
        [],
        [(0, 3), (0, 4), (3, 0), (3, 1)],
        [(3, 2), (3, 3)],
        [(3, 4)],
    ]
    assert sorted(kept(row, 5).values()) == [1, 1, 1, 3, 3, 3, 3, 4, 4]
    assert essence(row, 5) == undisturbed
    assert row.evidence(ROW) == []


def test_a_row_that_was_killed_after_its_last_episode_plays_none_again(
    row: Made, undisturbed: Mapping[str, Any]
) -> None:
    play(row, "die")
    assert play(row, "die", "ok")["status"] == "pass" and played(row, 2) == []
    assert essence(row, 2) == undisturbed


def test_an_attempt_of_a_harness_that_died_is_gone_on_with(row: Made, undisturbed: Mapping[str, Any]) -> None:
    play(row, "die:4")
    folder = row.layout.run(ROW).attempt(1)
    folder.result.unlink()
    row.layout.run(ROW).result.unlink()
    marker = files.read_json(row.layout.marker(ROW))
    history = marker["history"][:-1]
    files.write_json(row.layout.marker(ROW), marker | {"status": "running", "history": history, "ended_at_utc": None})
    assert play(row, "die:4", "ok")["status"] == "pass"
    assert row.results(ROW) == [("fail", "interrupted"), ("pass", None)]
    assert len(played(row, 2)) == 6 and essence(row, 2) == undisturbed


def test_a_row_that_was_ended_with_its_session_goes_on_by_episode(
    row: Made, undisturbed: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "POLL_SECS", 0.05)
    row.behave(**{ROW: ["hang:7"]})
    spec = row.spec
    stop = SessionStop(spec, spec.row(ROW), lambda: len(lines(row, 1)) == 7)
    run.run_row(spec, spec.row(ROW), run.load_host(spec.layout), RerunPolicy(resume=True), endings=[stop])
    assert row.results(ROW) == [("fail", "session_stop")], "it is not tried again in its session"
    assert play(row, "hang:7", "ok")["status"] == "pass" and played(row, 2) == [(3, 2), (3, 3), (3, 4)]
    assert essence(row, 2) == undisturbed


def test_a_row_does_not_start_in_a_session_that_stops(row: Made) -> None:
    spec = row.spec
    stop = SessionStop(spec, spec.row(ROW), lambda: True)
    with pytest.raises(NoLongerWanted, match="not started: the session stops before its end"):
        run.run_row(spec, spec.row(ROW), run.load_host(spec.layout), endings=[stop])
    assert row.results(ROW) == [] and not row.layout.run(ROW).path.exists()


def test_a_lockstep_batch_is_kept_whole_or_played_again(row: Made, undisturbed: Mapping[str, Any]) -> None:
    play(row, "die:4/batch")
    assert play(row, "die:4/batch", "ok/batch")["status"] == "pass"
    assert sorted(kept(row, 2)) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert row.evidence(ROW) == []
    forget(row)
    play(row, "die:3/batch")
    assert play(row, "die:3/batch", "ok/batch")["status"] == "pass"
    assert sorted(kept(row, 2)) == [(0, 0), (0, 1)]  # the last batch of a task has one episode


def test_a_row_whose_episodes_depend_on_each_other_is_played_anew(row: Made) -> None:
    play(row, "die:9/row")
    assert play(row, "die:9/row", "ok/row")["status"] == "pass"
    assert len(played(row, 2)) == 10 and not row.layout.run(ROW).attempt(2).resumed.exists()


def test_progress_begins_with_the_kept_episodes(row: Made) -> None:
    play(row, "die:3")
    play(row, "die:3", "die:2")
    found = early_stop.outcomes_so_far.Reader(row.layout, ROW).read()
    assert found is not None and (found.attempt, found.played, found.successes) == (2, 5, 2)


# what is not kept


def edit(path: Path, change: Callable[[str], str]) -> None:
    text = change(path.read_text())
    path.unlink()  # the top of the run folder has links to some of these files
    path.write_text(text)


def lose_an_action(made: Made) -> None:
    (output(made, 1) / "actions" / "libero_object_0_1.npy").write_bytes(b"")


def edit_a_line(made: Made) -> None:
    edit(output(made, 1) / "episodes.jsonl", lambda text: text.replace('"success": false', '"success": true', 1))


def other_hash(made: Made) -> None:
    path = made.layout.run(ROW).attempt(1).manifest
    edit(path, lambda text: json.dumps(json.loads(text) | {"row_hash": "0" * 64}))


def other_certificate(made: Made) -> None:
    path = made.layout.run(ROW).attempt(1).manifest
    edit(path, lambda text: json.dumps(json.loads(text) | {"certificate": "0" * 64}))


def other_engine_settings(made: Made) -> None:
    made.configure("[resident]\nfast_step = false")
    made.pass_preflight()


DAMAGES = [
    (lose_an_action, 6, "die:5"),
    (edit_a_line, 10, "die:5"),
    (other_hash, 10, "die:5"),
    (other_certificate, 10, "die:5"),
    (other_engine_settings, 10, "die:5"),
    (lambda made: None, 10, "nan:5"),
]


@pytest.mark.parametrize(("damage", "plays", "word"), DAMAGES)
def test_what_is_damaged_or_of_other_inputs_is_played_again(
    damage: Callable[[Made], None], plays: int, word: str, row: Made, undisturbed: Mapping[str, Any]
) -> None:
    play(row, word)
    damage(row)
    assert play(row, word, "ok")["status"] == "pass" and len(played(row, 2)) == plays
    assert essence(row, 2) == undisturbed
    assert row.evidence(ROW) == []


@pytest.mark.slow
def test_a_retry_with_half_the_batch_keeps_nothing(row: Made) -> None:
    shorten_timeout(row)
    play(row, "hang:0", "ok", policy=RerunPolicy(resume=True))
    assert [files.read_json(row.layout.run(ROW).attempt(k).manifest)["batch_size"] for k in (1, 2)] == [2, 1]
    forget(row)
    play(row, "die:4")
    manifest = files.read_json(row.layout.run(ROW).attempt(1).manifest)
    assert run.resume.unfit(row.layout, {**manifest, "attempt": 2, "batch_size": 1}, 1) == (
        "it ran with another batch_size"
    )


def test_a_run_that_is_to_begin_anew_keeps_nothing(row: Made) -> None:
    play(row, "die:4")
    assert play(row, "die:4", "ok", policy=NEW)["status"] == "pass" and len(played(row, 2)) == 10
    play(row, "die:4", "ok", "die:2", policy=NEW)
    assert play(row, "die:4", "ok", "die:2", "ok")["status"] == "pass"
    assert len(played(row, 4)) == 8 and set(kept(row, 4).values()) == {3}  # attempt 2 passed


# what the contracts refuse


def resumed(made: Made) -> Path:
    return made.layout.run(ROW).attempt(2).resumed


def reseal(made: Made, attempt: int, *changed: str) -> None:
    """Makes the attempt's result say the hashes of changed files, as one who knows how would."""
    folder = made.layout.run(ROW).attempt(attempt)
    result = files.read_json(folder.result)
    result["files"] |= {name: files.sha256_file(folder.path / name) for name in changed}
    tops = [folder.result, made.layout.run(ROW).result] if attempt == 2 else [folder.result]
    for path in tops:
        path.unlink()
        files.write_json(path, result)
    if attempt == 2:
        marker = files.read_json(made.layout.marker(ROW))
        files.write_json(made.layout.marker(ROW), marker | {"result_sha256": files.sha256_file(tops[1])})


LINES = "eval/episodes.jsonl"


def in_both(made: Made, change: Callable[[list[Line]], Sequence[Line]], attempts: Sequence[int] = (2,)) -> None:
    for attempt in attempts:
        edit(
            output(made, attempt) / "episodes.jsonl",
            lambda text: "".join(json.dumps(line) + "\n" for line in change(list(map(json.loads, text.splitlines())))),
        )
        reseal(made, attempt, LINES)


def edited_source(made: Made) -> None:
    edit_a_line(made)
    reseal(made, 1, LINES)


def removed(made: Made) -> None:
    made.layout.run(ROW).attempt(1).path.rename(made.root / "gone")


def edited(made: Made) -> None:
    in_both(made, lambda found: [found[0] | {"sum_reward": 0.2}, *found[1:]])


def twice(made: Made) -> None:
    in_both(made, lambda found: [found[0], *found])


def missing(made: Made) -> None:
    in_both(made, lambda found: found[1:])


def unnamed(made: Made) -> None:
    content = files.read_json(resumed(made))
    files.write_json(resumed(made), content | {"episodes": content["episodes"][1:]})
    reseal(made, 2, "resumed.json")


def unmarked(made: Made) -> None:
    in_both(made, lambda found: [{k: v for k, v in found[0].items() if k != "attempt"}, *found[1:]])


def of_another_row(made: Made) -> None:
    other_hash(made)
    content = files.read_json(resumed(made))
    name = "run_manifest.json"
    content["attempts"][0]["files"][name] = files.sha256_file(made.layout.run(ROW).attempt(1).path / name)
    files.write_json(resumed(made), content)
    reseal(made, 2, "resumed.json")


def without_names(made: Made) -> None:
    resumed(made).unlink()
    folder = made.layout.run(ROW).attempt(2)
    result = files.read_json(folder.result)
    del result["files"]["resumed.json"]
    for path in (folder.result, made.layout.run(ROW).result):
        path.unlink()
        files.write_json(path, result)
    reseal(made, 2)


REFUSED = [
    (edited_source, "the file was changed after attempt 2 had kept its episodes"),
    (removed, "attempt 1, whose episodes attempt 2 keeps, is missing"),
    (edited, "episode 0 of task 0 is not there once, as attempt 1 played it"),
    (twice, "episodes.jsonl has 11 lines for 10 episodes"),
    (missing, "or other episodes"),
    (unnamed, "episode 0 of task 0 is not there once, as attempt 1 played it"),
    (unmarked, "episode 0 of task 0 is not there once, as attempt 1 played it"),
    (of_another_row, "it ran with another row_hash"),
    (without_names, "5 lines are of other attempts, but the attempt names none"),
]


@pytest.mark.parametrize(("forge", "says"), REFUSED, ids=[forge.__name__ for forge, _ in REFUSED])
def test_kept_episodes_that_are_not_those_of_their_attempt_are_refused(
    forge: Callable[[Made], None], says: str, resumed_row: Made, copy_of: Callable[[Made], Made]
) -> None:
    made = copy_of(resumed_row)
    forge(made)
    assert says in "\n".join(made.evidence(ROW))


def test_a_row_whose_kept_episodes_are_refused_plays_all_again(
    resumed_row: Made, row: Made, undisturbed: Mapping[str, Any]
) -> None:
    shutil.copytree(resumed_row.layout.runs, row.layout.runs, dirs_exist_ok=True)
    shutil.copytree(resumed_row.layout.rows, row.layout.rows, dirs_exist_ok=True)
    edited(row)
    assert play(row, "die:5", "ok", "ok")["attempt"] == 3
    assert len(played(row, 3)) == 10 and essence(row, 3) == undisturbed and row.evidence(ROW) == []


# the mode that answered


def ask_for_fast_mode(made: Made) -> None:
    made.configure('[resident]\nprecision = "fast"')
    made.pass_preflight()


def answered(made: Made) -> tuple[str, str, str, list[str]]:
    """What the row's files say of its mode: engine and mode in all_runs.csv, the table for people, and the caveats."""
    path = made.layout.summary / "all_runs.csv"
    results = collect.collect_results(made.layout.runs)
    collect.write_csv(results, path)
    (line,) = [line for line in csv.DictReader(path.open()) if line["run_id"] == ROW]
    told = [each.what for each in caveats.of_results(made.spec) if "fast mode was asked for" in each.what]
    return line["engine"], line["precision"], collect.markdown(results), told


@pytest.mark.parametrize(
    ("words", "mode", "shown", "told"),
    [
        (("ok",), "fast", "| resident (fast) |", []),
        (
            ("ok//exact",),
            "exact",
            "| resident (fast), answered by exact mode |",
            ["exact mode answered 10 of 10 episodes: precision = fast, the exact mode answers: as it was told"],
        ),
        (
            ("die:5", "ok//exact"),
            "fast and exact",
            "| resident (fast), answered by fast and exact mode |",
            ["exact mode answered 5 of 10 episodes: precision = fast, the exact mode answers: as it was told"],
        ),
        (
            ("die:5//exact", "ok"),
            "fast and exact",
            "| resident (fast), answered by fast and exact mode |",
            ["exact mode answered 5 of 10 episodes: the row's log says why"],
        ),
    ],
)
def test_a_row_says_which_mode_answered_it_whichever_attempt_did(
    row: Made, words: Sequence[str], mode: str, shown: str, told: list[str]
) -> None:
    ask_for_fast_mode(row)
    for number in range(len(words)):
        result = play(row, *words[: number + 1])
    assert (result["status"], result["precision"]) == ("pass", mode)
    assert row.evidence(ROW) == []
    engine, precision, table_for_people, found = answered(row)
    assert (engine, precision, shown in table_for_people) == ("resident (fast)", mode, True)
    assert found == [f"fast mode was asked for, but {each}" for each in told]
    assert not [each for each in caveats.of_results(row.spec) if each.what.startswith("fallback: precision")]


def test_a_result_that_names_another_mode_than_its_episodes_is_found(row: Made) -> None:
    ask_for_fast_mode(row)
    assert play(row, "ok//exact")["status"] == "pass"
    for folder in (row.layout.run(ROW), row.layout.run(ROW).attempt(1)):
        files.write_json(folder.result, files.read_json(folder.result) | {"precision": "fast"})
    assert any("key precision" in str(finding) and "'exact'" in str(finding) for finding in row.evidence(ROW))


def test_a_row_in_exact_mode_says_so_and_one_of_lerobot_eval_names_no_mode(row: Made) -> None:
    assert play(row, "ok")["precision"] == "exact"
    assert lerobot_eval.reported_results(lerobot_eval.Metrics())["precision"] is None
