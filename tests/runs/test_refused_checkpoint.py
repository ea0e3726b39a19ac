"""One bad checkpoint: the baseline's blocks the campaign, another's fails its own rows and no other's."""

import csv
from collections.abc import Callable
from pathlib import Path

import campaigns
import pytest
from campaigns import Made, fake_checkpoint, judged

from tracka.core import files

BASELINE = "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1"
BAD = ("bad_b1_e2", "bad_b1_e3")
ROWS = (
    BASELINE,
    "good_b1_e6,libero_object,1,6,cpu,7,egl,checkpoints/fake,1",
    "bad_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/other,1",
    "bad_b1_e3,libero_object,1,3,cpu,8,egl,checkpoints/other,1",
)
CAUSE = "the file is cut off: it has 4 of 8 bytes"


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign after its gates, two of whose rows are of a checkpoint that is cut."""
    base = tmp_path_factory.getbasetemp()
    return campaigns.finished(base, "refused", rows=ROWS, before=with_a_cut_checkpoint(base))


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign after its gates, whose baseline's checkpoint is cut."""
    base = tmp_path_factory.getbasetemp()
    rows = (BASELINE.replace("checkpoints/fake", "checkpoints/other"), ROWS[1])
    return campaigns.finished(base, "blocked", rows=rows, before=with_a_cut_checkpoint(base))


def with_a_cut_checkpoint(base: Path) -> Path:
    """A campaign's folder to start from, whose `checkpoints/other` is cut as by a download that broke off."""
    folder = base / "cut"
    if not folder.exists():
        fake_checkpoint(folder / "checkpoints" / "other")
        (folder / "checkpoints" / "other" / "model.safetensors").write_bytes(bytes(4))
    return folder


def statuses(made: Made) -> list[str]:
    return [str(files.read_json(made.layout.handoff(f"phase{number}"))["status"]) for number in range(1, 6)]


@pytest.mark.slow
def test_another_checkpoint_than_the_baselines_fails_its_own_rows_alone(partial: Made) -> None:
    ended = judged(partial)
    assert ended.returncode == 1
    assert statuses(partial) == ["pass", "pass", "pass", "partial", "partial"]
    assert partial.started() == ["baseline_b1_e2", "good_b1_e6"]
    assert partial.statuses()["good_b1_e6"] == ("pass", None)


def test_its_rows_have_a_reason_of_their_own_wherever_rows_are_told(partial: Made) -> None:
    assert {partial.statuses()[run_id] for run_id in BAD} == {("fail", "checkpoint")}
    with (partial.layout.summary / "failures.csv").open() as file:
        assert [(line["run_id"], line["reason"]) for line in csv.DictReader(file)] == [
            (run_id, "checkpoint") for run_id in BAD
        ]
    assert "| bad_b1_e2 | libero_object | fail (checkpoint) |" in partial.layout.results.read_text()


def test_the_phases_before_pass_with_a_note_and_the_cause_stands_once_on_the_terminal(partial: Made) -> None:
    assert any(CAUSE in note for note in files.read_json(partial.layout.handoff("phase2"))["notes"])
    assert judged(partial).stdout.count(CAUSE) == 1
    assert "preflight refuses the checkpoint checkpoints/other: weights:checkpoints/other" in judged(partial).stdout


def test_a_checkpoint_that_is_mended_runs_with_last_failed(partial: Made, copy_of: Callable[[Made], Made]) -> None:
    made = copy_of(partial)
    fake_checkpoint(made.root / "checkpoints" / "other")
    ended = made.pytest("-n0", "--lf")
    assert ended.returncode == 0, ended.stdout
    assert sorted(made.started()[2:]) == [*BAD]
    assert "weights:checkpoints/other" not in made.layout.results.read_text()  # preflight has looked again
    assert statuses(made) == ["pass"] * 5


@pytest.mark.slow
def test_one_that_is_left_as_it_was_is_refused_again(partial: Made, copy_of: Callable[[Made], Made]) -> None:
    made = copy_of(partial)
    assert made.pytest("-n0", "--lf").returncode == 1
    assert {made.statuses()[run_id] for run_id in BAD} == {("fail", "checkpoint")}
    assert made.started() == partial.started()


def test_a_fault_of_the_baselines_checkpoint_blocks_the_campaign_and_its_cause_stands_below_its_phase_and_at_the_end(
    blocked: Made,
) -> None:
    ended = judged(blocked)
    assert ended.returncode == 1
    assert statuses(blocked) == ["pass", "blocked", "blocked", "blocked", "blocked"]
    assert blocked.started() == []
    of_phase, _, at_end = ended.stdout.partition("cause: ")
    assert of_phase.count(CAUSE) == at_end.count(CAUSE) == 1, ended.stdout
    assert of_phase.index("phase2: blocked") < of_phase.index(CAUSE) < of_phase.index("phase3: blocked")
    assert CAUSE in (blocked.root.parent / "junit.xml").read_text()


def test_a_sweep_runs_the_other_rows_and_says_why_those_did_not(partial: Made, copy_of: Callable[[Made], Made]) -> None:
    made = copy_of(partial)
    ended = made.tracka(*made.sweep_words("--resume"))
    assert ended.returncode == 1
    assert "2 of 4 rows passed" in ended.stdout
    assert ended.stderr.count("preflight refuses the checkpoint checkpoints/other") == 2
