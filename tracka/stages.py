"""Names the stages in which a session runs its tests, by the tests' node ids alone, which xdist's controller has too.

A phase is a stage. The stage after it, in which the phase has been handed over, has one test: the closing test, which
judges the handoff.
"""

import re

# The test that judges the handoff of each phase; phase 5 ends with the verdict on the campaign.
CLOSING = {
    **{f"phase{number}": f"test_the_status_of_phase{number}_is_pass" for number in range(1, 5)},
    "phase5": "test_the_verdict",
}
HANDED_OVER = " handed over"
# The test of phase 3 that runs the baseline, and the test of phase 4 that runs the row in brackets.
BASELINE_TEST = "test_the_baseline_runs_and_leaves_valid_evidence"
ROW_TEST = "test_row["


def phase_of(nodeid: str) -> str:
    """Returns the phase of a test by its module's name, `phase3` for test_phase3_baseline.py; empty for other tests."""
    match = re.search(r"test_(phase[1-5])_", nodeid)
    return match[1] if match else ""


def stage_of(nodeid: str) -> str:
    """Returns the stage in which a test runs: its phase or, for a phase's closing test, the stage after the hand-over.

    Stages are compared as text: `phase4` comes before `phase4 handed over`, and that before `phase5`.
    """
    return f"{phase_of(nodeid)}{HANDED_OVER}" if is_closing(nodeid) else phase_of(nodeid)


def is_closing(nodeid: str) -> bool:
    """Returns whether a test judges its phase's handoff, and so runs after the hand-over: a status or the verdict."""
    return nodeid.rpartition("::")[2] == CLOSING.get(phase_of(nodeid))


def run_id_of(nodeid: str, baseline: str) -> str:
    """Returns the run id of the row that a test runs or judges; empty for a test that runs no row."""
    name = nodeid.rpartition("::")[2]
    if phase_of(nodeid) == "phase3" and name == BASELINE_TEST:
        return baseline
    is_row = phase_of(nodeid) == "phase4" and name.startswith(ROW_TEST)
    return name.removeprefix(ROW_TEST).removesuffix("]") if is_row else ""
