"""`tracka compare`: known flips and textbook p-values, what cannot be paired, and what cannot be compared at all."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import campaigns
import pytest
from campaigns import SETTINGS, Made

from tracka.core import files, schema
from tracka.core.errors import UsageError
from tracka.core.files import Json
from tracka.reporting import baseline_file, comparison_report, episode_pairing, played_episodes
from tracka.reporting.sides import PlayedEpisode, Side
from tracka.runs import identity
from tracka.runs.run import RerunPolicy

LONG, SHORT = "long", "short"  # 21 episodes of task 0 and 5 of task 1
TABLES = "[rows.short]\ntask_ids = [1]\n"
FIRST_EIGHT = "episodes:0=0,1,2,3,4,5,6,7"
ALL_FIVE = "episodes:1=0,1,2,3,4"
Called = CompletedProcess[str]


def rows(seed: int = 7, batch_size: int = 1, suite: str = "libero_object") -> list[str]:
    return [
        f"{name},{suite},{batch},{episodes},cpu,{seed},egl,checkpoints/fake,1"
        for name, batch, episodes in (("baseline_b1_e2", 1, 2), (LONG, batch_size, 21), (SHORT, batch_size, 5))
    ]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Iterator[Callable[..., Made]]:
    """Returns a function that plays a campaign's two rows, each with its word for the stand-in."""

    def played(
        name: str, long: str, short: str | None, matrix: Sequence[str] | None = None, settings: str = ""
    ) -> Made:
        root = tmp_path_factory.mktemp("compared") / name
        shutil.copytree(prepared, root)
        made = campaigns.make(root, matrix or rows(), f"{SETTINGS}{settings}\n{TABLES}")
        capabilities = files.read_json(made.layout.capabilities)  # the stand-in's help has fewer flags than lerobot's
        capabilities["supported_flags"].append("--env.init_states")
        files.write_json(made.layout.capabilities, capabilities)
        campaigns.fake_checkpoint(root / "checkpoints" / "other")
        made.behave(long=[long], short=[short or ""])
        with pytest.MonkeyPatch.context() as environ:
            for variable, value in made.environ.items():
                environ.setenv(variable, value)
            for run_id in (LONG, SHORT) if short else (LONG,):
                made.run_row(run_id, RerunPolicy(retry=False))
        return made

    yield played


@pytest.fixture(scope="module")
def old(play: Callable[..., Made]) -> Made:
    return play("old", FIRST_EIGHT, ALL_FIVE)


@pytest.fixture(scope="module")
def textbook(play: Callable[..., Made]) -> Made:
    """Of the 21 episodes one is won by both, one by this alone and seven by the old alone."""
    return play("textbook", "episodes:0=0,8", ALL_FIVE)


@pytest.fixture(scope="module")
def worse(play: Callable[..., Made]) -> Made:
    """Loses the five episodes of one task and no other."""
    return play("worse", FIRST_EIGHT, "episodes:1=")


@pytest.fixture(scope="module")
def reseeded(play: Callable[..., Made]) -> Made:
    return play("reseeded", "episodes:0=0,8", None, rows(seed=11))


def compare(a: Made | Path, b: Made | Path, *words: str) -> Called:
    places = [str(side.root if isinstance(side, Made) else side) for side in (a, b)]
    caller = a if isinstance(a, Made) else b
    assert isinstance(caller, Made)
    return caller.call("compare", *places, *words)


def as_json(a: Made | Path, b: Made | Path, *words: str) -> Json:
    ended = compare(a, b, "--format", "json", *words)
    assert ended.returncode in (0, 1), ended.stderr
    value: Json = json.loads(ended.stdout)
    return value


# pairs


def test_pairs_of_1_1_7_12_give_the_textbooks_values_and_those_eight_flips(old: Made, textbook: Made) -> None:
    # Fagerland, Lydersen and Laake 2013: exact .0703, Tango -.517 to -.026.
    value = as_json(old, textbook)
    task, other = value["tasks"]
    assert (task["gains"], task["losses"], task["baseline"]["episodes"]) == (1, 7, 21)
    assert task["two_sided"]["value"] == pytest.approx(0.0703, abs=5e-5)
    assert (round(task["interval"]["low"], 3), round(task["interval"]["high"], 3)) == (-0.517, -0.026)
    assert (other["gains"], other["losses"], other["difference"]) == (0, 0, 0)
    flips = {(flip["task"], flip["episode"], flip["seed"]): flip["change"] for flip in value["flips"]}
    assert flips == {(0, 8, 15): "gain"} | {(0, number, 7 + number): "loss" for number in range(1, 8)}
    assert (value["pairing"]["pairs"], value["pairing"]["reason"]) == (26, None)
    assert value["overall"]["worse"]["value"] == pytest.approx(9 / 256)
    assert value["tasks"][0]["holm"]["value"] == pytest.approx(2 * 9 / 256)  # of two tasks


def test_five_losses_and_no_gain_are_worse_with_one_in_32_and_exit_code_1(old: Made, worse: Made) -> None:
    ended = compare(old, worse)
    assert ended.returncode == 1, ended.stderr
    *_, sentence = ended.stdout.splitlines()
    assert sentence.startswith("B is worse than A: 5 losses and 0 gains in 26 pairs, a change of -19.2 points (95%")
    assert "one-sided p = 0.0312 (exact McNemar, pooled over 2 tasks)" in sentence
    assert sum(line.startswith("loss: libero_object 1, episode ") for line in ended.stdout.splitlines()) == 5
    assert "26 episodes are paired by suite, task, episode, init state, seed, reset ordinal." in ended.stdout
    assert f"next: tracka report {worse.root} --against {old.root} shows both videos of each" in ended.stderr


def test_the_same_losses_are_not_shown_to_be_worse_at_a_higher_confidence(old: Made, worse: Made) -> None:
    ended = compare(old, worse, "--confidence", "0.99")
    assert (ended.returncode, "B is not shown to be worse than A" in ended.stdout) == (0, True)
    assert "show a drop of " in ended.stdout.splitlines()[-1]


def test_a_campaign_is_non_inferior_to_itself_within_a_margin_that_so_many_pairs_can_hold(old: Made) -> None:
    wide, narrow = (as_json(old, old, "--margin", margin) for margin in ("0.2", "0.01"))
    assert (wide["verdict"], narrow["verdict"]) == ("non-inferior", "not shown to be worse")
    assert wide["flips"] == [] and wide["overall"]["worse"]["value"] == 1
    assert any("the same checkpoint" in note for note in wide["notes"])


def test_a_flip_names_both_videos_where_the_episode_was_filmed(worse: Made, old: Made) -> None:
    first, second, *_ = as_json(worse, old)["flips"]
    assert [Path(first[f"{side}_video"]).is_file() for side in ("baseline", "candidate")] == [True, True]
    assert Path(first["baseline_video"]).is_relative_to(worse.root)
    assert (second["baseline_video"], second["candidate_video"]) == (None, None)  # the stand-in films one a task


def test_a_row_that_crashed_is_left_out_and_is_no_failure_of_the_policy(play: Callable[..., Made], old: Made) -> None:
    crashed = play("crashed", FIRST_EIGHT, "crash")
    value = as_json(old, crashed)
    assert value["candidate"]["left_out"] == ["short: fail (crash)"]
    assert any(note.startswith(f"baseline_b1_e2 of {crashed.root} is not among its rows") for note in value["notes"])
    assert [task["task"] for task in value["tasks"]] == [0]
    assert any("libero_object 1" in note for note in value["notes"])
    assert value["across_tasks"] is None


# exported baselines, and campaigns of several checkpoints


def test_an_exported_baseline_is_compared_as_its_campaign_is(old: Made, worse: Made, tmp_path: Path) -> None:
    exported = tmp_path / "old.json"
    baseline_file.write(baseline_file.make(played_episodes.read(old.root), "old", old.root), exported)
    by_file, by_folder = (as_json(place, worse) for place in (exported, old.root))
    assert (by_file["baseline"].pop("kind"), by_file["baseline"].pop("name")) == ("baseline", str(exported))
    for value in (by_file, by_folder):
        for flip in value["flips"]:
            flip["baseline_video"] = None
    hint = by_folder["notes"].pop()  # only a campaign that is here can be played again
    assert hint.startswith("Whether A differs from itself as often is unknown")
    assert by_file == by_folder | {"baseline": by_file["baseline"]}
    assert by_file["pairing"]["by"][-2:] == ["seed", "reset ordinal"] and len(by_file["flips"]) == 5


def test_sides_that_other_software_played_are_compared_and_what_differs_is_said(old: Made) -> None:
    side = played_episodes.read(old.root)
    changed = [row | {"versions": row["versions"] | {"mujoco": "9"}, "software_sha256": "0" * 64} for row in side.rows]
    other = replace(side, rows=tuple(row | {"engine": "resident"} for row in changed))  # type: ignore[misc]
    (note,) = [note for note in comparison_report.compare_sides(side, other)["notes"] if "Not only" in note]
    mujoco = side.rows[0]["versions"]["mujoco"]
    assert f"another engine (lerobot-eval and resident), other software (mujoco {mujoco} and 9)" in note


def test_settings_that_differ_are_named_in_terminal_json_and_page(old: Made, play: Callable[..., Made]) -> None:
    large = play("large", FIRST_EIGHT, ALL_FIVE, settings="\n[rows.long]\nobservation_height = 128\n")
    words = "other settings (observation_height not set and 128/not set)"
    assert any("Not only" in note and words in note for note in as_json(old, large)["notes"])
    assert words in compare(old, large).stdout and words in compare(old, large, "--format", "markdown").stdout
    assert not any("Not only" in note for note in as_json(old, old.root)["notes"])


def test_a_campaign_of_two_checkpoints_is_compared_by_one_of_them(old: Made, play: Callable[..., Made]) -> None:
    base, first, second = rows()
    both = play("both", FIRST_EIGHT, ALL_FIVE, [base, first, second.replace("checkpoints/fake", "checkpoints/other")])
    refused = compare(old, both)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"{both.root}: its rows are of 2 checkpoints. Name one: {both.root}::checkpoints/fake, " in refused.stderr
    for policy, task, pairs in (("checkpoints/fake", 0, 21), (str(both.root / "checkpoints" / "other"), 1, 5)):
        value = as_json(old, Path(f"{both.root}::{policy}"))
        assert [each["task"] for each in value["tasks"]] == [task]
        assert value["pairing"]["pairs"] == pairs
    unknown = compare(old, Path(f"{both.root}::checkpoints/none"))
    assert unknown.returncode == 2 and "no row has the checkpoint checkpoints/none" in unknown.stderr


# no pairs


def test_other_seeds_are_compared_unpaired_and_the_reason_is_said(old: Made, reseeded: Made) -> None:
    value = as_json(old, reseeded)
    assert (value["pairing"]["pairs"], value["pairing"]["reason"]) == (0, "none begin alike, since the seeds differ")
    assert (value["overall"]["interval"]["method"], value["overall"]["worse"]["method"]) == (
        "Newcombe",
        "Boschloo exact",
    )
    assert value["overall"]["gains"] is None and value["flips"] == []
    assert (
        "Nothing is paired: of all episodes none begin alike, since the seeds differ" in compare(old, reseeded).stdout
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"), [(56, 48, 0.0524, 0.3339), (9, 3, 0.1705, 0.8090)], ids=["70/80", "10/10"]
)
def test_unpaired_rates_have_newcombes_published_interval(
    tmp_path: Path, ours: int, theirs: int, low: float, high: float
) -> None:
    counts = (70, 80) if ours == 56 else (10, 10)
    episodes = [
        [PlayedEpisode(("s", 0), i, i, i < wins, tmp_path, 1000 * side + i, i, 280, True) for i in range(count)]
        for side, (wins, count) in enumerate(zip((theirs, ours), reversed(counts), strict=True))
    ]
    value = comparison_report.compare_sides(*(Side("s", "campaign", (*each,)) for each in episodes))
    assert value["overall"]["interval"]["low"] == pytest.approx(low, abs=5e-5)
    assert value["overall"]["interval"]["high"] == pytest.approx(high, abs=5e-5)


def side(name: str, **changed: object) -> Side:
    """A side of ten episodes in each of two tasks, of which five succeed; `changed` are facts of each episode."""
    episodes = [
        PlayedEpisode(("libero_object", task), i, i, i < 5, Path(), 7 + i, i, 280, True)
        for task in (0, 1)
        for i in range(10)
    ]
    return Side(name, "campaign", tuple(replace(episode, **changed) for episode in episodes))  # type: ignore[arg-type]


def test_other_batch_sizes_leave_too_few_pairs_to_test_these_alone(tmp_path: Path) -> None:
    whole = side("batched")
    batched = replace(whole, episodes=tuple(replace(each, reset_ordinal=0) for each in whole.episodes))
    pairing = episode_pairing.pair(side("single"), batched)
    assert (len(pairing.pairs), len(pairing.baseline)) == (0, 20)
    assert pairing.reason is not None and pairing.reason.startswith("only 2 begin alike, since the batch sizes differ")


def test_what_one_side_has_not_played_has_no_partner() -> None:
    whole = side("whole")
    part = replace(whole, episodes=tuple(each for each in whole.episodes if each.number < 4))
    pairing = episode_pairing.pair(whole, part)
    assert (len(pairing.pairs), len(pairing.baseline), len(pairing.candidate)) == (8, 20, 8)


def test_an_episode_that_two_rows_began_alike_counts_once() -> None:
    whole = side("whole")
    twice = replace(whole, episodes=(*whole.episodes, *whole.episodes[:3]))
    pairing = episode_pairing.pair(twice, whole)
    assert (len(pairing.pairs), pairing.repeated) == (20, 3)


def test_tasks_of_other_shares_are_tested_task_by_task() -> None:
    """Both win nine of ten in one task and one of ten in the other, but have not played them equally often."""
    ours, theirs = (
        Side(
            "s",
            "campaign",
            tuple(
                PlayedEpisode(("s", task), i, i, i % 10 < (9, 1)[task], Path(), seed + i, i, 280, True)
                for task, count in enumerate(counts)
                for i in range(count)
            ),
        )
        for seed, counts in ((0, (100, 20)), (1000, (20, 100)))
    )
    value = comparison_report.compare_sides(ours, theirs)
    assert value["overall"]["difference"] < -0.5 and value["verdict"] == "not shown to be worse"
    assert value["overall"]["worse"]["method"].startswith("Cochran-Mantel-Haenszel")
    assert any("other shares" in note for note in value["notes"])


def test_two_thousand_pairs_take_less_than_two_seconds_of_a_core() -> None:
    sides = [
        Side(
            "s",
            "campaign",
            tuple(
                PlayedEpisode(("s", task), i, i, i % 10 < 9 and (i + task) % every > 0, Path(), i, i, 280, True)
                for task in range(40)
                for i in range(50)
            ),
        )
        for every in (1000, 17)
    ]
    start = time.process_time()
    value = comparison_report.compare_sides(*sides)
    assert time.process_time() - start < 2
    assert value["pairing"]["pairs"] == 2000 and value["across_tasks"] is not None


def test_from_a_rate_of_nothing_no_drop_can_be_shown() -> None:
    lost = replace(side("lost"), episodes=tuple(replace(each, success=False) for each in side("lost").episodes))
    value = comparison_report.compare_sides(lost, lost)
    assert value["overall"]["minimum_drop"] is None
    assert value["sentence"].endswith("so few episodes cannot show any drop.")


# eval_info.json


def test_an_eval_info_is_compared_with_a_campaign_by_task_and_init_state(old: Made, worse: Made) -> None:
    info = worse.layout.run(SHORT).attempt(1).output / "eval_info.json"
    value = as_json(old, info)
    assert value["candidate"]["kind"] == "eval_info.json"
    assert value["pairing"]["by"] == ["suite", "task", "episode", "init state"]
    assert (value["overall"]["losses"], value["verdict"]) == (5, "worse")
    assert {flip["seed"] for flip in value["flips"]} == {None}
    assert Path(value["flips"][0]["candidate_video"]).is_relative_to(info.parent)
    assert any("names neither seeds" in note for note in value["notes"])


def test_a_file_that_is_no_eval_info_and_a_folder_that_is_no_campaign_are_refused_together(
    old: Made, tmp_path: Path
) -> None:
    (tmp_path / "info.json").write_text('{"overall": {}}')
    (tmp_path / "folder").mkdir()
    ended = old.call("compare", str(tmp_path / "info.json"), str(tmp_path / "folder"))
    assert ended.returncode == 2
    assert "info.json: this is not lerobot's eval_info.json (KeyError: 'per_task')" in ended.stderr
    assert "folder: this is not a campaign" in ended.stderr
    missing = old.call("compare", str(old.root), str(tmp_path / "nothing"))
    assert missing.returncode == 2 and "nothing: the path does not exist" in missing.stderr


# refusals


def test_other_lengths_and_init_states_are_refused_together_with_what_could_be_compared() -> None:
    ours, theirs = side("ours"), side("theirs")
    others = tuple(replace(each, length=120) if each.task[1] == 0 else each for each in theirs.episodes)
    moved = tuple(replace(each, task=("libero_goal", 3), init_state=each.number + 1) for each in theirs.episodes[:10])
    goal = tuple(replace(each, task=("libero_goal", 3)) for each in ours.episodes[:10])
    with pytest.raises(UsageError) as refused:
        episode_pairing.pair(replace(ours, episodes=ours.episodes + goal), replace(theirs, episodes=others + moved))
    lengths, starts = refused.value.findings
    assert "other numbers of control steps in libero_object 0 (280 and 120, 280)" in lengths.what
    assert "other init states in libero_goal 3" in starts.what
    assert starts.remedy.endswith("What could be compared: libero_object 1")


def test_other_suites_are_refused_by_the_command(old: Made, play: Callable[..., Made]) -> None:
    goal = play("goal", FIRST_EIGHT, None, rows(suite="libero_goal"))
    ended = compare(old, goal)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "they have no task in common: libero_object 0, 1 and libero_goal 0" in ended.stderr


def test_another_length_and_other_init_states_of_the_settings_are_refused(old: Made, play: Callable[..., Made]) -> None:
    settings = '\n[rows.long]\nepisode_length = 120\n\n[rows.long.flags]\n"env.init_states" = false\n'
    ended = compare(old, play("short-lived", FIRST_EIGHT, None, settings=settings))
    assert ended.returncode == 2, ended.stdout
    assert "control steps in libero_object 0 (280 and 120)" in ended.stderr
    assert "other init states in libero_object 0" in ended.stderr
    assert "No task could be compared" in ended.stderr


def edit(made: Made, run_id: str, names: Sequence[str], **values: object) -> None:
    """Edits files of a run, at the top and in the attempt alike."""
    top = made.layout.run(run_id)
    for path in (getattr(folder, name) for folder in (top, top.attempt(1)) for name in names):
        files.write_json(path, files.read_json(path) | values)


def test_an_invalid_simulator_an_unproven_engine_and_an_edited_result_are_refused_together(
    old: Made, worse: Made, tmp_path: Path
) -> None:
    copy = campaigns.copied(worse, tmp_path)
    attempt = copy.layout.run(LONG).attempt(1)
    parts = identity.read(attempt)
    assert parts is not None
    parts["simulator"]["invalid"] = True
    identity.write(attempt, parts)
    said = {"invalid": "task 0: 34 mm off", "unproven": "no certificate", "row_hash": identity.row_hash(parts)}
    edit(copy, LONG, ("manifest", "result"), **said)
    hashes = files.read_json(copy.layout.run(LONG).result)["files"]
    edit(copy, LONG, ("result",), files=hashes | {identity.NAME: files.sha256_file(attempt.path / identity.NAME)})
    edit(copy, SHORT, ("result",), duration_sec=0.5)
    marker = copy.layout.marker(LONG)
    sha256 = files.sha256_file(copy.layout.run(LONG).result)
    files.write_json(marker, files.read_json(marker) | {"result_sha256": sha256})
    ended = compare(old, copy)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "the row is invalid, since its simulator is not the benchmark's: task 0: 34 mm off" in ended.stderr
    assert "the engine is not proven to play lerobot-eval's episodes: no certificate" in ended.stderr
    assert f"{marker.with_name('short.json')}, key result_sha256" in ended.stderr


def test_a_campaign_without_a_passed_row_is_refused_with_the_state_of_its_rows(old: Made, made: Made) -> None:
    ended = compare(old, made)
    assert ended.returncode == 2
    assert "no row has a passed result (long_b1_e6: not run; wide_b4_e4: not run)" in ended.stderr


def test_the_baseline_is_named_where_rows_are_listed(old: Made, made: Made) -> None:
    ended = compare(old, made)
    assert "; baseline_b1_e2 is the baseline, which is never compared. Run the campaign first" in ended.stderr


def test_a_campaign_that_is_named_twice_is_said_to_be_one_and_its_error_comes_once(made: Made) -> None:
    ended = made.call("compare", str(made.root), f"{made.root}/../{made.root.name}")
    assert ended.returncode == 2
    assert "A and B are the same, so there is nothing to compare. Name another campaign as B" in ended.stderr
    again = compare(made, made)
    assert again.stderr.count("no row has a passed result") == 1


def test_a_comparison_of_a_campaign_with_itself_says_so_and_leads_to_another(old: Made) -> None:
    ended = compare(old, old)
    assert ended.returncode == 0
    assert "A and B are the same: all pairs are equal, which shows nothing." in ended.stdout
    assert f"next: tracka compare {old.root} B compares it with another campaign" in ended.stderr


def test_all_wrong_options_are_refused_at_once(old: Made) -> None:
    ended = compare(old, old, "--confidence", "95", "--margin", "5", "--format", "pdf")
    assert (ended.returncode, ended.stderr.count("error: --")) == (2, 3)


# formats


def test_the_json_follows_its_schema_and_has_the_numbers_of_the_text(old: Made, worse: Made, reseeded: Made) -> None:
    for other in (worse, reseeded):
        value = as_json(old, other, "--margin", "0.05")
        assert schema.findings("comparison", value, "stdout") == []
        assert value["sentence"] == compare(old, other, "--margin", "0.05").stdout.splitlines()[-1]


def test_the_markdown_has_the_sentence_the_table_and_the_flips(old: Made, worse: Made) -> None:
    ended = compare(old, worse, "--format", "markdown")
    assert ended.returncode == 1
    assert ended.stdout.startswith("# B against A\n\n**B is worse than A: 5 losses")
    tables = [line for line in ended.stdout.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0] for line in tables[2:5]] == ["| libero_object 0", "| libero_object 1", "| all"]
    assert sum(line.startswith("| loss | libero_object 1, episode ") for line in tables) == 5
    assert len({line.count("|") for line in tables[:5]}) == 1
