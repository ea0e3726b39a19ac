"""Known answers: exactly the known episodes succeed, by every file that counts them, or nothing is accepted."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import campaigns
import pytest
from campaigns import Made, judged

from tracka.core import files
from tracka.engines import lerobot_eval
from tracka.engines.lerobot_eval import Metrics
from tracka.gates import validate
from tracka.runs import logged_facts

BASELINE, PAIR = "baseline_b1_e2", "pair_b2_e4"
ROWS = (
    f"{BASELINE},libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    f"{PAIR},libero_object,2,4,cpu,7,egl,checkpoints/fake,1",
    "free_b1_e3,libero_object,1,3,cpu,7,egl,checkpoints/fake,1",
)
SETTINGS = f"""
{campaigns.SETTINGS}
[rows.{PAIR}]
task_ids = [3, 0]

[known_answers.{BASELINE}]
0 = [1]

[known_answers.{PAIR}]
0 = [0, 2]
3 = [3]
"""
RIGHT = {BASELINE: ["episodes:0=1"], PAIR: ["episodes:0=0,2 3=3"], "free_b1_e3": ["episodes:0=2"]}
PLANTED = {
    "one too many": (
        "0=0,1,2 3=3",
        [
            "task 0: episodes (0, 1, 2), but the known answer is (0, 2)",
            "task 0: successes 3, but the known answer is 2",
        ],
    ),
    "one too few": (
        "0=0,2 3=",
        ["task 3: episodes (), but the known answer is (3,)", "task 3: successes 0, but the known answer is 1"],
    ),
    "another episode": ("0=0,2 3=2", ["task 3: episodes (2,), but the known answer is (3,)"]),
    "another task": (
        "0=0 3=2,3",
        [
            "task 0: episodes (0,), but the known answer is (0, 2)",
            "task 3: episodes (2, 3), but the known answer is (3,)",
        ],
    ),
}
FIRST = ("-n0", "-m", "phase1 or phase2")
LATER = ("-n0", "-m", "phase3 or phase4 or phase5")
Finished = Callable[..., Made]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign with known answers after phases 1 and 2."""
    return campaigns.finished(tmp_path_factory.getbasetemp(), "answers_before", ROWS, SETTINGS, FIRST)


@pytest.fixture(scope="module")
def finished(before: Made, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Returns the campaign after all five gates; the stand-in gives the known answers but for what it is told. All
    tests share it."""

    def made(name: str, **words: list[str]) -> Made:
        base, told = tmp_path_factory.getbasetemp(), {**RIGHT, **words}
        return campaigns.finished(base, f"answers_{name}", ROWS, SETTINGS, LATER, before.root, **told)

    return made


@pytest.fixture(scope="module")
def accepted(finished: Finished) -> Made:
    """The campaign with the known answers after all five gates."""
    return finished("right")


@pytest.fixture
def known(before: Made, copy_of: Callable[[Made], Made]) -> Made:
    """A campaign with known answers after phases 1 and 2, whose stand-in gives them."""
    made = copy_of(before)
    made.behave(**RIGHT)
    return made


@pytest.fixture
def copied(accepted: Made, copy_of: Callable[[Made], Made]) -> Made:
    """A copy of the accepted campaign, to meddle with."""
    return copy_of(accepted)


def lines(path: Path) -> dict[str, dict[str, str]]:
    """The lines of a table by their run ids."""
    with path.open(newline="") as file:
        return {line["run_id"]: line for line in csv.DictReader(file)}


def found(made: Made) -> str:
    """What `tracka validate` says of a campaign that it must not call valid."""
    ended = made.call("validate", "--phase", "all", "--root", str(made.root))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


# the gates


def test_every_file_counts_the_known_successes_and_the_campaign_is_accepted(accepted: Made) -> None:
    assert "verdict: accepted" in judged(accepted).stdout
    layout, run = accepted.layout, accepted.layout.run(PAIR)
    assert {task["task_id"]: task["successes"] for task in files.read_json(run.result)["per_task"]} == {0: 2, 3: 1}
    records = [json.loads(line) for line in run.episodes.read_text().splitlines()]
    assert {(one["task"], one["episode"]) for one in records if one["success"]} == {(0, 0), (0, 2), (3, 3)}
    table = lines(layout.summary / "all_runs.csv").items()
    counted = {run_id: (line["successes"], line["episodes"]) for run_id, line in table}
    assert counted == {BASELINE: ("1", "2"), PAIR: ("3", "8"), "free_b1_e3": ("1", "3")}
    assert f"| {PAIR} | libero_object | pass | 8 | 3 | 37.5%" in layout.results.read_text()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if "many" in name else pytest.mark.slow) for name in PLANTED]
)
def test_one_episode_off_fails_the_rows_gate_with_task_and_episodes(finished: Finished, name: str) -> None:
    wins, said = PLANTED[name]
    made = finished(name, **{PAIR: [f"episodes:{wins}"]})
    ended = judged(made)
    assert ended.returncode == 1
    assert f"row {PAIR}, known_answer" in ended.stdout and "verdict: not accepted" in ended.stdout
    assert [words for words in said if words not in ended.stdout] == []
    failures = lines(made.layout.summary / "failures.csv")
    assert {run_id: line["reason"] for run_id, line in failures.items()} == {PAIR: "known_answer"}
    assert f"- `{PAIR}`: known_answer" in made.layout.results.read_text()


def test_a_wrong_answer_of_the_baseline_starts_no_other_row(finished: Finished) -> None:
    made = finished("baseline", **{BASELINE: ["episodes:0=0"]})
    ended = judged(made)
    assert ended.returncode == 1
    assert "the contract baseline_known_answer is broken" in ended.stdout
    assert "task 0: episodes (0,), but the known answer is (1,)" in ended.stdout
    assert made.started() == [BASELINE]


def test_a_row_that_failed_is_told_by_its_failure_and_not_by_its_answer(finished: Finished) -> None:
    made = finished("crash", **{PAIR: ["crash"]})
    ended = judged(made)
    assert "the run failed (crash)" in ended.stdout and "the known answer is" not in ended.stdout
    assert lines(made.layout.summary / "failures.csv")[PAIR]["reason"] == "crash"


def test_an_answer_that_is_corrected_is_judged_again_without_a_run(
    finished: Finished, copy_of: Callable[[Made], Made]
) -> None:
    wrong = finished("another episode", **{PAIR: [f"episodes:{PLANTED['another episode'][0]}"]})
    assert judged(wrong).returncode == 1
    made = copy_of(wrong)
    made.layout.settings.write_text(SETTINGS.replace("3 = [3]", "3 = [2]"))
    ended = made.pytest("-n2")
    assert (ended.returncode, made.started()) == (0, wrong.started()), ended.stdout


# an error of the harness itself


def one_more(metrics: Metrics) -> Metrics:
    """The same, but that episode 1 of task 0 has succeeded too."""
    tasks = [replace(task, successes=(task.successes[0], True, *task.successes[2:])) for task in metrics.tasks]
    changed = tuple(new if old.task_id == 0 else old for old, new in zip(metrics.tasks, tasks, strict=True))
    return replace(metrics, tasks=changed, successes=(metrics.successes or 0) + 1)


def findings(made: Made, name: str) -> str:
    """What a contract finds in the files of the row with two tasks, by this process."""
    return "\n".join(map(str, validate.row_contract_findings(made.spec, made.spec.row(PAIR), name)))


def test_a_harness_that_reports_one_success_too_many_is_found_out(known: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    reported = lerobot_eval.reported_results
    with monkeypatch.context() as harness:
        harness.setattr(lerobot_eval, "reported_results", lambda metrics: reported(one_more(metrics)))
        assert known.run_row(PAIR)["successes"] == 4
    assert "task 0: successes 3, but the known answer is 2" in findings(known, "known_answer")
    assert "key successes: the value is 4, but the other files say 3" in findings(known, "evidence")


def test_what_all_files_agree_on_is_still_held_against_the_known_answer(
    known: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = lerobot_eval.read_metrics
    monkeypatch.setattr(lerobot_eval, "read_metrics", lambda *words: one_more(read(*words)))
    monkeypatch.setattr(lerobot_eval, "parse_log", lambda log: None)
    monkeypatch.setattr(logged_facts, "faults", lambda *words: iter(()))  # the logs agree, too
    assert known.run_row(PAIR)["successes"] == 4
    assert findings(known, "evidence") == ""
    assert "task 0: episodes (0, 1, 2), but the known answer is (0, 2)" in findings(known, "known_answer")
    assert "task 0: successes 3, but the known answer is 2" in findings(known, "known_answer")


# files that somebody changed afterwards


def change_result(made: Made) -> None:
    path = made.layout.run(PAIR).result
    result = files.read_json(path)
    result["per_task"][0]["successes"] += 1
    path.write_bytes(files.pretty(result | {"successes": result["successes"] + 1}))


def change_episodes(made: Made) -> None:
    path = made.layout.run(PAIR).episodes
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(record) + "\n" for record in [records[0] | {"success": True}, *records[1:]]))


def change_table(made: Made) -> None:
    path = made.layout.summary / "all_runs.csv"
    path.write_text(path.read_text().replace(",3,5,0,pass,", ",4,4,0,pass,"))


def change_info(made: Made) -> None:
    run = made.layout.run(PAIR)
    path = run.attempt(1).output / "eval_info.json"
    info = files.read_json(path)
    info["per_task"][0]["metrics"]["successes"][1] = True
    path.write_bytes(files.pretty(info))


CHANGES: dict[str, tuple[Callable[[Made], None], str]] = {
    "result.json": (change_result, "task 3: successes 2, but the known answer is 1"),
    "episodes.jsonl": (change_episodes, "task 3: episodes (0, 3), but the known answer is (3,)"),
    "all_runs.csv": (change_table, "all_runs.csv"),
    "eval_info.json": (change_info, "the lines do not match the episodes in eval_info.json"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_one_episode_changed_afterwards_is_found(copied: Made, change: Callable[[Made], None], said: str) -> None:
    before = campaigns.contents(copied.root)
    change(copied)
    assert campaigns.contents(copied.root) != before
    assert said in found(copied)


@pytest.mark.parametrize("text", ["", "not JSON\n", "[1]\n", '{"task": 0}\n'], ids=["empty", "text", "list", "keys"])
def test_episodes_that_cannot_be_read_are_no_known_answer(copied: Made, text: str) -> None:
    copied.layout.run(PAIR).episodes.write_text(text)
    said = found(copied)
    assert "task 3: episodes" in said and ", but the known answer is (3,)" in said


# wrong answers


def test_wrong_known_answers_are_refused_all_at_once(made: Made) -> None:
    made.configure(
        "[known_answers.nobody]\n0 = []\n"
        "[known_answers.long_b1_e6]\n0 = [5, 6, 7]\n"
        "[known_answers.wide_b4_e4]\n1 = [0]\n"
        "[rows.nowhere]\n"
    )
    ended = made.call("validate", "--phase", "all", "--root", str(made.root))
    assert ended.returncode == 2
    for words in (
        "row nobody: the matrix has no such row",
        "row nowhere: the matrix has no such row",
        "known_answers.long_b1_e6: task 0 has no episode 6, 7",
        "known_answers.wide_b4_e4: the answer is for tasks [1], but the row runs tasks [0]",
    ):
        assert words in ended.stderr, ended.stderr
    assert made.pytest("-n0").returncode == 4
    assert not made.layout.artifacts.exists()


@pytest.mark.parametrize("answer", ["0 = [1, 1]", "0 = [-1]", "0 = 1", "00 = []", "zero = []", "0 = [true]"])
def test_an_answer_of_another_form_is_refused_with_its_key(made: Made, answer: str) -> None:
    made.configure(f"[known_answers.long_b1_e6]\n{answer}")
    ended = made.call("validate", "--phase", "all", "--root", str(made.root))
    assert ended.returncode == 2 and "known_answers.long_b1_e6" in ended.stderr
