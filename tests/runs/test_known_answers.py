"""The program of `make known-answers`: it accepts only what every file counts alike, from runs that count."""

import csv
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import campaigns
import pytest
from campaigns import Made

from fixtures.known_answers import Line
from tracka.campaign import campaign
from tracka.core import files
from tracka.runs.run import RerunPolicy

BASELINE, PAIR = "baseline_b1_e2", "pair_b4_e4"
ROWS = (
    f"{BASELINE},libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    f"{PAIR},libero_object,4,4,cpu,7,egl,checkpoints/fake,1",
    "off_b1_e1,libero_object,1,1,cpu,7,egl,checkpoints/fake,0",
)
SETTINGS = f"""
{campaigns.SETTINGS}
[rows.{PAIR}]
task_ids = [3, 0]

[known_answers.{BASELINE}]
0 = [0]

[known_answers.{PAIR}]
0 = [0, 2]
3 = [3]
"""
WINS = "0=0,2 3=3"
RIGHT = {BASELINE: ["ok:1"], PAIR: [f"episodes:{WINS}"]}
TABLE = f"""
row             suite          task  batch  episodes  expected  lerobot-eval  result.json
{BASELINE}  libero_object  0     1      2         1         1             1            ok
{PAIR}      libero_object  0     4      4         2         2             2            ok
{PAIR}      libero_object  3     4      4         1         1             1            ok

row             expected  all_runs.csv
{BASELINE}  1         1             ok
{PAIR}      3         3             ok

4 of 10 episodes must succeed, in 3 lines of 2 rows: 0 differences
""".lstrip()
EARLIER = "the table of an earlier run\n"


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign whose answers are right, after all five gates."""
    return campaigns.finished(tmp_path_factory.getbasetemp(), "answered", ROWS, SETTINGS, **RIGHT)


@pytest.fixture
def copied(accepted: Made, copy_of: Callable[[Made], Made]) -> Made:
    """A copy of it, to meddle with."""
    return copy_of(accepted)


def answers(made: Made, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the program on a campaign in this process, for what starts no other."""
    return made.call_file("fixtures/known_answers.py", str(made.root), *words)


def evaluated(made: Made, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the program, the gates and the rows, as `make known-answers` does."""
    return made.command("-m", "fixtures.known_answers", str(made.root), *words)


def differing(made: Made) -> dict[str, str]:
    """Row = the lines that call it different. The exit status must be 1, and the table of an earlier run stay."""
    output = made.root / "table.txt"
    output.write_text(EARLIER)
    ended = answers(made, "--judge-only", "--output", str(output))
    assert (ended.returncode, ended.stderr, output.read_text()) == (1, "", EARLIER), ended.stdout
    assert ": 0 differences" not in ended.stdout
    lines = [line for line in ended.stdout.splitlines() if "DIFFERENT" in line]
    return {run_id: "\n".join(line for line in lines if line.split()[0] == run_id) for run_id in (BASELINE, PAIR)}


# what is right


@pytest.mark.slow
def test_in_a_folder_of_their_own_the_rows_that_are_named_and_the_baseline_are_enabled_alone(
    accepted: Made, tmp_path: Path
) -> None:
    before = accepted.layout.matrix.read_bytes()
    ended = answers(accepted, "--rows", BASELINE, "--folder", str(tmp_path / "part"), "--judge-only")
    assert ended.returncode == 1 and "0 of" not in ended.stdout  # nothing has run there
    assert [row.run_id for row in campaign.load(tmp_path / "part").enabled] == [BASELINE]
    assert [row.run_id for row in accepted.spec.enabled] == [BASELINE, PAIR]
    assert accepted.layout.matrix.read_bytes() == before


def test_where_all_files_agree_the_table_is_printed_and_written(accepted: Made, tmp_path: Path) -> None:
    ended = answers(accepted, "--judge-only", "--output", str(tmp_path / "table.txt"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, TABLE, "")
    assert (tmp_path / "table.txt").read_text() == TABLE


def test_the_rows_that_are_named_alone_are_judged(copied: Made) -> None:
    copied.layout.run(PAIR).result.unlink()
    ended = answers(copied, "--judge-only", "--rows", BASELINE)
    assert ended.returncode == 0 and "1 of 2 episodes must succeed, in 1 lines of 1 rows" in ended.stdout
    assert PAIR not in ended.stdout


@pytest.mark.slow
def test_the_rows_run_with_those_that_failed_and_what_has_passed_does_not_run_again(
    make_campaign: Callable[..., Made], tmp_path: Path
) -> None:
    made, output = make_campaign(ROWS, SETTINGS), tmp_path / "table.txt"
    made.behave(**RIGHT | {PAIR: ["crash", "crash", *RIGHT[PAIR]]})
    ended = evaluated(made, "--output", str(output))
    assert ended.returncode == 1 and "result.json: the run failed (crash)" in ended.stdout
    assert (made.started(), output.exists()) == ([PAIR, PAIR, BASELINE], False)
    ended = evaluated(made, "--output", str(output))
    assert (ended.returncode, output.read_text()) == (0, TABLE)
    assert made.started() == [PAIR, PAIR, BASELINE, PAIR]


# runs that do not count, though lerobot-eval's own files may have the known answer


RUNS = {
    "bad action": (BASELINE, "nan_action:1", ["1         1             1 ", "the run failed (bad_action)"]),
    "exit status after the result": (PAIR, f"late:{WINS}", ["2         2 ", "the run failed (crash): exit code 3"]),
    "more episodes than asked": (PAIR, f"extra:{WINS}", ["2         none ", "the run failed (invalid_result)"]),
    "another suite": (PAIR, f"foreign:{WINS}", ["2         none ", "the run failed (invalid_result)"]),
    "no result": (PAIR, "no_result", ["2         none ", "the run failed (no_result)"]),
}


@pytest.mark.parametrize(("run_id", "word", "said"), RUNS.values(), ids=RUNS)
def test_a_row_that_failed_is_different_whatever_it_reports(
    copied: Made, run_id: str, word: str, said: list[str]
) -> None:
    copied.behave(**{run_id: [word]})
    assert copied.run_row(run_id, RerunPolicy(allow_overwrite=True))["status"] == "fail"
    found = differing(copied)
    assert [name for name in found if found[name]] == [run_id]
    assert [words for words in said if words not in found[run_id]] == []


WRONG = {
    "another episode": ("0=0,1 3=3", "2 (episodes [0, 1] in place of [0, 2])  2            DIFFERENT\n"),
    "one too many": ("0=0,2 3=1,3", "2 (episodes [1, 3] in place of [3])  2            DIFFERENT\n"),
    "one too few": ("0=2 3=3", "1 (episodes [2] in place of [0, 2])  1            DIFFERENT\n"),
}


@pytest.mark.parametrize(("wins", "said"), WRONG.values(), ids=WRONG)
def test_a_row_that_passed_with_other_episodes_is_different_by_them_alone(copied: Made, wins: str, said: str) -> None:
    copied.behave(**{PAIR: [f"episodes:{wins}"]})
    assert copied.run_row(PAIR, RerunPolicy(allow_overwrite=True))["status"] == "pass"
    found = differing(copied)
    assert not found[BASELINE] and said in f"{found[PAIR]}\n" and len(found[PAIR].splitlines()) == 1


def test_a_harness_that_counts_otherwise_than_lerobot_eval_is_different(accepted: Made) -> None:
    row = accepted.spec.row(PAIR)
    assert Line(row, 0, known=(0, 2), evaluated=(0, 2), counted=2).right
    for counted in (None, 1, 3):
        assert not Line(row, 0, known=(0, 2), evaluated=(0, 2), counted=counted).right


def test_a_row_that_passed_with_half_its_batch_is_different(copied: Made) -> None:
    copied.behave(**{PAIR: ["ok", "oom", *RIGHT[PAIR]]})
    assert copied.run_row(PAIR, RerunPolicy(allow_overwrite=True))["status"] == "pass"
    found = differing(copied)
    assert not found[BASELINE] and "DIFFERENT: the row ran with another batch size" in found[PAIR]


def test_a_row_that_has_not_run_is_different(copied: Made) -> None:
    shutil.rmtree(copied.layout.run(PAIR).path)
    found = differing(copied)
    assert not found[BASELINE] and "none" in found[PAIR] and "result.json: the file does not exist" in found[PAIR]


# what changed after the run


def change_seed(made: Made) -> None:
    made.layout.matrix.write_text(made.layout.matrix.read_text().replace("4,4,cpu,7", "4,4,cpu,8"))


def change_episodes(made: Made) -> None:
    made.layout.matrix.write_text(made.layout.matrix.read_text().replace("4,4,cpu,7", "4,5,cpu,7"))


def change_settings(made: Made) -> None:
    settings = made.layout.settings
    settings.write_text(settings.read_text().replace("task_ids = [3, 0]", "task_ids = [3, 0]\nepisode_length = 100"))


def flip_info(made: Made) -> None:
    path = made.layout.run(PAIR).attempt(1).output / "eval_info.json"
    info = files.read_json(path)
    info["per_task"][0]["metrics"]["successes"][1] ^= True
    path.write_bytes(files.pretty(info))


def flip_episodes(made: Made) -> None:
    """In both of its copies."""
    for folder in (made.layout.run(PAIR), made.layout.run(PAIR).attempt(1)):
        text = folder.episodes.read_text()
        folder.episodes.write_text(text.replace('"success": true', '"success": false', 1))


def flip_result(made: Made) -> None:
    """In both of its copies."""
    for folder in (made.layout.run(PAIR), made.layout.run(PAIR).attempt(1)):
        result = files.read_json(folder.result)
        result["per_task"][0]["successes"] += 1
        folder.result.write_bytes(files.pretty(result))


def garble_info(made: Made) -> None:
    (made.layout.run(PAIR).attempt(1).output / "eval_info.json").write_text('{"per_task": [{"task_id": 0}]}')


def garble_result(made: Made) -> None:
    made.layout.run(PAIR).result.write_text('{"per_task": [{"task_id": 0}]}')


def edit_table(made: Made, edit: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    path = made.layout.summary / "all_runs.csv"
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(edit(lines))


def flip_table(made: Made) -> None:
    edit_table(made, lambda lines: [line | {"successes": "4"} if line["run_id"] == PAIR else line for line in lines])


def lose_line(made: Made) -> None:
    edit_table(made, lambda lines: [line for line in lines if line["run_id"] != PAIR])


ANOTHER = "the row passed with another matrix row, settings, checkpoint or software"
CHANGES: dict[str, tuple[Callable[[Made], None], list[str]]] = {
    "the row's seed": (change_seed, [ANOTHER]),
    "the row's episodes": (change_episodes, [f"none          1            DIFFERENT: artifacts/runs/{PAIR}", ANOTHER]),
    "the row's settings": (change_settings, [ANOTHER]),
    "an episode of eval_info.json": (flip_info, ["2 (episodes [1, 3] in place of [3])  1 ", "but the other files say"]),
    "an episode of episodes.jsonl": (flip_episodes, ["episodes.jsonl: the lines do not match the episodes in"]),
    "an episode of result.json": (
        flip_result,
        ["1             2            DIFFERENT", f"{PAIR}.json, key result_sha256"],
    ),
    "an episode of all_runs.csv": (flip_table, ["3         4             DIFFERENT"]),
    "a line of all_runs.csv": (lose_line, ["3         none          DIFFERENT"]),
    "eval_info.json as a whole": (garble_info, ["2         none          2 ", "result.json, key per_task"]),
    "result.json as a whole": (garble_result, ["2         2             none ", "result.json"]),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_what_changed_after_the_run_makes_its_row_different(
    copied: Made, change: Callable[[Made], None], said: list[str]
) -> None:
    before = campaigns.contents(copied.root)
    change(copied)
    assert campaigns.contents(copied.root) != before
    found = differing(copied)
    assert not found[BASELINE] and [words for words in said if words not in found[PAIR]] == []


def test_other_weights_make_every_row_different(copied: Made) -> None:
    copied.change_weights()
    found = differing(copied)
    assert all("the row passed with another matrix row" in lines for lines in found.values())


@pytest.mark.parametrize(
    "table", [None, b"", b"run_id\nnobody\n", b"\xff\xfe"], ids=["lost", "empty", "short", "bytes"]
)
def test_a_table_that_cannot_be_read_makes_every_row_different(copied: Made, table: bytes | None) -> None:
    path = copied.layout.summary / "all_runs.csv"
    path.unlink() if table is None else path.write_bytes(table)
    found = differing(copied)
    assert all("none" in lines for lines in found.values())


# what is refused


REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "unknown row": (["--rows", f"{PAIR},nobody"], ["no row 'nobody'"]),
    "disabled row": (["--rows", "off_b1_e1"], ["the row 'off_b1_e1' is disabled"]),
    "no folder for the table": (
        ["--output", "nowhere/table.txt"],
        ["--output nowhere/table.txt: the output's folder does not"],
    ),
    "a folder as the table": (["--output", "tests"], ["--output tests: the output is a folder"]),
    "both": (["--rows", "nobody,none", "--output", "tests"], ["'nobody'", "'none'", "--output tests"]),
}


@pytest.mark.parametrize(("words", "said"), REFUSED.values(), ids=REFUSED)
def test_wrong_arguments_are_refused_all_at_once_before_anything_runs(
    make_campaign: Callable[..., Made], words: list[str], said: list[str]
) -> None:
    made = make_campaign(ROWS, SETTINGS)
    ended = answers(made, *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert [part for part in said if part not in ended.stderr] == [], ended.stderr
    assert not made.layout.artifacts.exists()


def test_rows_without_a_known_answer_are_refused_by_their_names(made: Made) -> None:
    made.configure("[known_answers.wide_b4_e4]\n0 = []")
    ended = answers(made)
    assert (ended.returncode, ended.stdout) == (2, "")
    for run_id in ("baseline_b1_e2", "long_b1_e6"):
        assert f"row {run_id}: the row has no known answer" in ended.stderr
    assert "wide_b4_e4" not in ended.stderr and not made.layout.artifacts.exists()


def test_a_folder_that_is_no_campaign_is_refused_by_its_name(made: Made, tmp_path: Path) -> None:
    ended = evaluated(Made(tmp_path / "nowhere", made.environ))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"{tmp_path / 'nowhere'}: this is not a campaign" in ended.stderr
