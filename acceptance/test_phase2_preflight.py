"""Phase 2, preflight: this host renders headless and has the GPUs, the software and the checkpoints.

This phase hands over artifacts/preflight/preflight.json with one check per question, and snapshots of host and
software.
"""

from collections.abc import Callable

import pytest

from tracka.core.files import Json
from tracka.reporting import caveats

pytestmark = pytest.mark.phase2


def test_phase_1_has_passed(require_handoff: Callable[[str], None]) -> None:
    """Needs the handoff of phase 1, with status pass and unchanged inputs."""
    require_handoff("phase1")


def test_the_report_has_the_plans_keys(preflight_report: Json, contract: Callable[[str], None]) -> None:
    """Holds preflight.json against its schema."""
    contract("preflight_report")


def test_no_required_check_fails(
    preflight_report: Json, contract: Callable[[str], None], record_caveats: Callable[..., None]
) -> None:
    """Reads the checks in preflight.json, and records its warnings as caveats."""
    record_caveats(caveats.of_preflight)
    contract("preflight_checks")


def test_a_backend_renders_a_libero_frame(preflight_report: Json, contract: Callable[[str], None]) -> None:
    """Reads the attempts to render in preflight.json."""
    contract("backend")


def test_the_host_has_the_gpus_that_the_campaign_expects(
    preflight_report: Json, contract: Callable[[str], None]
) -> None:
    """Counts the GPUs in preflight.json and in the output of nvidia-smi."""
    contract("gpu_list")


def test_host_and_software_are_on_record(preflight_report: Json, contract: Callable[[str], None]) -> None:
    """Looks for the snapshots of GPUs, packages, environment and set-up."""
    contract("snapshots")


def test_the_status_of_phase2_is_pass(require_handoff: Callable[[str], None]) -> None:
    """Reads the handoff of this phase, which is written when the tests above have ended."""
    require_handoff("phase2")
