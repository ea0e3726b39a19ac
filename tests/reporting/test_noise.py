"""`tracka noise`: how often a campaign differs from itself, and what comparisons make of that."""

import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import campaigns
import pytest
from campaigns import SETTINGS, Made
from statsmodels.stats.proportion import proportion_confint

from tracka.campaign.verdict_settings import VerdictSettings
from tracka.core import files, schema
from tracka.core.comparisons import Comparison
from tracka.reporting import baseline_file, comparison_report, played_episodes
from tracka.reporting.sides import Side
from tracka.runs import repetition

LONG, SHORT = "long", "short"  # 21 episodes of task 0 and 5 of task 1
ROWS = [
    f"{name},libero_object,1,{episodes},cpu,7,egl,checkpoints/fake,1"
    for name, episodes in (("baseline_b1_e2", 2), (LONG, 21), (SHORT, 5))
]
Called = CompletedProcess[str]


def behave(made: Made, wins: str) -> None:
    made.behave(long=[f"episodes:0={wins}"], short=["episodes:1=0,1,2,3,4"])


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> tuple[Made, Called, Called]:
    """A campaign that lost episode 7 and won episode 8 when it was played again, and what `noise` said, twice."""
    root = tmp_path_factory.mktemp("noise") / "campaign"
    shutil.copytree(prepared, root)
    made = campaigns.make(root, ROWS, f"{SETTINGS}\n[rows.short]\ntask_ids = [1]\n")
    behave(made, "0,1,2,3,4,5,6,7")
    with pytest.MonkeyPatch.context() as environ:
        for variable, value in made.environ.items():
            environ.setenv(variable, value)
        for run_id in (LONG, SHORT):
            made.run_row(run_id)
    before = campaigns.contents(made.layout.artifacts, "locks")
    behave(made, "0,1,2,3,4,5,6,8")
    first = made.call("noise", str(root), "--max-parallel", "2")
    after = campaigns.contents(made.layout.artifacts, "locks", "noise")
    assert {name: content for name, content in after.items() if before.get(name) != content} == {}
    return made, first, made.call("noise", str(root))


@pytest.fixture
def side(twice: tuple[Made, Called, Called]) -> Side:
    return played_episodes.read(twice[0].root)


def other(side: Side, flipped: Collection[int]) -> Side:
    """A side whose episodes of task 0 with these numbers ended otherwise, and whose own noise nobody knows."""
    episodes = [replace(each, repeated=None) for each in side.episodes]
    changed = [
        replace(each, success=each.success ^ (each.task[1] == 0 and each.number in flipped)) for each in episodes
    ]
    return replace(side, episodes=tuple(changed))


def test_the_flips_of_a_repetition_are_named_and_their_rate_has_the_exact_interval(
    twice: tuple[Made, Called, Called],
) -> None:
    _, first, _ = twice
    assert first.returncode == 0, first.stderr
    loss, gain, rate = first.stdout.splitlines()  # the rows' own lines are printed by their processes
    assert loss == "loss: libero_object 0, episode 7 (init state 7, seed 14)"
    assert gain == "gain: libero_object 0, episode 8 (init state 8, seed 15)"
    low, high = (f"{100 * end:.4g}%" for end in proportion_confint(2, 26, method="beta"))
    assert rate == (
        f"2 of 26 episodes flipped when played again: 7.692% (95% interval {low} to {high}, Clopper-Pearson)."
    )


def test_a_second_call_plays_nothing_and_says_the_same(twice: tuple[Made, Called, Called]) -> None:
    made, first, second = twice
    assert second.stdout == first.stdout
    assert sorted(made.started()) == sorted([LONG, SHORT, LONG, SHORT])


def test_a_repetition_has_nothing_to_show_so_that_it_is_never_stopped_early(twice: tuple[Made, Called, Called]) -> None:
    spec = replace(twice[0].spec, verdict=VerdictSettings(threshold=0.9, early="both"))
    assert repetition.of(spec, spec.compared_rows).verdict is None


def noise(value: Comparison) -> tuple[int, int, int]:
    found = value["noise"]
    assert found is not None
    return found["episodes"], found["noise_flips"], found["flips"]


def test_a_discordance_that_is_not_above_the_noise_floor_is_said_in_the_sentence(side: Side) -> None:
    value = comparison_report.compare_sides(side, other(side, range(9, 17)))
    assert noise(value) == (26, 2, 8)
    assert value["noise"] is not None and value["noise"]["p"] == pytest.approx(56 / 1024)  # 2 or fewer of 10
    assert "8 of 26 pairs and A from itself, played again, in 2 " in value["sentence"]
    assert "the flips are not above the noise floor (one-sided p = 0.0547, exact McNemar)" in value["sentence"]
    assert schema.findings("comparison", value, "value") == []


def test_a_discordance_above_the_noise_floor_is_a_note(side: Side) -> None:
    value = comparison_report.compare_sides(side, other(side, range(9, 19)))
    assert value["noise"] is not None and value["noise"]["p"] == pytest.approx(79 / 4096)  # 2 or fewer of 12
    assert any("the flips are above the noise floor" in note for note in value["notes"])
    assert "noise" not in value["sentence"]


def test_flips_of_the_same_episodes_as_the_noise_speak_neither_for_nor_against_it(side: Side) -> None:
    value = comparison_report.compare_sides(side, other(side, (7, 8)))
    assert noise(value) == (26, 2, 2)
    assert value["noise"] is not None and value["noise"]["p"] == 1


def test_the_noise_of_the_candidate_serves_where_the_baselines_is_unknown(side: Side) -> None:
    value = comparison_report.compare_sides(other(side, ()), side)
    assert value["noise"] is not None and value["noise"]["side"] == "B"
    quiet = other(side, ())
    assert comparison_report.compare_sides(quiet, quiet)["noise"] is None
    unknown = comparison_report.compare_sides(quiet, other(side, (3,)))
    assert any(f"`tracka noise {quiet.name}` plays it again" in note for note in unknown["notes"])


def test_an_exported_baseline_keeps_the_noise(side: Side, tmp_path: Path, twice: tuple[Made, Called, Called]) -> None:
    path = tmp_path / "baseline.json"
    baseline_file.write(baseline_file.make(side, "noisy", tmp_path), path)
    candidate = other(side, range(9, 17))
    ours, theirs = (comparison_report.compare_sides(each, candidate) for each in (played_episodes.read(path), side))
    assert ours["noise"] == theirs["noise"]
    assert "2 of 26 episodes flipped when played again: 7.692%" in twice[0].call("baseline", "show", str(path)).stdout


def test_rows_that_have_not_passed_with_todays_inputs_are_refused_at_once_and_nothing_starts(
    twice: tuple[Made, Called, Called], tmp_path: Path
) -> None:
    copy = campaigns.copied(twice[0], tmp_path)
    copy.change_weights()
    shutil.rmtree(copy.layout.run(SHORT).path)
    started = copy.started()
    ended = copy.call("noise", str(copy.root))
    assert (ended.returncode, copy.started()) == (2, started)
    assert "the row passed with another matrix row, settings, checkpoint or software" in ended.stderr
    assert f"the row {SHORT} has not passed" in ended.stderr


def test_a_repetition_that_failed_or_was_edited_tells_nothing_of_noise(
    twice: tuple[Made, Called, Called], tmp_path: Path
) -> None:
    copy = campaigns.copied(twice[0], tmp_path)
    again = copy.layout.artifacts / "noise" / "runs"
    lines = (again / LONG / "attempts" / "1" / "episodes.jsonl").read_text().replace("true", "false")
    for path in (again / LONG / "episodes.jsonl", again / LONG / "attempts" / "1" / "episodes.jsonl"):
        files.write_text(path, lines)
    shutil.rmtree(again / SHORT)
    (copy.layout.artifacts / "noise" / "state" / "rows" / f"{SHORT}.json").unlink()
    assert {each.repeated for each in played_episodes.read(copy.root).episodes} == {None}
    copy.behave(short=["crash", "crash"])
    ended = copy.call("noise", str(copy.root))
    assert ended.returncode == 1
    assert "5 of 26 episodes have not been played again, or began otherwise." in ended.stdout
    assert "of 21 episodes flipped when played again" in ended.stdout  # the edited row has run again
