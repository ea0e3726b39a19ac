"""What a session says at its end to somebody who sees it for the first time: its words, and what to run next."""

import campaigns
import pytest
from campaigns import Made, judged

from tracka import session_summary
from tracka.core import files


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return campaigns.below_threshold(tmp_path_factory.getbasetemp())


def test_a_session_that_is_not_accepted_ends_with_the_next_command(failed: Made) -> None:
    lines = judged(failed).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("next: ")]
    assert line.startswith("next: report.html shows all rows; pytest ") and line.endswith("--lf runs again what failed")
    assert lines.index(line) > next(number for number, line in enumerate(lines) if line.startswith("verdict: "))


def test_handoff_and_strict_validation_are_explained_where_they_first_stand(failed: Made) -> None:
    output = judged(failed).stdout
    assert output.count(session_summary.WORDS) == 1
    assert output.index(session_summary.WORDS) < output.index("phase1: ") < output.index("(strict validation")


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        ("phase1", "correct the files in configs, then pytest "),
        ("phase2", "`tracka doctor` says what this machine lacks; "),
        ("phase3", "report.html shows all rows; "),
        ("phase5", "tracka validate --phase all --root "),
    ],
)
def test_the_next_step_is_that_of_the_first_phase_without_a_pass(made: Made, phase: str, said: str) -> None:
    files.write_json(made.layout.handoff(phase), {"status": "blocked"})
    assert session_summary.next_step(made.spec).startswith(said)


def test_a_row_that_failed_is_named_with_its_log(ready: Made) -> None:
    ready.behave(long_b1_e6=["crash"])
    ready.run_row("long_b1_e6")
    files.write_json(ready.layout.handoff("phase4"), {"status": "partial"})
    assert session_summary.next_step(ready.spec).startswith("artifacts/runs/long_b1_e6/stderr.log says why; ")


def test_where_nothing_is_wrong_there_is_no_next_step(made: Made) -> None:
    files.write_json(made.layout.handoff("phase1"), {"status": "pass"})
    assert session_summary.next_step(made.spec) == ""
