"""Phase 1, contracts: the campaign's definition is sound, and lerobot-eval understands what it will be asked.

This phase needs no GPU and no checkpoint. This phase hands over artifacts/state/cli_capabilities.json and
lerobot_eval_help.txt.
"""

from collections.abc import Callable

import pytest

from tracka.core.files import Json

pytestmark = pytest.mark.phase1


def test_the_installed_lerobot_eval_tells_its_flags(capabilities: Json, contract: Callable[[str], None]) -> None:
    """Asks the installed lerobot-eval for its help; the recorded flags are those of the help text."""
    contract("cli_capabilities")
    contract("help_text")


def test_every_row_needs_only_flags_that_lerobot_eval_has(capabilities: Json, contract: Callable[[str], None]) -> None:
    """Makes the command of every enabled row and looks up its flags."""
    contract("commands")


def test_the_run_schema_describes_manifest_and_result(contract: Callable[[str], None]) -> None:
    """Holds configs/run_schema.json against the schema of this Track A."""
    contract("run_schema")


def test_the_baseline_is_an_enabled_row_with_one_task(contract: Callable[[str], None]) -> None:
    """Looks the baseline up in the matrix."""
    contract("baseline")


def test_no_row_asks_for_a_gpu_that_the_campaign_does_not_expect(contract: Callable[[str], None]) -> None:
    """Compares the column gpu_id of each enabled row with expected_gpus."""
    contract("gpus")


def test_the_matrix_scales_beyond_the_baseline(contract: Callable[[str], None]) -> None:
    """Looks for an enabled row that is not the baseline."""
    contract("scales")


def test_the_campaigns_demands_can_be_shown_and_are_registered(
    registration: None, contract: Callable[[str], None]
) -> None:
    """Holds the thresholds of `[verdict]` against the episodes that the matrix asks for, and registers them.

    Collected only with a `[verdict]`.
    """
    contract("thresholds")
    contract("registration")


def test_the_status_of_phase1_is_pass(require_handoff: Callable[[str], None]) -> None:
    """Reads the handoff of this phase, which is written when the tests above have ended."""
    require_handoff("phase1")
