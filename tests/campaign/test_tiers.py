"""The tiers of a campaign: what `[tiers.NAME]` may say, what is cut, and where a tier's files lie."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from campaigns import SETTINGS, Made

from tracka.campaign import campaign, commands, path_safety
from tracka.campaign.layout import Layout
from tracka.core.errors import UsageError
from tracka.reporting import caveats

SMOKE = """
[verdict]
threshold = 0.9
early = "futility"

[verdict.tasks]
"libero_object/0" = 0.5

[known_answers.wide_b4_e4]
0 = [0, 1, 3]

[tiers.smoke]
rows = ["wide_b4_e4"]
episodes = 3

[tiers.smoke.verdict]
threshold = 0.6

[tiers.nightly]
budget_minutes = 0.5
"""


def refusal(made: Made, tier: str | None = None) -> list[str]:
    """Returns what is wrong with the campaign, one text a finding."""
    with pytest.raises(UsageError) as caught:
        campaign.load(made.root, tier)
    assert all(finding.remedy for finding in caught.value.findings)
    return [str(finding).replace(f"{made.root}/configs/", "") for finding in caught.value.findings]


@pytest.fixture
def tiered(make_campaign: Callable[..., Made]) -> Made:
    """Returns a campaign with the tiers of SMOKE, before any phase."""
    return make_campaign(settings=SETTINGS + SMOKE)


def test_a_tier_has_its_rows_with_its_episodes_and_the_baseline(tiered: Made) -> None:
    smoke, nightly = campaign.load(tiered.root, "smoke"), campaign.load(tiered.root, "nightly")
    assert [(row.run_id, row.n_episodes) for row in smoke.enabled] == [("baseline_b1_e2", 2), ("wide_b4_e4", 3)]
    assert nightly.rows == tiered.spec.rows


def test_the_known_answers_of_a_tier_are_those_of_its_episodes(tiered: Made) -> None:
    assert campaign.load(tiered.root, "smoke").known_answers == {"wide_b4_e4": {0: (0, 1)}}
    assert tiered.spec.known_answers == {"wide_b4_e4": {0: (0, 1, 3)}}


def test_a_tiers_own_verdict_overrides_single_keys_of_the_campaigns(tiered: Made) -> None:
    whole, smoke = tiered.spec.verdict, campaign.load(tiered.root, "smoke").verdict
    assert whole is not None
    assert smoke == replace(whole, threshold=0.6)
    assert campaign.load(tiered.root, "nightly").verdict == whole


def test_of_a_task_that_a_tier_does_not_play_nothing_is_asked(make_campaign: Callable[..., Made]) -> None:
    task = '\n[rows.long_b1_e6]\ntask_ids = [5]\n[verdict.tasks]\n"libero_object/5" = 0.5\n'
    made = make_campaign(settings=f'{SETTINGS}{task}[tiers.smoke]\nrows = ["wide_b4_e4"]\n')
    assert made.spec.verdict is not None
    assert campaign.load(made.root, "smoke").verdict is None


@pytest.mark.parametrize(
    ("tier", "told"),
    [
        ("rows = ['nobody', 'long_b1_e6']", ["key tiers.x.rows: the matrix has no row 'nobody'"]),
        ("rows = ['off_b1_e1']", ["key tiers.x.rows: the row 'off_b1_e1' is disabled"]),
        (
            "rows = ['nobody', 'off_b1_e1']",
            ["key tiers.x.rows: the matrix has no row 'nobody'", "the row 'off_b1_e1' is disabled"],
        ),
        ("rows = ['baseline_b1_e2']", ["key tiers.x.rows: the tier x has no row but the baseline"]),
        ("rows = []", ["key tiers.x.rows: the list is empty"]),
        ("episodes = 0", ["key tiers.x.episodes: 0 is not a whole number from 1 up"]),
        ("budget_minutes = 0", ["key tiers.x.budget_minutes: 0 is not a number above 0"]),
        ("budget_minutes = nan\nepisodes = 1.5", ["key tiers.x.budget_minutes", "key tiers.x.episodes: 1.5"]),
        ("minutes = 5", ["key tiers.x.minutes: the table [tiers.x] has no key 'minutes'"]),
        ("[tiers.'../x']", ["'../x' cannot be a name in [tiers]"]),
        ("[tiers.Smoke]", ["'Smoke' cannot be a name in [tiers]. Use a name such as smoke"]),
        ('[tiers."smoke\\n"]', ["'smoke\\n' cannot be a name in [tiers]"]),
        ("[tiers.x.verdict]\nthreshold = 2", ["key tiers.x.verdict.threshold: 2 is not a number above 0 and below 1"]),
        ("[tiers.x.verdict]\nmargin = 0.1", ["tiers.x.verdict: nothing says", "tiers.x.verdict.margin: margin is set"]),
        ('[tiers.x.verdict.tasks]\n"libero_object/7" = 0.5', ["tiers.x.verdict.tasks: no row but the baseline plays"]),
    ],
)
def test_what_is_wrong_in_a_tier_is_refused_with_file_and_key(made: Made, tier: str, told: list[str]) -> None:
    made.configure(f"[tiers.x]\n{tier}")
    findings = refusal(made)
    assert len(findings) == len(told)
    for finding, words in zip(findings, told, strict=True):
        assert finding.startswith("campaign.toml, ") and words in finding


def test_faults_of_tiers_are_said_beside_those_of_other_tables(made: Made) -> None:
    made.configure("[known_answers.nobody]\n0 = [1]\n[tiers.x]\nrows = ['no-one']")
    assert [finding.partition(":")[0] for finding in refusal(made)] == [
        "campaign.toml, row nobody",
        "campaign.toml, key tiers.x.rows",
    ]


def test_a_fault_of_the_campaigns_verdict_is_said_once_and_not_for_each_tier(made: Made) -> None:
    made.configure("[verdict]\nthreshold = 0.9\nmargin = 0.1\n[tiers.a]\nepisodes = 1\n[tiers.b]\nepisodes = 2")
    assert [finding.partition(":")[0] for finding in refusal(made)] == ["campaign.toml, verdict.margin"]


@pytest.mark.parametrize("name", ["other", "", "../smoke"])
def test_a_tier_that_the_campaign_does_not_have_is_refused_with_the_names_of_those_it_has(
    tiered: Made, name: str
) -> None:
    (said,) = refusal(tiered, name)
    assert said.startswith(f"campaign.toml, key tiers: the campaign has no tier {name!r}")
    assert "Name one of smoke, nightly" in said


# places


def test_the_folder_of_an_artifact_names_its_tier(tiered: Made) -> None:
    layout = campaign.load(tiered.root, "smoke").layout
    assert layout.relative(layout.artifacts) == "artifacts/tiers/smoke"
    assert Layout.of_runs(layout.runs) == Layout.beside(layout.preflight) == layout
    assert campaign.load_named(layout.artifacts).tier == campaign.load(tiered.root, "smoke").tier
    assert Layout.of_runs(tiered.layout.runs) == Layout.beside(tiered.layout.state) == tiered.layout


def test_a_tier_may_lie_below_artifacts_of_another_name_and_behind_a_link(tiered: Made, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tiered.root / "large").symlink_to(tmp_path / "disk")
    layout = Layout.of_runs(tiered.root / "large" / "tiers" / "smoke" / "runs")
    assert (layout.root, layout.artifacts_name, layout.tier) == (tiered.root, "large", "smoke")


@pytest.mark.parametrize("root", ["tiers", "repository/tasks/tiers"])
def test_a_campaign_that_is_called_tiers_is_no_tier(tmp_path: Path, root: str) -> None:
    for settings in (Layout(tmp_path / root).settings, Layout(tmp_path / "repository").settings):
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.touch()
    assert Layout.of_runs(tmp_path / root / "artifacts" / "runs") == Layout(tmp_path / root)


def test_runs_without_a_campaign_have_no_tier_wherever_they_lie(tmp_path: Path) -> None:
    assert Layout.of_runs(tmp_path / "tiers" / "smoke" / "runs").tier is None


def test_a_command_in_a_message_names_the_tier() -> None:
    layout = Layout(Path("/elsewhere/mine"), tier="smoke")
    gates = "pytest --pyargs tracka.acceptance"
    assert commands.gates(layout, "--lf") == f"{gates} --campaign /elsewhere/mine --tier smoke --lf"


@pytest.mark.parametrize("name", ["artifacts/tiers", "artifacts/tiers/smoke", "artifacts/tiers/smoke/runs"])
def test_no_artifact_of_a_tier_lies_behind_a_link(tiered: Made, tmp_path: Path, name: str) -> None:
    path = tiered.root / name
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path)
    with pytest.raises(UsageError, match=f"{name}: it is a link"):
        path_safety.require(campaign.load(tiered.root, "smoke").layout)
    path_safety.require(tiered.layout)


def test_artifacts_that_everybody_may_write_to_are_refused_for_a_tier_too(tiered: Made) -> None:
    layout = campaign.load(tiered.root, "smoke").layout
    layout.artifacts.mkdir(parents=True)
    layout.own_artifacts.chmod(0o777)
    with pytest.raises(UsageError, match="every user may write to this folder"):
        path_safety.require(layout)


# the forecast


def test_phase_1_says_that_a_tier_is_expected_to_take_longer_than_its_budget(tiered: Made) -> None:
    nightly = replace(campaign.load(tiered.root, "nightly"), expected_gpus=1)
    (said,) = caveats.of_phase(nightly, "phase1")
    assert said.where == "campaign.toml, key tiers.nightly.budget_minutes"
    assert said.what.startswith("the budget is 0.5 minutes, but a pi0 without an early success takes about ")


@pytest.mark.parametrize(("tier", "gpus"), [("nightly", 0), ("smoke", 1), (None, 1)])
def test_without_a_forecast_or_a_budget_phase_1_says_nothing_of_time(tiered: Made, tier: str | None, gpus: int) -> None:
    assert caveats.of_phase(replace(campaign.load(tiered.root, tier), expected_gpus=gpus), "phase1") == []
