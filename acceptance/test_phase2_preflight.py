"""Phase 2, preflight: this host renders headless, has the GPUs, the software and the checkpoints.

Handed over: artifacts/preflight/preflight.json with a check a question, and snapshots of host and software.
"""

from collections.abc import Callable

import pytest

from tracka.campaign.campaign import Campaign
from tracka.core.files import Json
from tracka.reporting import caveat

pytestmark = pytest.mark.phase2


def test_phase_1_has_passed(handed_over: Callable[[str], None]) -> None:
    handed_over("phase1")


def test_the_report_has_the_plans_keys(preflight_report: Json, contract: Callable[[str], None]) -> None:
    contract("preflight_report")


def test_no_required_check_fails(
    preflight_report: Json, contract: Callable[[str], None], record_caveats: Callable[..., None]
) -> None:
    record_caveats(caveat.of_preflight)
    contract("preflight_checks")


def test_a_backend_renders_a_libero_frame(preflight_report: Json) -> None:
    backend = preflight_report["mujoco_gl_effective"]
    assert backend in ("egl", "glx", "osmesa"), preflight_report["backend_attempts"]
    assert any(attempt["ok"] and attempt["backend"] == backend for attempt in preflight_report["backend_attempts"])


def test_the_host_has_the_gpus_that_the_campaign_expects(
    preflight_report: Json, campaign: Campaign, contract: Callable[[str], None]
) -> None:
    assert preflight_report["gpu_count"] >= campaign.expected_gpus
    contract("gpu_list")


def test_host_and_software_are_on_record(preflight_report: Json, contract: Callable[[str], None]) -> None:
    contract("snapshots")
