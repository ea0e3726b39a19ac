"""The tests that close a phase: its status, and the verdict; what `--lf` selects; what is not done a second time."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY, Made, judged

from tracka.campaign.layout import PHASES
from tracka.core import files
from tracka.stages import CLOSING

BLOCKED = {"baseline_b1_e2": ["crash", "crash", "ok"]}
LATER = ("-m", "phase3 or phase4 or phase5")
LOST = "exit code 1: RuntimeError: the stand-in was told to crash"
Cases = dict[str, tuple[str, str]]  # the name of a test -> passed or failed, and the text of its failure


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """Returns a campaign after its gates, which all tests share, so that none may meddle with it."""
    return partial(campaigns.finished, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def sessions(finished: Callable[..., Made], prepared: Path) -> Mapping[str, Made]:
    """Campaigns that are accepted, that have a failed row, and whose baseline failed, the last with two workers."""
    blocked = finished("blocked_baseline", gates=("-n2", *LATER), before=prepared, **BLOCKED)
    return {"passed": finished("passed"), "partial": finished("partial", long_b1_e6=["crash"]), "blocked": blocked}


def cases(report: Path) -> Cases:
    """The tests of a JUnit report, in the order in which they ended."""
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        failures = [*case.iter("failure"), *case.iter("error")]
        found[str(case.get("name"))] = (
            "failed" if failures else "passed",
            "".join(each.text or "" for each in failures),
        )
    return found


def closing(report: Path) -> dict[str, str]:
    """The closing tests of a report: phase -> passed or failed."""
    outcomes = cases(report)
    return {phase: outcomes[name][0] for phase, name in CLOSING.items() if name in outcomes}


def environment(made: Made) -> dict[str, str]:
    return {**os.environ, **campaigns.environment(made.root)}


def of_session(made: Made) -> Path:
    return made.root.parent / "junit.xml"


EXPECTED = {
    "passed": dict.fromkeys(PHASES, "passed"),
    "partial": {**dict.fromkeys(PHASES, "passed"), "phase4": "failed", "phase5": "failed"},
    "blocked": dict.fromkeys(PHASES[2:], "failed"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_phase_ends_with_its_status_and_the_last_with_the_verdict(sessions: Mapping[str, Made], name: str) -> None:
    assert closing(of_session(sessions[name])) == EXPECTED[name]
    assert judged(sessions[name]).returncode == (0 if name == "passed" else 1)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_closing_test_is_the_last_of_its_phase(sessions: Mapping[str, Made], name: str) -> None:
    names = [*cases(of_session(sessions[name]))]
    ends = [names.index(CLOSING[phase]) for phase in EXPECTED[name]]
    assert ends == sorted(ends) and ends[-1] == len(names) - 1
    if name != "blocked":
        assert names.index(CLOSING["phase3"]) + 1 == names.index("test_phase_3_has_passed")


def test_the_verdicts_failure_has_what_the_strict_validation_finds(sessions: Mapping[str, Made]) -> None:
    text = cases(of_session(sessions["partial"]))[CLOSING["phase5"]][1]
    assert "the strict validation of all phases finds" in text
    assert LOST in text and "phase4 is partial" in text


@pytest.mark.parametrize("name", ["partial", "blocked"])
def test_the_terminal_says_the_reason_once(sessions: Mapping[str, Made], name: str) -> None:
    output = judged(sessions[name]).stdout
    assert output.count(LOST) == 1
    assert "verdict: not accepted" in output


def test_blocked_tests_refer_to_the_first_of_their_phase(sessions: Mapping[str, Made]) -> None:
    output = judged(sessions["blocked"]).stdout.partition("short test summary")[0]
    for phase, handoff in (("phase4", "phase3"), ("phase5", "phase4")):
        assert output.count(f"{phase} is blocked, see {sessions['blocked'].layout.handoff(handoff)}") == 1
        assert output.count(f"{phase} is blocked, as said above") == 3


def test_a_phase_alone_has_its_status_as_a_test(made: Made, tmp_path: Path) -> None:
    ended = made.pytest("-n0", "-m", "phase1", f"--junitxml={tmp_path / 'junit.xml'}")
    assert ended.returncode == 0, ended.stdout
    assert closing(tmp_path / "junit.xml") == {"phase1": "passed"}


@pytest.mark.slow
def test_last_failed_gives_the_verdict_after_a_session_of_one_phase_and_one_on_another_campaign(
    ready: Made, sessions: Mapping[str, Made], tmp_path: Path
) -> None:
    cache, report = f"cache_dir={tmp_path / 'cache'}", f"--junitxml={tmp_path / 'junit.xml'}"
    ready.behave(long_b1_e6=["crash", "crash", "ok"])

    def gates(made: Made, *words: str) -> int:
        command = [sys.executable, "-m", "pytest", "acceptance", "--campaign", str(made.root), "-o", cache, *words]
        return subprocess.run(command, cwd=REPOSITORY, env=environment(made), stdout=subprocess.DEVNULL).returncode

    assert gates(ready, "-n0", "-m", "phase3 or phase4") == 1
    assert gates(campaigns.copied(sessions["passed"], tmp_path / "other"), "-n0", "-m", "phase4 or phase5") == 0
    assert gates(ready, "-n2", "--lf", report) == 0
    assert [*cases(tmp_path / "junit.xml")] == ["test_row[long_b1_e6]", CLOSING["phase4"], CLOSING["phase5"]]
    assert [files.read_json(ready.layout.handoff(phase))["status"] for phase in PHASES] == ["pass"] * 5


def test_last_failed_runs_what_an_interrupted_session_did_not_come_to(ready: Made) -> None:
    ready.behave(baseline_b1_e2=["crash", "crash", "ok"])
    assert ready.pytest("-n0", "-x", *LATER).returncode == 1
    ended = ready.pytest("-n0", "--lf")
    assert ended.returncode == 0, ended.stdout
    assert {"long_b1_e6", "wide_b4_e4"} <= set(ready.started())


def test_a_second_session_discovers_nothing_and_checks_no_host_anew(
    sessions: Mapping[str, Made], copy_of: Callable[[Made], Made]
) -> None:
    made = copy_of(sessions["passed"])
    places = (made.layout.preflight_report, made.layout.capabilities, made.layout.state / "lerobot_eval_help.txt")
    before = [path.read_bytes() for path in places]
    assert made.pytest("-n0", "-m", "phase1 or phase2").returncode == 0
    assert [path.read_bytes() for path in places] == before


def test_a_session_says_first_which_campaign_it_runs_and_how_to_run_another(made: Made) -> None:
    command = [sys.executable, "-m", "pytest", "acceptance", "--collect-only", "-p", "no:cacheprovider"]
    header = [
        subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True).stdout.splitlines()[2]
        for environ in (environment(made), {**environment(made), "TRACKA_CAMPAIGN": str(made.root)})
    ]
    here, elsewhere = (f"for another: pytest {gates}" for gates in ("acceptance", "--pyargs tracka.acceptance"))
    assert header[0].startswith(f"campaign: tasks/smoke-libero-object (the default; {here} --campaign NAME)")
    assert f"(TRACKA_CAMPAIGN; {elsewhere} --campaign NAME)" in header[1]


def test_a_failed_gate_prints_no_whole_object(sessions: Mapping[str, Made]) -> None:
    texts = [text for made in sessions.values() for _, text in cases(of_session(made)).values()]
    assert any(texts)
    assert not [text for text in texts if "Campaign(" in text or "Row(" in text or "{" in text]
