"""`tracka close`: what several hosts have swept, in one folder or in several, is judged on one of them."""

import shutil
import subprocess
from pathlib import Path

import campaigns
import pytest
from campaigns import Made

from tracka.campaign.campaign import Campaign
from tracka.campaign.layout import PHASES
from tracka.core import files, lock
from tracka.core.errors import Finding
from tracka.gates import handoff, validate

BASELINE, LONG, WIDE = "baseline_b1_e2", "long_b1_e6", "wide_b4_e4"
PLACES = ("artifacts/runs", "artifacts/state/rows")


@pytest.fixture
def prepared_baseline(ready: Made) -> Made:
    """A campaign after phases 1 to 3, with the pending markers that a session leaves."""
    ready.run_row(BASELINE)
    assert handoff.hand_over(ready.spec, "phase3")["status"] == "pass"
    return ready


def sweep(made: Made, shard: str) -> subprocess.CompletedProcess[str]:
    return made.tracka(*made.sweep_words("--shard", shard, "--resume"))


def close(made: Made) -> subprocess.CompletedProcess[str]:
    return made.call("close", str(made.root))


def bring(source: Made, target: Made) -> None:
    """Copies runs and markers as docs/clusters.md says: rsync -a --update."""
    for place in PLACES:
        if shutil.which("rsync"):
            words = ["rsync", "-a", "--update", f"{source.root / place}/", f"{target.root / place}/"]
        else:
            words = ["cp", "-a", "--update", f"{source.root / place}/.", f"{target.root / place}/"]
        subprocess.run(words, check=True)


def other_host(made: Made, folder: Path) -> Made:
    """A second host's own folder with the same campaign."""
    root = Path(shutil.copytree(made.root, folder / "elsewhere" / "campaign"))
    return Made(root, campaigns.environment(root))


def test_shards_in_one_folder_are_closed_without_running_anything(prepared_baseline: Made) -> None:
    made = prepared_baseline
    assert [sweep(made, f"{number}/2").returncode for number in (1, 2)] == [0, 0]
    started = made.started()
    closed = close(made)
    assert (closed.returncode, closed.stderr) == (0, "")
    assert closed.stdout.splitlines() == [
        "phase4: pass",
        "phase5: pass",
        str(made.layout.report_page),
        "verdict: complete, no threshold set (strict validation of all phases)",
    ]
    assert made.started() == started
    assert validate.validate(made.spec, strict=True) == []
    assert "- [x] [campaign]" in made.layout.todo_list.read_text()


def test_a_shard_that_is_missing_or_failed_is_named_and_nothing_is_accepted(prepared_baseline: Made) -> None:
    made = prepared_baseline
    made.behave(**{LONG: ["crash", "crash"]})
    assert sweep(made, "1/2").returncode == 1
    closed = close(made)
    assert closed.returncode == 1
    assert closed.stdout.splitlines()[:2] == ["phase4: partial", "phase5: partial"]
    assert closed.stdout.splitlines()[-1] == "verdict: not accepted (strict validation of all phases)"
    handed = files.read_json(made.layout.handoff("phase4"))
    assert handed["details"]["failures"] == {LONG: "crash", WIDE: "not_run"}
    assert made.statuses()[LONG] == ("fail", "crash")


def test_where_an_earlier_phase_has_not_passed_nothing_can_be_closed(ready: Made) -> None:
    closed = close(ready)
    assert closed.returncode == 1
    assert closed.stdout.splitlines()[:2] == ["phase4: blocked", "phase5: blocked"]
    assert "phase3_handoff.json" in closed.stderr


def test_runs_of_two_hosts_without_a_shared_folder_become_one_accepted_campaign(
    prepared_baseline: Made, tmp_path: Path
) -> None:
    here, there = prepared_baseline, other_host(prepared_baseline, tmp_path)
    assert [sweep(here, "1/2").returncode, sweep(there, "2/2").returncode] == [0, 0]
    assert {run_id for run_id, (status, _) in here.statuses().items() if status == "pass"} == {BASELINE, LONG}
    bring(there, here)
    assert here.statuses() == dict.fromkeys([BASELINE, LONG, WIDE], ("pass", None))
    assert here.evidence(BASELINE, LONG, WIDE) == []
    closed = close(here)
    assert closed.returncode == 0, closed.stderr
    bring(there, here)  # a second copy changes nothing
    assert validate.validate(here.spec, strict=True) == []


@pytest.mark.slow
def test_runs_of_a_host_with_other_inputs_are_refused_by_what_differs(prepared_baseline: Made, tmp_path: Path) -> None:
    here, there = prepared_baseline, other_host(prepared_baseline, tmp_path)
    there.change_weights()
    assert sweep(here, "1/2").returncode == 0
    there.tracka(*there.sweep_words("--rows", WIDE))
    assert there.statuses()[WIDE] == ("pass", None)
    bring(there, here)
    closed = close(here)
    assert closed.returncode == 1
    assert (
        f"{here.layout.run(WIDE).result}: the row passed with another matrix row, settings, checkpoint" in closed.stderr
    )
    assert "than today's: checkpoint " in closed.stderr


def test_the_contracts_of_each_phase_are_asked_once(prepared_baseline: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """They open every file of every row, which takes most of the time of closing a large campaign."""
    made, asked, ask = prepared_baseline, list[str](), validate.phase_findings
    sweep(made, "1/1")

    def counted(campaign: Campaign, phase: str, quick: bool = False) -> list[Finding]:
        asked.append(phase)
        return ask(campaign, phase, quick)

    monkeypatch.setattr(validate, "phase_findings", counted)
    assert close(made).returncode == 0
    assert sorted(asked) == list(PHASES)


def test_a_campaign_that_a_session_has_is_not_closed(prepared_baseline: Made) -> None:
    layout = prepared_baseline.layout
    with lock.session(layout.locks, "campaign"):
        closed = close(prepared_baseline)
    assert (closed.returncode, closed.stdout) == (5, "")
    assert not layout.handoff("phase4").exists()
