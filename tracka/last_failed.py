"""Lets `--lf` run rows again that have passed and whose evidence is refused, though no test of theirs has failed."""

from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from .campaign.campaign import Campaign
from .campaign.matrix import Row
from .core import fact_cache
from .core.errors import TrackaError
from .runs import run

CACHE_KEY = "cache/lastfailed"  # pytest's own
BASELINE_TEST = "test_phase3_baseline.py::test_the_baseline_runs_and_leaves_valid_evidence"
ROW_TEST = "test_phase4_sweep.py::test_row[{}]"
CLOSING_TEST = "test_phase5_closure.py::test_phase_4_has_passed"


def add_refused_rows(config: pytest.Config, campaign: Campaign, nodeid: str) -> None:
    """Adds the tests of rows whose evidence is refused to those that `--lf` selects.

    `nodeid` is that of any gate. Call this function after pytest has written what failed.
    """
    folder, rows = PurePosixPath(nodeid.partition("::")[0]).parent, _refused_rows(campaign)
    if rows and getattr(config, "cache", None) is not None:
        failed = config.cache.get(CACHE_KEY, {})
        names = [name for row in rows for name in _tests(campaign, row)]
        config.cache.set(CACHE_KEY, failed | {f"{folder}/{name}": True for name in (*names, CLOSING_TEST)})


def _refused_rows(campaign: Campaign) -> list[Row]:
    """Returns the enabled rows whose evidence is refused; none where phases 1 and 2 have not passed."""
    try:
        host = run.load_host(campaign.layout)
    except TrackaError:
        return []
    with fact_cache.scope():
        return [row for row in campaign.enabled if run.has_refused_evidence(campaign, row, host)]


def _tests(campaign: Campaign, row: Row) -> Iterator[str]:
    """Yields the names of the tests that run the row; phase 4 only judges the baseline."""
    if row.run_id == campaign.baseline:
        yield BASELINE_TEST
    yield ROW_TEST.format(row.run_id)
