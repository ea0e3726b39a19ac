"""A campaign whose session was interrupted: its files agree, and `tracka bundle` writes nothing that verify disowns."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY, Made
from processes import wait_until

from tracka.core import files, lock
from tracka.gates import validate

BASELINE = "baseline_b1_e2"
BROKEN = {"TRACKA_STANDIN_BROKEN_GL": "egl,glx"}


@pytest.fixture(scope="module", autouse=True)
def signals_are_not_ignored() -> Iterator[None]:
    """Lets sessions start as from a shell, where these tests themselves run in the background too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(made: Made, number: signal.Signals, *words: str) -> None:
    """Starts a session whose baseline would take a minute, and ends it as the baseline plays."""
    before = len(made.started())
    made.behave(**{BASELINE: ["slow:60"] * 3})
    command = [sys.executable, "-m", "pytest", "acceptance", "--campaign", str(made.root), *words]
    quiet = subprocess.DEVNULL
    environ = {**os.environ, **made.environ}
    with subprocess.Popen(command, cwd=REPOSITORY, env=environ, stdin=quiet, stdout=quiet, stderr=quiet) as session:
        wait_until(lambda: len(made.started()) > before or session.poll() is not None, 60)
        session.send_signal(number)
        assert session.wait(60) == 2
    assert made.results(BASELINE)[-1] == ("fail", "interrupted")


@pytest.fixture(scope="module")
def blocked_before(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign whose first session was blocked by preflight, and whose second session got TERM in the baseline."""
    made = campaigns.make(tmp_path_factory.mktemp("interrupted") / "campaign")
    assert Made(made.root, {**made.environ, **BROKEN}).pytest("-n0").returncode == 1
    tables = made.layout.summary / "all_runs.csv"
    (made.root.parent / "before.csv").write_bytes(tables.read_bytes())
    interrupt(made, signal.SIGTERM, "-n0")
    return made


@pytest.fixture(scope="module")
def accepted_before(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign that had ended, and whose baseline was played anew with other settings until Ctrl-C."""
    ended = campaigns.finished(tmp_path_factory.getbasetemp(), "passed")
    made = campaigns.copied(ended, tmp_path_factory.mktemp("again"))
    made.configure(f"[rows.{BASELINE}]\nepisode_length = 9")
    interrupt(made, signal.SIGINT, "-n0", "--allow-overwrite")
    return made


@pytest.fixture(params=["blocked_before", pytest.param("accepted_before", marks=pytest.mark.slow)])
def interrupted(request: pytest.FixtureRequest) -> Made:
    """Both of these in turn."""
    found: Made = request.getfixturevalue(request.param)
    return found


def outdated(made: Made) -> list[str]:
    """Returns what is wrong with those tables and pages that are there."""
    names = {"phase3": ("baseline_summary",), "phase4": ("summaries",), "phase5": ("runbook", "results")}
    of_contracts = (validate.contract_findings(made.spec, phase, name) for phase in names for name in names[phase])
    return [str(finding) for found in of_contracts for finding in found if Path(finding.where).exists()]


def test_an_interrupted_session_leaves_no_table_and_no_page_of_an_earlier_one(interrupted: Made) -> None:
    assert outdated(interrupted) == []
    table = (interrupted.layout.summary / "all_runs.csv").read_text()
    assert "interrupted" in next(line for line in table.splitlines() if line.startswith(BASELINE))


def test_its_bundle_is_sound_and_says_before_and_after_that_nothing_was_accepted(
    interrupted: Made, tmp_path: Path
) -> None:
    bundled = interrupted.call("bundle", str(interrupted.root), "--output", str(tmp_path / "first.tar"))
    assert bundled.returncode == 0, bundled.stderr
    assert bundled.stderr.startswith("verdict: none, since no session has ended phase 5")
    told = interrupted.call("verify", str(tmp_path / "first.tar"))
    assert (told.returncode, told.stderr) == (1, "")
    assert "bundle: sound." in told.stdout and told.stdout.endswith("verdict: not accepted\n")


def test_its_rows_are_rejected_in_the_order_of_the_matrix(blocked_before: Made, tmp_path: Path) -> None:
    blocked_before.call("bundle", str(blocked_before.root), "--output", str(tmp_path / "first.tar"))
    told = blocked_before.call("verify", str(tmp_path / "first.tar")).stdout.splitlines()
    assert [line for line in told if line.startswith("rejected row")] == [
        f"rejected row {BASELINE}: not accepted (interrupted)",
        "rejected row long_b1_e6: not accepted (not_run)",
        "rejected row wide_b4_e4: not accepted (not_run)",
    ]


@pytest.fixture
def killed(blocked_before: Made, copy_of: Callable[[Made], Made]) -> Made:
    """The campaign as a session leaves it that is killed before it has written its tables."""
    made = copy_of(blocked_before)
    before = (blocked_before.root.parent / "before.csv").read_bytes()
    (made.layout.summary / "all_runs.csv").write_bytes(before)
    return made


def bundle(made: Made, *words: str) -> subprocess.CompletedProcess[str]:
    return made.call("bundle", str(made.root), "--output", str(made.root.parent / "first.tar"), *words)


@pytest.mark.parametrize("words", [(), ("--redact",)], ids=["plain", "redacted"])
def test_a_campaign_whose_tables_are_not_those_of_its_rows_is_not_bundled(killed: Made, words: tuple[str, ...]) -> None:
    refused = bundle(killed, *words)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert not (killed.root.parent / "first.tar").exists()
    first, second = refused.stderr.splitlines()
    assert "no bundle is written: 1 contradiction between its files" in first
    assert first.endswith(f"Make them agree: tracka close {killed.root}, which runs nothing")
    assert "all_runs.csv: the table " in second and second.endswith("The command above writes it anew")


def test_the_command_that_is_named_makes_them_agree(killed: Made) -> None:
    started = killed.started()
    (command,) = [line.partition("agree: ")[2].partition(",")[0] for line in bundle(killed).stderr.splitlines()[:1]]
    assert killed.call(*command.split()[1:]).returncode == 1  # it is not accepted, as before
    assert killed.started() == started
    assert bundle(killed).returncode == 0
    told = killed.call("verify", str(killed.root.parent / "first.tar"))
    assert "bundle: sound." in told.stdout and told.stderr == ""


def test_the_command_makes_the_baselines_table_agree_too(killed: Made) -> None:
    (killed.layout.summary / "baseline_summary.csv").write_text("run_id\n")
    assert f"tracka close {killed.root}" in bundle(killed).stderr
    killed.call("close", str(killed.root))
    assert bundle(killed).returncode == 0


def test_while_a_session_has_the_campaign_its_end_is_waited_for(killed: Made) -> None:
    with lock.session(killed.layout.locks, "campaign"):
        refused = bundle(killed)
    assert refused.returncode == 1
    assert "A session has this campaign: make the bundle when it has ended" in refused.stderr


def test_a_row_whose_files_contradict_each_other_is_not_bundled_and_the_gates_are_named(killed: Made) -> None:
    result = killed.layout.run(BASELINE).result
    files.write_json(result, files.read_json(result) | {"duration_sec": 0.5})
    refused = bundle(killed)
    assert refused.returncode == 1
    first, *_ = refused.stderr.splitlines()
    assert f"--campaign {killed.root}, which runs no row again whose files are sound" in first
