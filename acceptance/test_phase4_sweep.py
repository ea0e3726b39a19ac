"""Phase 4, sweep: runs every enabled row of the matrix, one test per row, the longest first, each on its own device.

A row that has passed with the same inputs is judged again, not run again. This phase hands over a run folder and a
marker per row, and artifacts/summary/all_runs.csv, all_runs.md and failures.csv.
"""

from collections.abc import Callable

import pytest

from tracka.campaign.matrix import Row
from tracka.core.artifacts import Result
from tracka.gates.row_contracts import RUN_CONTRACTS

pytestmark = pytest.mark.phase4


def test_phase_3_has_passed(require_handoff: Callable[[str], None]) -> None:
    """Needs the handoff of phase 3, with status pass and unchanged inputs."""
    require_handoff("phase3")


def test_row(
    row: Row,
    evaluate: Callable[[Row], Result],
    row_contract: Callable[[Row, str], None],
    record_row: Callable[[Row, Result], None],
) -> None:
    """Runs the row, unless it has passed, and holds its files against the contracts of a run."""
    record_row(row, evaluate(row))
    for name in RUN_CONTRACTS:
        row_contract(row, name)


def test_the_status_of_phase4_is_pass(require_handoff: Callable[[str], None]) -> None:
    """Reads the handoff of this phase, which is written when the tests above have ended."""
    require_handoff("phase4")
