"""Phase 3, baseline: one small run goes the whole way from the command to a parsed summary.

This phase hands over the run folder of the baseline, its row marker, and artifacts/summary/baseline_summary.csv and
.md.
"""

from collections.abc import Callable

import pytest

from tracka.campaign.campaign import Campaign
from tracka.campaign.matrix import Row
from tracka.core.artifacts import Result
from tracka.gates.row_contracts import RUN_CONTRACTS

pytestmark = pytest.mark.phase3


def test_phase_2_has_passed(require_handoff: Callable[[str], None]) -> None:
    """Needs the handoff of phase 2, with status pass and unchanged inputs."""
    require_handoff("phase2")


def test_the_engine_plays_the_episodes_of_lerobot_eval(
    parity_row: Row, prove_engine: Callable[[Row], None], row_contract: Callable[[Row, str], None]
) -> None:
    """Makes the parity certificate of one checkpoint and way to ask it, on a GPU of its own.

    There is one such test for each checkpoint and way to ask it, and none where lerobot-eval is the engine.
    """
    prove_engine(parity_row)
    row_contract(parity_row, "parity")


def test_the_baseline_runs_and_leaves_valid_evidence(
    campaign: Campaign,
    evaluate: Callable[[Row], Result],
    contract: Callable[[str], None],
    record_row: Callable[[Row, Result], None],
) -> None:
    """Runs the baseline and holds its files against the contracts of a run."""
    baseline = campaign.row(campaign.baseline)
    record_row(baseline, evaluate(baseline))
    for name in RUN_CONTRACTS:
        contract(f"baseline_{name}")


def test_the_status_of_phase3_is_pass(require_handoff: Callable[[str], None]) -> None:
    """Reads the handoff of this phase, which is written when the tests above have ended."""
    require_handoff("phase3")
