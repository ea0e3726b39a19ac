"""What limits a verdict though it breaks no contract: where it is said, and that it fails nothing."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import av
import campaigns
import numpy as np
import pytest
from campaigns import SETTINGS, Made, judged

from tracka.core import files
from tracka.core.errors import Finding
from tracka.gates import validate
from tracka.reporting import caveats, verdict

ROWS = (
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    "uneven_b3_e4,libero_object,3,4,cpu,7,egl,checkpoints/fake,1",
    "long_b1_e60,libero_object,1,60,cpu,8,egl,checkpoints/fake,1",
)
BASELINE, UNEVEN = "baseline_b1_e2", "lint:uneven_batches"
REMEDY = "Make n_episodes a multiple of batch_size"


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign after its gates that is complete, and of which much is to be said."""
    return campaigns.finished(tmp_path_factory.getbasetemp(), "doubtful", rows=ROWS)


@pytest.mark.slow
def test_a_campaign_without_a_threshold_is_complete_and_not_accepted(doubtful: Made) -> None:
    ended = judged(doubtful)
    assert ended.returncode == 0, ended.stdout
    assert f"verdict: {verdict.NO_THRESHOLD} (strict validation of all phases)" in ended.stdout
    assert "- [x] [campaign](campaign.md)" in doubtful.layout.todo_list.read_text()
    assert "No threshold is set" in doubtful.layout.results.read_text()
    step = f"set min_success_rate below [thresholds] in {doubtful.root}/configs/campaign.toml, then pytest "
    assert f"\nnext: {step}" in ended.stdout
    page = doubtful.layout.report_page.read_text()
    assert "Next: set min_success_rate below [thresholds] in " in page


def test_a_warning_of_preflight_stands_once_on_the_terminal_with_its_remedy(doubtful: Made) -> None:
    [line] = [line for line in judged(doubtful).stdout.splitlines() if UNEVEN in line]
    assert "row uneven_b3_e4: 4 episodes in batches of 3" in line and REMEDY in line


def test_caveats_stand_in_the_handoffs_and_in_the_results(doubtful: Made) -> None:
    notes = files.read_json(doubtful.layout.handoff("phase2"))["notes"]
    assert any(note.startswith(f"warning: preflight, {UNEVEN}: ") and REMEDY in note for note in notes)
    notes = files.read_json(doubtful.layout.handoff("phase4"))["notes"]
    assert any("none of 66 episodes succeeded, in any row" in note for note in notes)
    section = doubtful.layout.results.read_text().partition("## Caveats")[2]
    for words in (
        UNEVEN,
        REMEDY,
        "none of 66 episodes succeeded",
        "60 episodes per LIBERO task, which has 50 init states",
    ):
        assert words in section


@pytest.mark.parametrize(("episodes", "said"), [(1, "succeeds in 95%"), (3, "succeeds in 63%"), (30, "")])
def test_few_episodes_without_a_success_are_told_for_what_they_are(
    make_campaign: Callable[..., Made], episodes: int, said: str
) -> None:
    finding = without_success(make_campaign([line(BASELINE, episodes)]))
    assert finding.what.startswith(f"none of {episodes} episode{'' if episodes == 1 else 's'} succeeded, in any row")
    assert (said in finding.what) if said else ("so few" not in finding.what)
    assert "If neither shows a fault, the policy itself fails" in finding.remedy


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({}, "none of 4 episodes succeeded, in any row, of 2 different init states; so few show little: a policy that"),
        ({"n_episodes": 3}, "none of 5 episodes succeeded, in any row, of 3 different init states; so few"),
        ({"batch_size": 2}, "none of 4 episodes succeeded, in any row, of 2 different init states"),
        ({"seed": 8}, "none of 4 episodes succeeded, in any row, of 2 different init states"),
        ({"suite": "libero_goal"}, "none of 4 episodes succeeded, in any row; so few show little"),
    ],
)
def test_an_init_state_that_two_rows_play_counts_once(
    make_campaign: Callable[..., Made], other: dict[str, object], said: str
) -> None:
    made = make_campaign([line(BASELINE, 2), line("other", **{"n_episodes": 2} | other)])
    assert without_success(made).what.startswith(said)


def line(run_id: str, n_episodes: int, suite: str = "libero_object", batch_size: int = 1, seed: int = 7) -> str:
    return f"{run_id},{suite},{batch_size},{n_episodes},cpu,{seed},egl,checkpoints/fake,1"


def without_success(made: Made) -> Finding:
    """Returns the caveat of a campaign whose rows have played all their episodes without a success."""
    rows = made.spec.enabled
    results = {
        row.run_id: {"status": "pass", "successes": 0, "episodes": row.n_episodes * len(made.spec.task_ids(row))}
        for row in rows
    }
    (finding,) = caveats._without_success(made.spec, results)
    return finding


def test_caveats_stand_in_the_junit_report(doubtful: Made) -> None:
    cases = {case.get("name"): case for case in ElementTree.parse(doubtful.root.parent / "junit.xml").iter("testcase")}
    found = {
        name: [item.get("value") or "" for item in cases[name].iter("property") if item.get("name") == "caveat"]
        for name in ("test_no_required_check_fails", "test_the_results_tell_every_rate_with_its_episodes")
    }
    warned, odd = found.values()
    assert any(UNEVEN in words and REMEDY in words for words in warned)
    assert any("none of 66 episodes succeeded" in words for words in odd)


def test_caveats_are_no_findings_of_a_strict_validation(doubtful: Made, copy_of: Callable[[Made], Made]) -> None:
    assert validate.validate(copy_of(doubtful).spec, strict=True) == []


def test_a_caveat_that_is_taken_out_of_the_results_is_missed(doubtful: Made, copy_of: Callable[[Made], Made]) -> None:
    made = copy_of(doubtful)
    page = made.layout.results
    page.write_text("\n".join(line for line in page.read_text().splitlines() if UNEVEN not in line) + "\n")
    assert any("the page does not match the run folders" in str(each) for each in validate.validate(made.spec))


def test_the_settings_that_are_not_the_benchmarks_own_are_named(made: Made) -> None:
    made.configure(
        "[rows.long_b1_e6]\nepisode_length = 100\nobservation_height = 256\nobservation_width = 256\n"
        '[rows.long_b1_e6.flags]\n"env.fps" = 10'
    )
    told = {f"{each.where}: {each.what}" for each in caveats.of_settings(made.spec)}
    assert told == {
        "rows long_b1_e6: 6 of the 50 init states of each LIBERO task",
        "rows wide_b4_e4: 4 of the 50 init states of each LIBERO task",
        "rows long_b1_e6: episodes end after 100 steps, those of libero_object after 280",
        "rows long_b1_e6: frames of 256 x 256, lerobot's own are 360 x 360",
        "rows long_b1_e6: the flag env.fps = 10",
        "checkpoints/fake: of the 10 tasks of libero_object only 1 is evaluated: task 0",
    }
    text = SETTINGS.replace("task_ids = [0]", "").replace(
        "[timeouts]", "[rows.baseline_b1_e2]\ntask_ids = [0]\n[timeouts]"
    )
    made.layout.settings.write_text(text)
    made.layout.matrix.write_text(made.layout.matrix.read_text().replace(",1,6,", ",1,50,").replace(",4,4,", ",5,50,"))
    assert list(caveats.of_settings(made.spec)) == []


@pytest.mark.parametrize(("grey", "said"), [(True, ["1 of 1 videos show one colour"]), (False, [])])
def test_videos_of_one_colour_are_named(ready: Made, grey: bool, said: list[str]) -> None:
    ready.behave(long_b1_e6=["ok:1"])
    result = ready.run_row("long_b1_e6")
    if grey:
        film(ready.root / result["video_paths"][0])
    told = [each for each in caveats.of_results(ready.spec) if each.where == "row long_b1_e6"]
    assert [each.what.partition(", such as")[0] for each in told] == said


def film(path: Path) -> None:
    """Puts three grey frames at `path`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ("", verdict.NO_THRESHOLD),
        ("[thresholds]\nmin_success_rate = 0.0", verdict.NO_THRESHOLD),
        ("[thresholds.rows]\nbaseline_b1_e2 = 0.5", verdict.NO_THRESHOLD),
        ("[thresholds.rows]\nlong_b1_e6 = 0.5", "accepted, no threshold set for wide_b4_e4"),
        ("[thresholds]\nmin_success_rate = 0.1", "accepted"),
        ("[thresholds.rows]\nlong_b1_e6 = 0.5\nwide_b4_e4 = 0.5", "accepted"),
        ("[known_answers.long_b1_e6]\n0 = []\n[known_answers.wide_b4_e4]\n0 = [1]", "accepted"),
    ],
)
def test_the_verdict_says_accepted_only_where_each_row_has_something_to_reach(
    made: Made, thresholds: str, words: str
) -> None:
    made.configure(thresholds)
    assert verdict.words(made.spec, accepted=True) == words
    assert verdict.words(made.spec, accepted=False) == "not accepted"
