"""What a session says at its end to somebody who sees it for the first time: its words, and what to run next."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import campaigns
import pytest
from campaigns import Made, copied, judged
from processes import wait_until

from tracka import session_summary
from tracka.campaign import commands
from tracka.core import files
from tracka.core.check import Check
from tracka.gates import validate
from tracka.preflight import blank_report, host_probes
from tracka.reporting import rejected_rows, report
from tracka.runs.run import RerunPolicy


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return campaigns.below_threshold(tmp_path_factory.getbasetemp())


def test_a_session_whose_row_was_measured_ends_with_the_cause_and_advises_no_rerun(failed: Made) -> None:
    lines = judged(failed).stdout.splitlines()
    cause, step = [line for line in lines if line.startswith(("cause: ", "next: "))]
    assert cause == "cause: row wide_b4_e4: the success rate is 50.0%, below the threshold of 75%"
    assert step.startswith(
        f"next: measured: a rerun changes nothing; look at {failed.root}/report.html and at the videos"
    )
    assert "--lf" not in step
    last_test = max(number for number, line in enumerate(lines) if line.startswith("FAILED "))
    assert last_test < lines.index(cause) < lines.index(step)


def test_several_failed_tests_of_one_cause_are_said_to_have_one(failed: Made) -> None:
    lines = judged(failed).stdout.splitlines()
    tests = sum(line.startswith("FAILED ") for line in lines)
    (cause,) = [number for number, line in enumerate(lines) if line.startswith("cause: ")]
    assert tests > 1 and lines[cause - 1] == f"{tests} tests failed; it began with 1 cause:"


def test_the_pages_of_a_measured_row_advise_no_rerun(failed: Made) -> None:
    assert rejected_rows.STAYS in failed.layout.runbook.read_text()
    assert "--lf" not in failed.layout.runbook.read_text() and "--resume" not in _rerun(failed)
    page = failed.layout.report_page.read_text()
    assert rejected_rows.STAYS in page and "runs wide_b4_e4 again" not in page
    assert not [line for line in judged(failed).stdout.splitlines() if "--lf" in line]


def test_a_strict_validation_of_a_measured_row_advises_no_rerun(failed: Made) -> None:
    findings = validate.validate(failed.spec, strict=True)
    assert [finding for finding in findings if rejected_rows.STAYS in str(finding)]
    assert not [finding for finding in findings if "Mend the cause" in str(finding)]


def _rerun(made: Made) -> str:
    return made.layout.runbook.read_text().partition("## To rerun")[2]


def test_of_rows_that_failed_and_rows_that_were_measured_only_the_first_run_again(
    failed: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = copied(failed, tmp_path)
    for name, value in made.environ.items():
        monkeypatch.setenv(name, value)
    made.behave(long_b1_e6=["ok", "crash", "crash"])
    made.run_row("long_b1_e6", RerunPolicy(allow_overwrite=True))
    report.write(made.spec)
    assert "long_b1_e6" in _rerun(made).partition("These rows")[0]
    assert "wide_b4_e4" not in _rerun(made).partition("These rows")[0]
    step = session_summary.next_step(made.spec)
    assert step.startswith(f"{made.root}/artifacts/runs/long_b1_e6/stderr.log says why; ")
    assert step.endswith("--lf runs again what failed")


@pytest.mark.slow
def test_after_a_change_of_settings_the_next_command_is_one_that_works(failed: Made, tmp_path: Path) -> None:
    made = copied(failed, tmp_path)
    made.behave()
    text = made.layout.settings.read_text()
    made.layout.settings.write_text(text.replace("task_ids = [0]", "task_ids = [0]\nepisode_length = 300"))
    said = made.pytest("-n0", "--lf").stdout
    (step,) = [line for line in said.splitlines() if line.startswith("next: ")]
    assert "--lf" not in step and "a new run id" in step
    command = step.partition("; or ")[2].partition(" plays anew")[0]
    assert command.startswith("pytest ") and command.endswith(" --allow-overwrite")
    before = len(made.started())
    ended = made.pytest("-n0", "--allow-overwrite")
    assert "passed with another matrix row" not in ended.stdout
    assert made.started()[before:] == ["baseline_b1_e2", "long_b1_e6", "wide_b4_e4"]


def test_why_begins_with_the_reason_and_the_remedy_of_a_row_that_is_not_accepted(failed: Made) -> None:
    said = failed.call("why", "wide_b4_e4", "--root", str(failed.root)).stdout.splitlines()
    assert said[0] == (
        "wide_b4_e4 is not accepted (below_threshold): the success rate is 50.0%, below the threshold of 75%"
    )
    assert said[1].startswith("remedy: ") and rejected_rows.STAYS in said[1]
    assert "not accepted" not in failed.call("why", "long_b1_e6", "--root", str(failed.root)).stdout


def test_why_of_a_campaign_names_its_runs(failed: Made) -> None:
    ended = failed.call("why", str(failed.root))
    assert ended.returncode == 2
    assert "is a campaign, but one of its runs is asked for: baseline_b1_e2, long_b1_e6" in ended.stderr


def test_why_finds_the_campaign_of_a_run_around_the_user(failed: Made, tmp_path: Path) -> None:
    shutil.copytree(failed.root, tmp_path / "my-campaign", symlinks=True)
    said = failed.call("why", "wide_b4_e4", cwd=tmp_path)
    assert said.stdout.startswith("wide_b4_e4 is not accepted (below_threshold): "), said.stderr
    shutil.copytree(failed.layout.runs, tmp_path / "other" / "artifacts" / "runs")
    shutil.copytree(failed.root / "configs", tmp_path / "other" / "configs")
    several = failed.call("why", "wide_b4_e4", cwd=tmp_path)
    assert several.returncode == 2 and "my-campaign, other. Name one: --root my-campaign" in several.stderr


def test_the_help_of_why_speaks_of_rejected_rows_first(made: Made) -> None:
    said = " ".join(made.call("why", "--help").stdout.split())
    assert "Say why a row is not accepted and what to do, and why" in said


def test_the_pages_of_progress_ask_nobody_to_mend_a_result(failed: Made) -> None:
    for page in (failed.layout.plan, failed.layout.todo):
        (line,) = [line for line in page.read_text().splitlines() if "phase=phase4" in line]
        assert "Mend" not in line and "rerun: " not in line
        assert "the success rate is 0.500, but the threshold is 0.750" in line and rejected_rows.STAYS in line


def test_handoff_and_strict_validation_are_explained_where_they_first_stand(failed: Made) -> None:
    output = judged(failed).stdout
    assert output.count(session_summary.WORDS) == 1
    assert output.index(session_summary.WORDS) < output.index("phase1: ") < output.index("(strict validation")


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        ("phase1", "correct the files in configs, then pytest "),
        ("phase2", "`tracka doctor` says what this machine lacks; "),
        ("phase3", "ROOT/report.html shows all rows; "),
        ("phase5", "tracka validate --phase all --root "),
    ],
)
def test_the_next_step_is_that_of_the_first_phase_without_a_pass(made: Made, phase: str, said: str) -> None:
    files.write_json(made.layout.handoff(phase), {"status": "blocked"})
    assert session_summary.next_step(made.spec).startswith(said.replace("ROOT", str(made.root)))


def blocked_by(made: Made, **remedies: str) -> None:
    """Leaves a preflight whose checks of these names fail with these remedies, and the handoff of phase 2."""
    report = blank_report.of_begun(made.layout, "egl")
    (begun,) = report["checks"]
    checks = [begun | {"name": name, "evidence": "so", "remedy": remedy} for name, remedy in remedies.items()]
    files.write_json(made.layout.preflight_report, {**report, "checks": checks})
    notes = [f"{name}: so" for name in remedies]
    files.write_json(made.layout.handoff("phase2"), {"status": "blocked", "notes": notes})


def test_probes_that_took_too_long_lead_to_another_run_or_to_more_time_and_not_to_doctor(made: Made) -> None:
    late = Check("rendering:egl", "fail", "the process took too long", "Install libegl1", timed_out=True)
    remedy = host_probes.with_remedy_for_time(made.spec, late).remedy or ""
    blocked_by(made, lerobot_import=remedy, rendering=remedy)
    step = session_summary.next_step(made.spec)
    assert step == remedy and "doctor" not in step
    assert "--lf; or raise probe_secs under [timeouts] in configs/campaign.toml, from 600 to 1200" in step
    blocked_by(made, rendering=remedy, features="Rename it")
    assert session_summary.next_step(made.spec).startswith("mend the checks named above, then pytest ")


def test_doctor_is_named_only_where_it_makes_a_failed_check_too(made: Made) -> None:
    blocked_by(made, features="Rename it", model="Save it again")
    assert session_summary.next_step(made.spec).startswith("mend the checks named above, then pytest ")
    blocked_by(made, features="Rename it", gpus="Plug one in")
    assert session_summary.next_step(made.spec).startswith("`tracka doctor` says what this machine lacks; ")
    blocked_by(made, features="Rename it")
    assert session_summary.next_step(made.spec).startswith("Rename it; then pytest ")


def test_the_cause_of_a_blocked_preflight_stands_once_more_below_all_the_tests_that_it_fails(made: Made) -> None:
    blocked_by(made, features="Rename it")
    said = [*session_summary.last_lines(made.spec, accepted=False, failed=17)]
    assert said[:2] == ["17 tests failed; it began with 1 cause:", "cause: features: so"]
    assert said[2].startswith("next: ") and len(said) == 3


def test_rows_that_were_cut_off_are_played_again_and_nothing_is_to_be_mended(ready: Made) -> None:
    ready.behave(long_b1_e6=["slow:60"])
    row = ready.start_row("long_b1_e6")
    wait_until(lambda: bool(ready.started()))
    row.send_signal(signal.SIGINT)
    row.communicate(timeout=30)
    files.write_json(ready.layout.handoff("phase4"), {"status": "partial"})
    step = session_summary.next_step(ready.spec)
    assert step.endswith("--lf plays what was cut off; there is nothing to mend")
    spec = ready.spec
    (found,) = validate.row_contract_findings(spec, spec.row("long_b1_e6"), "result")
    assert "mend" not in found.remedy and found.remedy.endswith("--lf")


def test_a_row_that_failed_is_named_with_its_log(ready: Made) -> None:
    ready.behave(long_b1_e6=["crash"])
    ready.run_row("long_b1_e6")
    files.write_json(ready.layout.handoff("phase4"), {"status": "partial"})
    assert session_summary.next_step(ready.spec).startswith(
        f"{ready.root}/artifacts/runs/long_b1_e6/stderr.log says why; "
    )


def test_what_a_phase_finds_beside_its_rows_is_the_cause(
    copy_of: Callable[[Made], Made], tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = copy_of(campaigns.finished(tmp_path_factory.getbasetemp(), "passed"))
    notes = ["warning: no threshold", "a.mp4: the file is the same as b.mp4, which is of another episode"]
    files.write_json(made.layout.handoff("phase4"), {"status": "partial", "notes": notes})
    assert [*session_summary.last_lines(made.spec, accepted=False, failed=3)] == [
        "3 tests failed; it began with 1 cause:",
        f"cause: {notes[1]}",
        "next: every row is accepted; mend what the phase finds beside them, then "
        f"{commands.gates(made.layout, '--lf')}",
    ]


def test_where_nothing_is_wrong_there_is_no_next_step(made: Made) -> None:
    files.write_json(made.layout.handoff("phase1"), {"status": "pass"})
    assert session_summary.next_step(made.spec) == ""
