"""Sessions and commands on a tier of a campaign whose lerobot-eval is a stand-in: what runs, and where and how it ends.

One session on the tier is judged by many tests; a test that goes on with it does so with a copy.
"""

import json
import re
import shlex
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace

import campaigns
import pytest
from campaigns import SETTINGS, Made, judged, run_words

from tracka.campaign import campaign
from tracka.campaign.campaign import Campaign
from tracka.core import files
from tracka.gates import validate
from tracka.runs import row_state, run, time_budget
from tracka.runs.run import RerunPolicy
from tracka.runs.time_budget import BudgetSpent, TimeBudget

TIERS = """
[known_answers.wide_b4_e4]
0 = [1, 3]

[tiers.smoke]
rows = ["wide_b4_e4"]
episodes = 3

[tiers.smoke.verdict]
threshold = 0.01
"""
SPENT = TimeBudget("smoke", 10, end=0.0)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Returns a campaign after a session on its tier smoke, which all tests share."""
    return campaigns.finished(
        tmp_path_factory.getbasetemp(),
        "tier",
        settings=SETTINGS + TIERS,
        gates=("-n0", "--tier", "smoke"),
        wide_b4_e4=["episodes:0=1,3"],
    )


@pytest.fixture
def copy(smoke: Made, copy_of: Callable[[Made], Made]) -> Made:
    """Returns a copy of that campaign, to go on with."""
    return copy_of(smoke)


def tier_of(made: Made) -> Campaign:
    """Returns the campaign cut to its tier."""
    return campaign.load(made.root, "smoke")


def test_a_tier_runs_its_rows_and_the_baseline_and_nothing_else(smoke: Made) -> None:
    assert smoke.started() == ["baseline_b1_e2", "wide_b4_e4"]
    runs = tier_of(smoke).layout.runs
    manifests = [files.read_json(path) for path in sorted(runs.glob("*/run_manifest.json"))]
    assert [(each["run_id"], each["n_episodes"]) for each in manifests] == [("baseline_b1_e2", 2), ("wide_b4_e4", 3)]


def test_a_tier_is_accepted_by_the_known_answers_of_its_own_episodes_and_the_verdict_names_it(smoke: Made) -> None:
    ended = judged(smoke)
    assert ended.returncode == 0, ended.stdout
    assert "verdict: accepted (tier smoke, strict validation of all phases)" in ended.stdout
    assert "tier smoke (at most 3 episodes of each task), 2 of 4 rows enabled" in ended.stdout
    junit = ElementTree.parse(smoke.root.parent / "junit.xml")
    assert [each.get("value") for each in junit.iter("property") if each.get("name") == "tier"] == ["smoke"]


def test_the_verdict_on_the_policies_is_by_the_tiers_thresholds_and_names_the_tier(smoke: Made) -> None:
    verdict = files.read_json(tier_of(smoke).layout.verdict)
    assert (verdict["tier"], verdict["outcome"]) == ("smoke", "pass")
    assert verdict["sentence"].startswith("pass (tier smoke): checkpoints/fake on libero_object: 1 of 3 episodes")
    assert f"policies: {verdict['sentence']}" in judged(smoke).stdout
    assert smoke.spec.verdict is None


def test_a_tier_leaves_artifacts_and_pages_of_its_own_and_nothing_of_the_campaigns(smoke: Made) -> None:
    assert [path.name for path in (smoke.root / "artifacts").iterdir()] == ["tiers"]
    state = tier_of(smoke).layout.state
    assert len(list(state.glob("phase?_handoff.json"))) == 5
    pages = {path.name for path in smoke.root.iterdir() if path.suffix == ".md"}
    assert pages == {"results-smoke.md", "runbook-smoke.md"}
    assert "# Results of campaign, tier smoke" in (smoke.root / "results-smoke.md").read_text()


def test_a_tier_is_no_acceptance_of_its_campaign_so_no_box_and_no_line_changes(copy: Made) -> None:
    spec = copy.spec
    assert not (copy.root / "plan.md").exists() and not (copy.root / "todo").exists()
    assert validate.validate(tier_of(copy), strict=True) == []
    assert validate.handoff_findings(spec, "phase5")


def test_validate_judges_the_tier_that_is_named(copy: Made) -> None:
    words = ("validate", "--phase", "all", "--root", str(copy.root), "--strict")
    assert copy.call(*words, "--tier", "smoke").returncode == 0
    assert copy.call(*words).returncode == 1


def test_a_shorter_row_has_a_hash_of_its_own(copy: Made) -> None:
    whole, tier = copy.spec, tier_of(copy)
    host = run.load_host(tier.layout)
    (short, long), (same, baseline) = (
        [run.plan_row(spec, spec.row(run_id), host).row_hash for spec in (tier, whole)]
        for run_id in ("wide_b4_e4", "baseline_b1_e2")
    )
    assert files.read_json(tier.layout.run("wide_b4_e4").result)["row_hash"] == short != long
    assert same == baseline


def test_why_compares_a_run_of_the_tier_with_the_tier_of_today(copy: Made) -> None:
    folder = tier_of(copy).layout.run("wide_b4_e4").path
    for words in (("wide_b4_e4", "--root", str(copy.root), "--tier", "smoke"), (str(folder),)):
        ended = copy.call("why", *words)
        assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    refused = copy.call("why", "wide_b4_e4", "--root", str(copy.root))
    assert (refused.returncode, "Run the row first" in refused.stderr) == (2, True)


def test_the_commands_of_the_tiers_pages_are_the_tiers(smoke: Made) -> None:
    pages = [(smoke.root / name).read_text() for name in ("runbook-smoke.md", "results-smoke.md")]
    commands = re.findall(r"^(?:pytest|tracka|cd) .*|`tracka validate --phase[^`]*`", "\n".join(pages), re.MULTILINE)
    assert len(commands) == 7
    for command in commands:
        assert "--tier smoke" in command or "tiers/smoke" in command, command


def test_the_replay_of_a_tiers_sweep_runs_no_passed_row_and_no_other(smoke: Made, copy: Made) -> None:
    text = (copy.root / "runbook-smoke.md").read_text().replace(str(smoke.root), str(copy.root))
    (words,) = re.findall(r"^tracka (sweep .*)$", text, re.MULTILINE)
    ended = copy.tracka(*shlex.split(words))
    assert ended.returncode == 0, ended.stderr
    assert copy.started() == ["baseline_b1_e2", "wide_b4_e4"]
    assert f"--artifacts-root {copy.root}/artifacts/tiers/smoke/runs" in ended.stdout


def test_a_dry_sweep_of_a_tier_shows_its_rows_with_its_episodes(copy: Made) -> None:
    ended = copy.call(*copy.sweep_words("--tier", "smoke", "--dry-run"))
    lines = ended.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["baseline_b1_e2", "wide_b4_e4"]
    assert "--eval.n_episodes=3" in lines[1] and "--output_dir=artifacts/tiers/smoke/runs/wide_b4_e4" in lines[1]


def test_a_row_that_is_not_in_the_tier_is_refused_with_2(copy: Made) -> None:
    ended = copy.call(*copy.sweep_words("--tier", "smoke", "--rows", "long_b1_e6"))
    assert (ended.returncode, "'long_b1_e6' is not in the tier smoke" in ended.stderr) == (2, True)


def test_a_run_and_a_preflight_with_a_tier_write_below_it(copy: Made) -> None:
    ended = copy.call(*run_words(copy, "--tier", "smoke", "--dry-run"))
    assert "--output_dir=artifacts/tiers/smoke/runs/long_b1_e6" in ended.stdout, ended.stderr
    ended = copy.call(*copy.preflight_words("--tier", "smoke", "--dry-run"))
    assert f"into {copy.root}/artifacts/tiers/smoke/preflight" in ended.stdout, ended.stderr


def test_collect_with_a_tier_writes_the_tables_that_its_phase_4_accepts(copy: Made) -> None:
    layout, summary = tier_of(copy).layout, copy.layout.summary
    before = {path.name: path.read_bytes() for path in layout.summary.iterdir()}
    for path in layout.summary.iterdir():
        path.write_text("")
    tables = {"--summary-csv": "all_runs.csv", "--summary-md": "all_runs.md", "--failures-csv": "failures.csv"}
    words = [word for flag, name in tables.items() for word in (flag, str(summary / name))]
    ended = copy.call("collect", "--runs-root", str(copy.layout.runs), *words, "--tier", "smoke")
    assert ended.returncode == 0, ended.stderr
    assert {name: (layout.summary / name).read_bytes() for name in tables.values()} == {
        name: before[name] for name in tables.values()
    }
    assert not summary.exists()


@pytest.mark.parametrize(
    ("folder", "tier", "said"),
    [
        ("artifacts/runs", "nobody", "key tiers: the campaign has no tier 'nobody'. Name one of smoke"),
        ("artifacts/tiers/smoke/runs", "nightly", "the folder is of the tier smoke, but --tier names 'nightly'"),
        ("artifacts/tiers/gone/runs", None, "key tiers: the campaign has no tier 'gone'"),
    ],
)
def test_a_command_on_a_tier_that_is_not_there_is_refused_with_2(
    copy: Made, folder: str, tier: str | None, said: str
) -> None:
    root, option = copy.root / folder, ("--tier", tier) if tier else ()
    words = ("--runs-root", str(root), "--summary-csv", "a.csv", "--summary-md", "a.md", *option)
    ended = copy.call("collect", *words)
    assert (ended.returncode, said in ended.stderr) == (2, True), ended.stderr


def test_a_session_on_a_tier_that_is_not_there_is_refused_as_any_bad_campaign(smoke: Made) -> None:
    ended = smoke.pytest("-n0", "--tier", "nobody")
    assert (ended.returncode, "the campaign has no tier 'nobody'. Name one of smoke" in ended.stderr) == (4, True)


def test_tiers_are_compared_by_their_folders(copy: Made) -> None:
    folder = str(tier_of(copy).layout.artifacts)
    ended = copy.call("compare", folder, folder, "--format", "json")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["pairing"]["pairs"], told["verdict"]) == (3, "not shown to be worse")


# the time budget


@pytest.fixture
def bare(copy: Made) -> tuple[Made, Campaign]:
    """Returns the campaign and its tier as it is before the row wide_b4_e4 has run."""
    layout = tier_of(copy).layout
    layout.run("wide_b4_e4").path.rename(copy.root / "moved")
    layout.marker("wide_b4_e4").unlink()
    return copy, tier_of(copy)


def attempt(spec: Campaign, run_id: str, budget: TimeBudget | None) -> str:
    """Runs a row of the tier and returns its status."""
    policy = RerunPolicy(resume=True, budget=budget)
    return run.run_row(spec, spec.row(run_id), run.load_host(spec.layout), policy)["status"]


def test_no_row_starts_after_the_budget_and_the_next_session_starts_it(bare: tuple[Made, Campaign]) -> None:
    made, spec = bare
    begun = made.started()
    with pytest.raises(BudgetSpent, match="not started: the budget of the tier smoke, 10 minutes, was spent"):
        attempt(spec, "wide_b4_e4", SPENT)
    assert made.started() == begun
    marker = row_state.read(spec.layout, "wide_b4_e4")
    assert marker and (marker["status"], marker["reason"]) == ("pending", "budget")
    assert attempt(spec, "wide_b4_e4", replace(SPENT, end=time.monotonic() + 600)) == "pass"
    marker = row_state.read(spec.layout, "wide_b4_e4")
    assert marker and (marker["status"], marker["reason"], marker["notes"]) == ("pass", None, "")


def test_a_passed_row_stands_although_the_budget_is_spent(bare: tuple[Made, Campaign]) -> None:
    made, spec = bare
    assert attempt(spec, "baseline_b1_e2", SPENT) == "pass"
    assert made.started() == ["baseline_b1_e2", "wide_b4_e4"]


def test_a_row_that_fails_after_the_budget_is_not_tried_again(bare: tuple[Made, Campaign]) -> None:
    made, spec = bare
    made.behave(wide_b4_e4=["crash", "ok"])
    end = time.monotonic() + 600
    clock = iter([end - 1, end - 1, end + 1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimeBudget, "is_spent", property(lambda budget: next(clock) >= budget.end))
        assert attempt(spec, "wide_b4_e4", replace(SPENT, end=end)) == "fail"
    assert spec.layout.run("wide_b4_e4").numbers() == [1]


def test_tables_and_contracts_say_once_that_the_budget_kept_a_row_from_starting(bare: tuple[Made, Campaign]) -> None:
    made, spec = bare
    with pytest.raises(BudgetSpent):
        attempt(spec, "wide_b4_e4", SPENT)
    findings = validate.phase_findings(spec, "phase4")
    assert [finding.what for finding in findings if finding.where == "row wide_b4_e4"] == [
        "not started: the budget of the tier smoke, 10 minutes, was spent"
    ]
    assert [finding.where for finding in findings if "run_manifest.json" in finding.where] == []
    words = ("--summary-csv", "a.csv", "--summary-md", "a.md", "--failures-csv", str(spec.layout.summary / "f.csv"))
    ended = made.call("collect", "--runs-root", str(spec.layout.runs), *words, cwd=made.root)
    assert ended.returncode == 0, ended.stderr
    (line,) = (spec.layout.summary / "f.csv").read_text().splitlines()[1:]
    assert line == "wide_b4_e4,libero_object,4,3,cpu,7,egl,checkpoints/fake,1,budget"


@pytest.mark.slow
def test_a_session_says_which_rows_its_budget_kept_from_starting_and_last_failed_is_of_the_tier(copy: Made) -> None:
    settings = copy.layout.settings
    spent = 'episodes = 3\nbudget_minutes = 0.0001\nrows = ["wide_b4_e4", "long_b1_e6"]'
    settings.write_text(settings.read_text().replace('rows = ["wide_b4_e4"]\nepisodes = 3', spent))
    ended = copy.pytest("-n1", "--tier", "smoke")
    assert ended.returncode == 1
    assert copy.started() == ["baseline_b1_e2", "wide_b4_e4"]  # those that have passed are judged again
    assert "long_b1_e6      not run (budget)" in ended.stdout, ended.stdout
    assert "phase4: partial" in ended.stdout
    lists = json.loads((copy.root / ".cache" / "v" / "tracka" / "lastfailed").read_text())
    assert str(copy.root) not in lists
    assert "acceptance/test_phase4_sweep.py::test_row[long_b1_e6]" in lists[str(tier_of(copy).layout.artifacts)]


def test_a_campaign_without_a_tier_or_a_tier_without_a_budget_has_no_budget(smoke: Made) -> None:
    assert time_budget.of_session(smoke.spec, 0.0) is None
    assert time_budget.of_session(tier_of(smoke), 0.0) is None
