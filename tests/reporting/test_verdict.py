"""`[verdict]`: what is registered, how claims are judged, and where the outcome is shown and decides."""

import json
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import campaigns
import pytest
from campaigns import SETTINGS, Made

from tracka.campaign import campaign
from tracka.campaign.verdict_settings import VerdictSettings
from tracka.core import files, schema
from tracka.core.errors import UsageError
from tracka.core.verdicts import CampaignVerdict
from tracka.gates import validate
from tracka.reporting import baseline_file, campaign_verdict, played_episodes
from tracka.runs import early_stop, preregistration
from tracka.runs.run import RerunPolicy

BASELINE, LONG, SHORT = "baseline_b1_e2", "long", "short"  # 40 episodes of task 0 and 20 of task 1
MATRIX = [
    f"{name},libero_object,1,{episodes},cpu,7,egl,checkpoints/fake,1"
    for name, episodes in ((BASELINE, 2), (LONG, 40), (SHORT, 20))
]
VERDICT = "[rows.short]\ntask_ids = [1]\n[verdict]\nthreshold = 0.8\n"
SUITE = VerdictSettings(threshold=0.8)
Played = Callable[..., Made]


def settings(verdict: str = VERDICT) -> str:
    return f"{SETTINGS}\n{verdict}"


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Iterator[Played]:
    """Returns a function that plays a campaign's two rows, each with its word for the stand-in."""

    def played(name: str, long: str, short: str, matrix: Sequence[str] = MATRIX) -> Made:
        root = tmp_path_factory.mktemp("judged") / name
        shutil.copytree(prepared, root)
        made = campaigns.make(root, matrix, settings())
        made.behave(long=[long], short=[short])
        with pytest.MonkeyPatch.context() as environ:
            for variable, value in made.environ.items():
                environ.setenv(variable, value)
            preregistration.ensure(made.spec)
            for run_id in (LONG, SHORT):
                made.run_row(run_id, RerunPolicy(retry=False))
        return made

    yield played


@pytest.fixture(scope="module")
def good(play: Played) -> Made:
    """55 of 60 episodes succeed."""
    return play("good", "ok:38", "ok:17")


@pytest.fixture(scope="module")
def crashed(play: Played) -> Made:
    """38 of 40 episodes succeed, and 20 are lost with their row."""
    return play("crashed", "ok:38", "traceback")


def verdict_of(made: Made, asked: VerdictSettings = SUITE) -> CampaignVerdict:
    return campaign_verdict.make(replace(made.spec, verdict=asked))


# one claim


def test_a_rate_whose_lower_bound_reaches_the_threshold_passes(good: Made) -> None:
    verdict = verdict_of(good)
    (claim,) = verdict["rates"]
    assert (verdict["outcome"], claim["successes"], claim["episodes"], claim["lost"]) == ("pass", 55, 60, 0)
    assert claim["low"] == pytest.approx(0.8327, abs=1e-4)  # scipy.stats.binomtest(55, 60), exact, one-sided
    assert verdict["sentence"].startswith(
        "pass: checkpoints/fake on libero_object: 55 of 60 episodes succeeded (91.67%)"
    )
    assert "the one-sided 95% lower bound, 83.27%, reaches the threshold of 80%" in verdict["sentence"]


def test_a_rate_whose_upper_bound_is_below_the_threshold_fails(good: Made) -> None:
    verdict = verdict_of(good, VerdictSettings(threshold=0.98))
    assert verdict["outcome"] == "fail"
    assert "is below the threshold of 98%" in verdict["sentence"]


def test_a_threshold_between_the_bounds_is_underpowered_and_says_how_many_more_would_decide(good: Made) -> None:
    verdict = verdict_of(good, VerdictSettings(threshold=0.88))
    (claim,) = verdict["rates"]
    assert verdict["outcome"] == "underpowered"
    assert f"about {claim['more_episodes']} more episodes would decide it at this rate" in verdict["sentence"]


def test_episodes_that_two_rows_begin_alike_count_once(good: Made) -> None:
    spec = good.spec
    twins = [replace(row, run_id=LONG) if row.run_id == SHORT else row for row in spec.rows]
    doubled = replace(spec, rows=(*spec.rows, *(row for row in twins if row.run_id == LONG)), verdict=SUITE)
    assert campaign_verdict.make(doubled)["rates"][0]["episodes"] == 60


# several claims


def test_a_pass_needs_every_claim_and_the_sentence_is_of_one_that_decides(good: Made) -> None:
    verdict = verdict_of(good, VerdictSettings(threshold=0.8, tasks={"libero_object/1": 0.84}))
    assert [claim["outcome"] for claim in verdict["rates"]] == ["pass", "underpowered"]
    assert verdict["outcome"] == "underpowered"
    assert "checkpoints/fake on libero_object task 1: 17 of 20" in verdict["sentence"]
    assert "; 1 of 2 claims say underpowered." in verdict["sentence"]


def test_a_fail_among_many_claims_is_adjusted_for_their_number(good: Made) -> None:
    alone = verdict_of(good, VerdictSettings(threshold=0.97))
    among = verdict_of(good, VerdictSettings(threshold=0.97, task_threshold=0.5))
    assert [claim["outcome"] for claim in alone["rates"]] == ["fail"]
    assert among["rates"][0]["p_fail"] == pytest.approx(3 * alone["rates"][0]["p_fail"])


def test_tasks_with_unequal_rates_are_said_beside_the_suites_rate(play: Played) -> None:
    made = play("uneven", "ok:40", "ok:12")
    verdict = verdict_of(made)
    assert verdict["rates"][0]["successes"] == 52
    assert (
        "The tasks of checkpoints/fake on libero_object disagree: 60% in task 1, 100% in task 0" in verdict["sentence"]
    )


# lost episodes


def test_a_crashed_row_turns_a_pass_into_invalid_where_its_episodes_could_turn_it(crashed: Made) -> None:
    verdict = verdict_of(crashed)
    (claim,) = verdict["rates"]
    assert (claim["successes"], claim["episodes"], claim["lost"]) == (38, 40, 20)
    assert (claim["lost_as_failures"], claim["lost_as_successes"]) == ("fail", "pass")
    assert verdict["outcome"] == "invalid"
    words = "20 episodes are lost, and the outcome would be fail if they had failed and pass if they had succeeded"
    assert words in verdict["sentence"]


def test_a_crashed_row_leaves_a_pass_where_its_episodes_could_not_turn_it(crashed: Made) -> None:
    assert verdict_of(crashed, VerdictSettings(threshold=0.5))["outcome"] == "pass"


def test_a_crashed_row_leaves_a_fail_where_its_episodes_could_not_turn_it(crashed: Made) -> None:
    assert verdict_of(crashed, VerdictSettings(threshold=0.999))["outcome"] == "fail"


def test_a_row_on_a_wrong_simulator_makes_its_claims_invalid(good: Made, tmp_path: Path) -> None:
    made = campaigns.copied(good, tmp_path)
    for top in (made.layout.run(LONG), made.layout.run(LONG).attempt(1)):
        files.write_json(top.result, files.read_json(top.result) | {"invalid": "task 0: objects elsewhere"})
    verdict = verdict_of(made)
    assert verdict["outcome"] == "invalid"
    assert "long: the simulator is not the benchmark's" in verdict["sentence"]


# against a baseline


@pytest.fixture(scope="module")
def worse(play: Played) -> Made:
    """43 of 60 episodes succeed: 12 fewer than those of `good`, and none that `good` lost."""
    return play("worse", "ok:30", "ok:13")


def against(made: Made, baseline: Made, margin: float, **more: object) -> CampaignVerdict:
    asked = VerdictSettings(baseline=str(baseline.root), margin=margin)
    return verdict_of(made, replace(asked, **more))  # type: ignore[arg-type]


def test_a_policy_within_the_margin_of_its_baseline_passes(good: Made) -> None:
    verdict = against(good, good, 0.05)
    (claim,) = verdict["baselines"]
    assert (verdict["outcome"], claim["pairs"], claim["gains"], claim["losses"]) == ("pass", 60, 0, 0)
    assert claim["low"] == pytest.approx(-(1.6449**2) / (60 + 1.6449**2), abs=1e-4)  # Tango's bound without a flip
    assert "it is at most 4.3 points worse (one-sided, 95%), within the margin of 5.0 points" in verdict["sentence"]


def test_a_policy_that_lost_more_than_the_margin_fails_with_its_losses_and_gains(good: Made, worse: Made) -> None:
    verdict = against(worse, good, 0.05)
    assert verdict["outcome"] == "fail"
    assert "12 losses and 0 gains in 60 pairs, a change of -20.0 points; it is at least " in verdict["sentence"]


def test_a_margin_between_the_bounds_is_underpowered_with_the_episodes_that_would_decide(
    good: Made, worse: Made
) -> None:
    verdict = against(worse, good, 0.15)
    (claim,) = verdict["baselines"]
    assert verdict["outcome"] == "underpowered"
    assert claim["more_episodes"] is not None
    assert claim["more_episodes"] > 60
    assert f"about {claim['more_episodes']} more would decide it" in verdict["sentence"]


@pytest.fixture
def half_played(play: Played, tmp_path: Path) -> Made:
    """All 40 episodes of one row failed, the other row has not run, and the baseline won all 60."""
    perfect, made = play("perfect", "ok:40", "ok:20"), campaigns.copied(play("hopeless", "ok:0", "ok:0"), tmp_path)
    side = played_episodes.of_campaign(perfect.spec, perfect.root)
    baseline_file.write(baseline_file.make(side, "perfect", tmp_path), tmp_path / "b.json")
    shutil.rmtree(made.layout.run(SHORT).path)
    made.layout.marker(SHORT).unlink()
    demand = f"baseline = '{tmp_path}/b.json'\nmargin = 0.1\nearly = 'futility'"
    made.layout.settings.write_text(settings(VERDICT.replace("threshold = 0.8", demand)))
    return made


def test_evidence_of_pairs_ends_a_campaign_and_decides_the_claim_against_the_baseline(
    half_played: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in half_played.environ.items():
        monkeypatch.setenv(variable, value)
    spec = half_played.spec
    watch = early_stop.watch(spec, spec.row(SHORT))
    assert watch is not None
    assert watch.has_come()
    verdict = campaign_verdict.make(spec)
    (claim,) = verdict["baselines"]
    assert (verdict["outcome"], claim["outcome"]) == ("fail", "fail")
    assert "40 losses and 0 gains in 40 pairs" in claim["sentence"]
    assert "The campaign was stopped early (evidence): checkpoints/fake: 40 losses" in verdict["sentence"]


def test_lost_episodes_make_the_claim_invalid_only_where_they_could_turn_it(good: Made, crashed: Made) -> None:
    assert against(crashed, good, 0.05)["outcome"] == "invalid"
    assert against(crashed, good, 0.6)["outcome"] == "pass"


def test_a_baseline_that_cannot_be_compared_is_invalid_and_says_why(good: Made, play: Played) -> None:
    other = play("other", "ok:38", "ok:17", [line.replace("libero_object", "libero_goal") for line in MATRIX])
    verdict = against(good, other, 0.05)
    assert verdict["outcome"] == "invalid"
    assert "they cannot be compared, since they have no task in common" in verdict["sentence"]


def test_a_missing_baseline_is_said_in_phase_1(good: Made) -> None:
    spec = replace(good.spec, verdict=VerdictSettings(baseline="nowhere.json", margin=0.05))
    (finding,) = validate.contract_findings(spec, "phase1", "thresholds")
    assert (finding.where.endswith("nowhere.json"), finding.what) == (True, "the path does not exist")


# the registration


def test_the_thresholds_are_registered_before_the_first_row(good: Made) -> None:
    registration = verdict_of(good)["registration"]
    assert registration["late"] is False
    assert registration["changed"] == []


def test_other_thresholds_than_the_registered_ones_are_said_and_the_registration_stays(
    good: Made, tmp_path: Path
) -> None:
    made = campaigns.copied(good, tmp_path)
    before = made.layout.preregistration.read_bytes()
    made.layout.settings.write_text(settings(VERDICT.replace("0.8", "0.7")))
    preregistration.ensure(made.spec)
    verdict = campaign_verdict.make(made.spec)
    assert made.layout.preregistration.read_bytes() == before
    assert (verdict["outcome"], verdict["registration"]["changed"]) == ("pass", ["thresholds"])
    assert "These are other thresholds than those registered at " in verdict["sentence"]


def test_before_any_row_has_run_the_registration_follows_the_settings(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path / "campaign")
    made = campaigns.make(tmp_path / "campaign", MATRIX, settings())
    for threshold in ("0.8", "0.7"):
        made.layout.settings.write_text(settings(VERDICT.replace("0.8", threshold)))
        preregistration.ensure(made.spec)
    assert files.read_json(made.layout.preregistration)["thresholds"]["verdict"]["threshold"] == 0.7
    assert preregistration.record(made.spec)["changed"] == []


@pytest.mark.parametrize("damage", ["", '{"schema_version": 1}', "edited"])
def test_a_registration_that_is_lost_or_edited_after_rows_ran_is_made_anew_as_a_late_one(
    good: Made, tmp_path: Path, damage: str
) -> None:
    made = campaigns.copied(good, tmp_path)
    value = files.read_json(made.layout.preregistration)
    value["thresholds"]["verdict"]["threshold"] = 0.1
    made.layout.preregistration.write_text(json.dumps(value) if damage == "edited" else damage)
    (finding,) = validate.contract_findings(made.spec, "phase1", "registration")
    assert "nothing says what was demanded before the first row ran" in finding.what
    preregistration.ensure(made.spec)
    assert validate.contract_findings(made.spec, "phase1", "registration") == []
    assert "they may have been chosen by its result" in campaign_verdict.make(made.spec)["sentence"]


# campaign.toml


@pytest.mark.parametrize(
    ("verdict", "where", "what"),
    [
        ("[verdict]", "verdict", "nothing says what the policies have to show"),
        ("[verdict]\nthreshold = 0.9\nmargin = 0.05", "verdict.margin", "margin is set without baseline"),
        ("[verdict]\nbaseline = 'b.json'", "verdict.baseline", "baseline is set without margin"),
        ("[verdict.tasks]\n'libero_object/7' = 0.9", "verdict.tasks", "no row but the baseline plays libero_object/7"),
        ("[verdict]\nthreshold = 1", "key verdict.threshold", "1 is not a number above 0 and below 1"),
        ("[verdict]\nthresold = 0.5", "key verdict.thresold", "the table [verdict] has no key 'thresold'"),
        ("[verdict]\nthreshold = 0.5\nearly = 'yes'", "key verdict.early", "'yes' is not one of"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said_with_file_and_key(
    tmp_path: Path, verdict: str, where: str, what: str
) -> None:
    made = campaigns.make(tmp_path / "campaign", MATRIX, settings(verdict))
    with pytest.raises(UsageError) as caught:
        campaign.load(made.root)
    (finding,) = caught.value.findings
    assert finding.where.startswith(str(made.layout.settings))
    assert finding.where.endswith(where)
    assert what in finding.what


def test_the_settings_on_the_page_are_settings(good: Made) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", (campaigns.REPOSITORY / "docs" / "verdict.md").read_text(), re.DOTALL)
    made = {"schema_version": 1, "baseline": BASELINE, "expected_gpus": 0, **tomllib.loads(block)}
    assert schema.findings("campaign", made, "verdict.md") == []


def test_a_threshold_that_no_result_could_show_is_said_in_phase_1_with_the_fewest_episodes(good: Made) -> None:
    spec = replace(good.spec, verdict=VerdictSettings(threshold=0.9, task_threshold=0.9))
    (finding,) = validate.contract_findings(spec, "phase1", "thresholds")
    assert "libero_object/1: 20 of 20 episodes would not show a success rate of 0.9" in finding.what
    assert finding.remedy.startswith("Play at least 29 episodes")


# where the outcome is shown


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign after its gates: all rows ran, and 50 of 60 episodes do not show a rate of 80%."""
    gates = ("-n0", "--owner", "me")
    words = {LONG: ["ok:34"], SHORT: ["ok:16"]}
    return campaigns.finished(
        tmp_path_factory.getbasetemp(), "underpowered_verdict", MATRIX, settings(), gates, **words
    )


def test_a_campaign_that_does_not_show_its_threshold_fails_in_one_test_and_the_verdict(session: Made) -> None:
    ended = campaigns.judged(session)
    failed = [line for line in ended.stdout.splitlines() if line.startswith("FAILED")]
    assert ended.returncode == 1
    assert [line.split("::")[1].split(" ")[0] for line in failed] == [
        "test_the_policies_show_what_the_campaign_demands",
        "test_the_verdict",
    ]


def test_the_terminal_has_the_sentence(session: Made) -> None:
    output = campaigns.judged(session).stdout
    assert "policies: underpowered: checkpoints/fake on libero_object: 50 of 60 episodes succeeded (83.33%)" in output
    assert "verdict: not accepted" in output


def test_results_md_has_the_claim_and_says_what_decided(session: Made) -> None:
    page = session.layout.results.read_text()
    assert "| checkpoints/fake | libero_object | 60 | 50 | 83.3% (72.0 to 90.7) | 80% |" in page
    assert "Every row that ran to its end reached its own threshold, so these claims decide." in page


def test_the_junit_report_has_the_outcome_and_each_claim(session: Made) -> None:
    report = (session.root.parent / "junit.xml").read_text()
    assert '<property name="verdict" value="underpowered" />' in report
    assert '<property name="claim" value="underpowered: checkpoints/fake on libero_object: 50 of 60' in report


def test_phase_5_is_partial_and_its_handoff_has_the_outcome(session: Made) -> None:
    handoff = files.read_json(session.layout.handoff("phase5"))
    assert (handoff["status"], handoff["details"]["verdict"]) == ("partial", "underpowered")


def test_an_edited_verdict_is_found(session: Made, tmp_path: Path) -> None:
    made = campaigns.copied(session, tmp_path)
    files.write_json(made.layout.verdict, files.read_json(made.layout.verdict) | {"outcome": "pass"})
    (finding,) = validate.contract_findings(made.spec, "phase5", "verdict")
    assert finding.what == "the verdict does not match the run folders"


@pytest.mark.parametrize(
    ("kind", "phase", "contract"), [("preregistration", "phase1", "registration"), ("verdict", "phase5", "verdict")]
)
def test_a_lost_key_of_registration_or_verdict_is_found(
    session: Made, tmp_path: Path, kind: str, phase: str, contract: str
) -> None:
    made = campaigns.copied(session, tmp_path)
    path = made.layout.preregistration if kind == "preregistration" else made.layout.verdict
    whole = files.read_json(path)
    assert set(whole) == set(schema.load(kind)["required"])
    for key in whole:
        files.write_json(path, {name: value for name, value in whole.items() if name != key})
        findings = validate.contract_findings(made.spec, phase, contract)
        assert findings[0].where.startswith(str(path)), key


def test_a_campaign_without_a_verdict_has_neither_files_nor_tests_of_one(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    made = campaigns.below_threshold(tmp_path_factory.getbasetemp())
    assert not made.layout.verdict.exists()
    assert not made.layout.preregistration.exists()
    assert "test_the_policies_show" not in (made.root.parent / "junit.xml").read_text()
    assert campaign.load(made.root).verdict is None
