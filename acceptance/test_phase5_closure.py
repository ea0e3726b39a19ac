"""Phase 5, closure: everything is accounted for, and the pages say how it was obtained.

Handed over: runbook.md and results.md. After this phase all phases are validated strictly, which decides the exit.
"""

from collections.abc import Callable

import pytest

from tracka.reporting import caveat

pytestmark = pytest.mark.phase5


def test_phase_4_has_passed(handed_over: Callable[[str], None]) -> None:
    handed_over("phase4")


def test_no_enabled_row_is_unaccepted(contract: Callable[[str], None]) -> None:
    contract("no_failures")


def test_the_runbook_tells_how_to_run_it_all_again(closure: None, contract: Callable[[str], None]) -> None:
    contract("runbook")


def test_the_results_tell_every_rate_with_its_episodes(
    closure: None, contract: Callable[[str], None], record_caveats: Callable[..., None]
) -> None:
    record_caveats(caveat.of_results)
    contract("results")
