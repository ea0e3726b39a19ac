"""Phase 5, closure: every row is accounted for, and the pages say how the results were obtained.

This phase hands over runbook.md and results.md. After it all phases are validated strictly: that is the verdict, which
decides the exit status.
"""

from collections.abc import Callable

import pytest

from tracka.reporting import caveats

pytestmark = pytest.mark.phase5


def test_phase_4_has_passed(require_handoff: Callable[[str], None]) -> None:
    """Needs the handoff of phase 4, with status pass and unchanged inputs."""
    require_handoff("phase4")


def test_no_enabled_row_is_unaccepted(contract: Callable[[str], None]) -> None:
    """Reads failures.csv, which must name no row."""
    contract("no_failures")


def test_the_runbook_tells_how_to_run_it_all_again(closure: None, contract: Callable[[str], None]) -> None:
    """Writes the pages and looks for every command that ran in runbook.md."""
    contract("runbook")


def test_the_results_tell_every_rate_with_its_episodes(
    closure: None, contract: Callable[[str], None], record_caveats: Callable[..., None]
) -> None:
    """Holds results.md against what the run folders say, and records caveats of the results."""
    record_caveats(caveats.of_results)
    contract("results")


def test_the_policies_show_what_the_campaign_demands(
    record_verdict: Callable[[], None], contract: Callable[[str], None]
) -> None:
    """Holds verdict.json against the run folders and against `[verdict]`. Collected only with a `[verdict]`."""
    record_verdict()
    contract("verdict")


def test_the_verdict(require_valid_campaign: Callable[[], None]) -> None:
    """Validates all phases strictly, when the tests above have ended and this phase has been handed over."""
    require_valid_campaign()
