"""A campaign that ends early: by which rule, what its rows leave, what its gates say, and how it goes on."""

import csv
import json
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import campaigns
import pytest
from campaigns import Made

from tracka.core import files
from tracka.core.files import Json
from tracka.execution import process
from tracka.gates import validate
from tracka.reporting import campaign_verdict
from tracka.runs import early_stop, run

ROWS = (
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    "hard_b1_e30,libero_object,1,30,cpu,7,egl,checkpoints/fake,1",
    "easy_b1_e20,libero_object,1,20,cpu,7,egl,checkpoints/fake,1",
)
BASELINE, HARD, EASY = "baseline_b1_e2", "hard_b1_e30", "easy_b1_e20"
SETTINGS = f"""{campaigns.SETTINGS}
[verdict]
early = "futility"
threshold = 0.8

[rows.{EASY}]
task_ids = [1]
"""
ALL = ",".join(map(str, range(30)))
FAILS_AND_HANGS = "batches:0.01 12 0=0,2,4,6,8,10"  # a policy that fails six times of twelve and then takes for ever
STOPPED = ("fail", "stopped")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a campaign after phases 1 and 2, with early stopping for futility, to be copied."""
    made = campaigns.make(tmp_path_factory.mktemp("ready") / "campaign", ROWS, SETTINGS)
    with pytest.MonkeyPatch.context() as environ:
        for name, value in made.environ.items():
            environ.setenv(name, value)
        made.pass_preflight()
    return made.root


@pytest.fixture
def prepared_early(ready: Path, copy_of: Callable[[Made], Made], monkeypatch: pytest.MonkeyPatch) -> Made:
    """Returns a copy of that campaign, whose rows are asked to stop every moment."""
    monkeypatch.setattr(process, "POLL_SECS", 0.05)
    return copy_of(Made(ready, campaigns.environment(ready)))


def play(made: Made, run_id: str) -> Json:
    """Runs a row as sweeps and gates do, in this process, and returns its result."""
    spec = made.spec
    row, host = spec.row(run_id), run.load_host(spec.layout)
    watch = early_stop.watch(spec, row)
    return dict(run.run_row(spec, row, host, campaigns.RESUME, endings=[watch] if watch else []))


def change(made: Made, old: str, new: str) -> None:
    text = made.layout.settings.read_text()
    assert old in text
    made.layout.settings.write_text(text.replace(old, new))


def record(made: Made) -> Json:
    return files.read_json(made.layout.early_stop)


# one row after the other


def test_a_row_that_makes_a_pass_impossible_is_ended_and_says_so(prepared_early: Made) -> None:
    made = prepared_early
    made.behave(**{HARD: [FAILS_AND_HANGS]})
    result = play(made, HARD)
    assert (result["status"], result["reason"]) == STOPPED
    assert made.results(HARD) == [STOPPED], "a row that was ended is not tried again"
    assert made.statuses()[HARD] == STOPPED
    written = record(made)
    assert (written["outcome"], written["rule"], written["claim"]["task"]) == ("underpowered", "arithmetic", None)
    assert (written["rows"][HARD]["successes"], written["rows"][HARD]["episodes"]) == (6, 12)
    what = "6 of 12 episodes failed, so it cannot pass any more: 44 of 50 would be too few"
    assert written["sentence"] == f"libero_object, threshold 80%: {what}"
    assert made.evidence(HARD) == []


def test_no_row_starts_after_the_stop_and_those_that_have_not_started_stay_pending(prepared_early: Made) -> None:
    made = prepared_early
    made.behave(**{HARD: [FAILS_AND_HANGS]})
    play(made, HARD)
    with pytest.raises(early_stop.StoppedEarly, match=r"stopped early \(arithmetic\): libero_object, threshold 80%"):
        play(made, EASY)
    assert made.started() == [HARD]
    assert not made.layout.run(EASY).path.exists()


def test_a_passed_row_is_judged_after_the_stop_as_before(prepared_early: Made) -> None:
    made = prepared_early
    made.behave(**{EASY: [f"episodes:1={ALL}"], HARD: [FAILS_AND_HANGS]})
    assert play(made, EASY)["status"] == "pass"
    play(made, HARD)
    assert play(made, EASY)["status"] == "pass"
    assert made.started() == [EASY, HARD]


def test_a_campaign_that_does_not_stop_early_plays_everything(prepared_early: Made) -> None:
    made = prepared_early
    change(made, '"futility"', '"off"')
    made.behave(**{HARD: ["batches:0.01 99 0="]})
    assert play(made, HARD)["episodes"] == 30
    assert not made.layout.early_stop.exists()


def test_a_campaign_that_may_still_pass_plays_on(prepared_early: Made) -> None:
    made = prepared_early
    made.behave(
        **{HARD: ["batches:0.02 99 0=0,1,2,3,4,5,6,7,8,9,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29"]}
    )
    assert play(made, HARD)["successes"] == 28
    assert not made.layout.early_stop.exists()


def test_a_campaign_that_has_passed_ends_only_where_both_ends_may_come_early(prepared_early: Made) -> None:
    made = prepared_early
    words = f"batches:0.02 99 0={ALL}"
    made.behave(**{HARD: [words], EASY: [f"batches:0.02 19 1={ALL}"]})
    assert play(made, HARD)["status"] == "pass"
    change(made, '"futility"', '"both"')
    assert (play(made, EASY)["reason"], record(made)["outcome"]) == ("stopped", "pass")


def test_a_stop_by_evidence_is_a_fail(prepared_early: Made) -> None:
    """Nine failures leave a chance by arithmetic, since 21 successes of 30 would pass; by evidence they leave none.

    The ninth decides. A tenth may end before the row does, and is then counted too: none is played here.
    """
    made = prepared_early
    change(made, "threshold = 0.8", "task_threshold = 0.5")
    made.behave(**{HARD: ["batches:0.01 9 0="]})
    assert (play(made, HARD)["reason"], record(made)["outcome"], record(made)["rule"]) == (
        "stopped",
        "fail",
        "evidence",
    )
    assert record(made)["claim"]["task"] == 0
    verdict = campaign_verdict.make(made.spec)
    assert (verdict["outcome"], verdict["rates"][0]["episodes"]) == ("fail", 9)
    assert "the evidence after each episode shows a rate below the threshold of 50%" in verdict["sentence"]


@pytest.mark.parametrize("change_of", ["thresholds", "early", "checkpoint"])
def test_a_row_plays_on_where_the_stop_was_of_other_claims_or_of_another_checkpoint(
    prepared_early: Made, change_of: str
) -> None:
    made = prepared_early
    made.behave(**{HARD: [FAILS_AND_HANGS, "ok:30"], EASY: ["ok:20"]})
    play(made, HARD)
    if change_of == "thresholds":
        change(made, "threshold = 0.8", "threshold = 0.1")
    elif change_of == "early":
        change(made, '"futility"', '"off"')
    else:
        made.change_weights()
    assert [play(made, run_id)["status"] for run_id in (HARD, EASY)] == ["pass", "pass"]
    assert made.results(HARD) == [STOPPED, ("pass", None)]


def test_episodes_of_another_checkpoint_end_nothing(prepared_early: Made) -> None:
    made = prepared_early
    made.behave(**{HARD: [FAILS_AND_HANGS], EASY: [f"batches:0.02 99 1={ALL}"]})
    play(made, HARD)
    made.change_weights()
    assert play(made, EASY)["status"] == "pass"


def test_a_stop_that_the_episodes_do_not_support_stops_nothing_and_is_found(prepared_early: Made) -> None:
    made = prepared_early
    made.behave(**{HARD: [FAILS_AND_HANGS], EASY: ["ok:20"]})
    play(made, HARD)
    forged = record(made)
    forged |= {"rows": {}, "outcome": "pass", "claim": None}
    made.layout.early_stop.unlink()
    for path in (made.layout.run(HARD).path, made.layout.marker(HARD)):
        path.rename(path.with_name("away"))
    files.write_json(made.layout.early_stop, forged)
    assert early_stop.standing(made.spec) is None
    found = [finding.what for finding in validate.contract_findings(made.spec, "phase4", "early_stop")]
    assert found == ["the episodes that were played do not decide what the file says"]
    assert play(made, EASY)["status"] == "pass"


def test_a_record_that_nothing_supports_any_more_is_set_aside_and_the_campaign_goes_on(prepared_early: Made) -> None:
    """A row was stopped and counted, and crashed when it was played again, which took its episodes away."""
    made = prepared_early
    made.behave(**{HARD: [FAILS_AND_HANGS, "crash", "crash", f"episodes:0={ALL}"], EASY: [f"episodes:1={ALL}"]})
    play(made, HARD)
    early_stop.set_aside_unsupported(made.spec)
    assert made.layout.early_stop.exists(), "the files support it"
    assert made.run_row(HARD)["reason"] == "crash"
    early_stop.set_aside_unsupported(made.spec)
    assert not made.layout.early_stop.exists()
    assert [play(made, run_id)["status"] for run_id in (BASELINE, HARD, EASY)] == ["pass"] * 3
    assert validate.contract_findings(made.spec, "phase4", "early_stop") == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schema_version": 1}', None])
def test_a_damaged_record_is_set_aside(prepared_early: Made, content: bytes | None) -> None:
    path = prepared_early.layout.early_stop
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    early_stop.set_aside_unsupported(prepared_early.spec)
    assert not path.exists() and path.with_name(f"{path.name}.damaged").exists()
    assert validate.contract_findings(prepared_early.spec, "phase4", "early_stop") == []


def test_a_record_that_is_damaged_is_found(prepared_early: Made) -> None:
    made = prepared_early
    files.write_json(made.layout.early_stop, {"schema_version": 1})
    found = [str(finding) for finding in validate.contract_findings(made.spec, "phase4", "early_stop")]
    assert any("decided_at_utc" in finding for finding in found)


def test_a_row_that_crashed_is_not_excused_by_the_stop_and_plays_again_to_its_end(prepared_early: Made) -> None:
    made = prepared_early
    made.behave(**{EASY: ["crash", "crash", "batches:0.02 99 1="], HARD: [FAILS_AND_HANGS]})
    assert play(made, EASY)["reason"] == "crash"
    play(made, HARD)
    spec = made.spec
    assert early_stop.excused(spec, spec.row(HARD)) is not None
    assert early_stop.excused(spec, spec.row(EASY)) is None
    assert early_stop.excused(spec, spec.row(BASELINE)) is None
    assert (play(made, EASY)["status"], early_stop.standing(spec) is not None) == ("pass", True)


# the gates


@dataclass(frozen=True)
class Gated:
    """A campaign whose gates have run, with what they printed."""

    made: Made
    ended: subprocess.CompletedProcess[str]

    @property
    def tests(self) -> dict[str, str]:
        """Returns the outcome of each test of phase 4 and 5 by its name."""
        lines = re.findall(r"::(test_\w+(?:\[\w+\])?) (PASSED|FAILED|SKIPPED)", self.ended.stdout)
        return dict(lines)


def gate(ready: Path, folder: Path, early: str, workers: int = 0, **words: Sequence[str]) -> Gated:
    made = campaigns.copied(Made(ready, campaigns.environment(ready)), folder)
    change(made, '"futility"', f'"{early}"')
    made.behave(**words)
    return Gated(made, made.pytest(f"-n{workers}", "-v"))


@pytest.fixture(scope="module")
def refused(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Gated:
    """The gates of a policy that cannot pass."""
    return gate(ready, tmp_path_factory.mktemp("refused"), "futility", **{HARD: [FAILS_AND_HANGS]})


@pytest.fixture(scope="module")
def accepted(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Gated:
    """The gates of a policy that has passed before its last row ends."""
    words = {HARD: [f"episodes:0={ALL}"], EASY: [f"batches:0.01 19 1={ALL}"]}
    return gate(ready, tmp_path_factory.mktemp("accepted"), "both", **words)


@pytest.mark.slow
def test_gates_skip_the_rows_of_a_stopped_campaign_and_do_not_accept_it(refused: Gated) -> None:
    rows = {name: outcome for name, outcome in refused.tests.items() if name.startswith("test_row")}
    assert rows == {f"test_row[{BASELINE}]": "PASSED", f"test_row[{HARD}]": "SKIPPED", f"test_row[{EASY}]": "SKIPPED"}
    assert refused.tests["test_the_verdict"] == "FAILED"
    assert refused.ended.returncode == 1


def test_the_handoff_of_phase_4_says_partial_and_why(refused: Gated) -> None:
    value = files.read_json(refused.made.layout.handoff("phase4"))
    assert value["status"] == "partial"
    assert any("the campaign was stopped early (arithmetic)" in note for note in value["notes"])
    assert value["details"]["failures"] == {HARD: "stopped", EASY: "stopped"}


def test_the_verdict_counts_the_episodes_of_the_row_that_was_ended(refused: Gated) -> None:
    value = files.read_json(refused.made.layout.verdict)
    assert (value["outcome"], value["rates"][0]["episodes"], value["rates"][0]["lost"]) == ("underpowered", 12, 38)
    assert "The campaign was stopped early (arithmetic): libero_object, threshold 80%" in value["sentence"]


def test_failures_name_the_rows_that_were_not_played(refused: Gated) -> None:
    with (refused.made.layout.summary / "failures.csv").open() as file:
        reasons = {line["run_id"]: line["reason"] for line in csv.DictReader(file)}
    assert reasons == {HARD: "stopped", EASY: "stopped"}
    assert refused.made.statuses()[EASY] == ("pending", None)


def test_the_last_failed_tests_are_none_of_rows_that_were_stopped(refused: Gated) -> None:
    failed = json.loads(next(refused.made.root.glob(".cache/**/cache/lastfailed")).read_text())
    assert failed and not any("test_row" in name for name in failed)


@pytest.mark.slow
def test_gates_accept_a_campaign_that_ended_when_it_had_passed(accepted: Gated) -> None:
    assert accepted.tests[f"test_row[{EASY}]"] == "SKIPPED"
    assert accepted.tests["test_the_verdict"] == "PASSED", accepted.ended.stdout[-4000:]
    assert accepted.ended.returncode == 0


@pytest.mark.slow
def test_phase_4_then_passes_with_a_note_and_no_failure(accepted: Gated) -> None:
    value = files.read_json(accepted.made.layout.handoff("phase4"))
    assert (value["status"], value["details"]["failures"]) == ("pass", {})
    assert (value["details"]["completed_rows"], value["details"]["enabled_rows"]) == (2, 3)
    assert any("every claim has passed" in note for note in value["notes"])
    assert files.read_json(accepted.made.layout.verdict)["outcome"] == "pass"


@pytest.mark.slow
def test_a_lost_record_is_found_where_rows_were_excused_by_it(accepted: Gated, copy_of: Callable[[Made], Made]) -> None:
    made = copy_of(accepted.made)
    made.layout.early_stop.unlink()
    found = [str(finding) for finding in validate.validate(made.spec)]
    assert any("the run failed (stopped)" in finding for finding in found)


def test_turned_off_the_same_campaign_plays_the_rest(refused: Gated, copy_of: Callable[[Made], Made]) -> None:
    made = copy_of(refused.made)
    change(made, '"futility"', '"off"')
    made.behave(**{HARD: ["ok", "ok:30"], EASY: ["ok:20"]})
    ended = made.tracka(*made.sweep_words("--resume"))
    assert ended.returncode == 0, ended.stderr
    assert made.results(HARD) == [STOPPED, ("pass", None)]
    assert made.results(EASY) == [("pass", None)]


@pytest.fixture(scope="module")
def side_by_side(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Gated:
    """The gates of two rows that play at the same time, of which one makes a pass impossible and one is long."""
    words = {HARD: [FAILS_AND_HANGS], EASY: [f"batches:0.5 99 1={ALL}"]}
    return gate(ready, tmp_path_factory.mktemp("side_by_side"), "futility", workers=2, **words)


@pytest.mark.slow
def test_the_rows_that_play_beside_it_on_other_workers_are_ended_too(side_by_side: Gated) -> None:
    assert side_by_side.made.statuses() == {BASELINE: ("pass", None), HARD: STOPPED, EASY: STOPPED}
    rows = re.findall(r"(PASSED|FAILED|SKIPPED) \S*(test_row\[\w+\])", side_by_side.ended.stdout)
    assert sorted(rows) == [
        ("PASSED", f"test_row[{BASELINE}]"),
        ("SKIPPED", f"test_row[{EASY}]"),
        ("SKIPPED", f"test_row[{HARD}]"),
    ]
    assert side_by_side.ended.returncode == 1


@pytest.mark.slow
def test_the_record_counts_the_episodes_of_the_row_beside_it(side_by_side: Gated) -> None:
    rows = record(side_by_side.made)["rows"]
    assert (rows[HARD]["successes"], rows[HARD]["episodes"]) == (6, 12)
    assert rows.get(EASY, {"successes": 0}).get("episodes", 0) < 20
    assert side_by_side.made.evidence(HARD, EASY) == []


# the sweep


def test_a_sweep_ends_its_rows_and_starts_no_further_one(ready: Path, copy_of: Callable[[Made], Made]) -> None:
    made = copy_of(Made(ready, campaigns.environment(ready)))
    made.behave(**{HARD: [FAILS_AND_HANGS], BASELINE: ["ok"]})
    ended = made.tracka(*made.sweep_words("--max-parallel", "1"))
    assert ended.returncode == 1
    assert made.statuses() == {BASELINE: ("pass", None), HARD: STOPPED, EASY: ("pending", None)}
    assert f"{EASY}: not started, the campaign was stopped early" in ended.stdout
    assert EASY not in made.started()


@pytest.mark.slow
def test_a_sweep_that_ends_because_every_claim_has_passed_succeeds(
    ready: Path, copy_of: Callable[[Made], Made]
) -> None:
    made = copy_of(Made(ready, campaigns.environment(ready)))
    change(made, '"futility"', '"both"')
    made.behave(**{HARD: [f"episodes:0={ALL}"], EASY: [f"batches:0.01 19 1={ALL}"]})
    ended = made.tracka(*made.sweep_words("--max-parallel", "1"))
    assert ended.returncode == 0, ended.stdout
    assert made.statuses()[EASY] == STOPPED
