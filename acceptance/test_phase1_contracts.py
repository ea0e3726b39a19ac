"""Phase 1, contracts: the campaign's definition is sound and lerobot-eval understands what will be asked of it.

No GPU and no checkpoint is needed. Handed over: artifacts/state/cli_capabilities.json and lerobot_eval_help.txt.
"""

from collections.abc import Callable

import pytest

from tracka.campaign.campaign import Campaign
from tracka.core.files import Json

pytestmark = pytest.mark.phase1


def test_the_installed_lerobot_eval_tells_its_flags(capabilities: Json, contract: Callable[[str], None]) -> None:
    contract("cli_capabilities")
    contract("help_text")
    assert {"--policy.path", "--env.task", "--eval.n_episodes"} <= set(capabilities["supported_flags"])


def test_every_row_needs_only_flags_that_lerobot_eval_has(capabilities: Json, contract: Callable[[str], None]) -> None:
    contract("commands")


def test_the_run_schema_describes_manifest_and_result(contract: Callable[[str], None]) -> None:
    contract("run_schema")


def test_the_baseline_is_an_enabled_row_with_one_task(campaign: Campaign) -> None:
    baseline = campaign.row(campaign.baseline)
    assert baseline.enabled
    assert len(campaign.task_ids(baseline)) == 1


def test_the_matrix_scales_beyond_the_baseline(contract: Callable[[str], None]) -> None:
    contract("scales")
