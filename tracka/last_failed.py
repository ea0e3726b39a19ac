"""Keeps what `pytest --lf` selects: a campaign's own failures, and the closing tests of the phases after the first.

pytest has one list of failed tests for all campaigns, so that a session on another campaign would take tests off the
list. Here each campaign, and each tier of it, has its own list in pytest's cache. Where the list names any test, `--lf`
also selects the closing tests from the first failed phase on, so that the verdict is given whichever tests the last
session selected. A row that has passed and whose evidence is refused is selected, too, though no test of that row has
failed.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from .campaign.campaign import Campaign
from .campaign.layout import PHASES, Layout
from .campaign.matrix import Row
from .core import fact_cache
from .core.errors import TrackaError
from .runs import run
from .stages import CLOSING, phase_of

OF_PYTEST = "cache/lastfailed"  # pytest's own list: node id -> true
OF_CAMPAIGNS = "tracka/lastfailed"  # the folder of a campaign, or of a tier's artifacts -> node ids
BASELINE_TEST = "test_phase3_baseline.py::test_the_baseline_runs_and_leaves_valid_evidence"
ROW_TEST = "test_phase4_sweep.py::test_row[{}]"
PLUGINS = ("lfplugin", "lfplugin-collwrapper")  # they read pytest's list when they are made


def restore(config: pytest.Config, layout: Layout) -> None:
    """Puts the failures of the campaign, or of its tier, on pytest's list in place of others, before a worker reads it.

    Does nothing in a session without pytest's cache.
    """
    cache, manager = getattr(config, "cache", None), config.pluginmanager
    own = manager.get_plugin(PLUGINS[0])
    if cache is None or own is None:
        return
    listed, failed = _kept(cache, OF_PYTEST), _failed(cache, layout)
    names = [*(name for name in listed if not phase_of(name)), *failed, *closing_tests(failed, config.rootpath)]
    if listed == cache.get(OF_PYTEST, {}) and set(names) == set(listed):
        return
    cache.set(OF_PYTEST, dict.fromkeys(names, True))
    for name in filter(manager.has_plugin, PLUGINS):
        manager.unregister(name=name)
    manager.register(type(own)(config), PLUGINS[0])


def _kept(cache: pytest.Cache, name: str) -> dict[str, Any]:
    """Returns what pytest's cache keeps under `name`; an empty object where the cache is damaged."""
    value = cache.get(name, {})
    return value if isinstance(value, dict) else {}


def _failed(cache: pytest.Cache, layout: Layout) -> list[str]:
    names = _kept(cache, OF_CAMPAIGNS).get(_key(layout), [])
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _key(layout: Layout) -> str:
    """Returns the folder by which the failures of a campaign or of a tier are kept, as long as the folder exists."""
    return str(layout.naming_folder)


def closing_tests(failed: Iterable[str], root: Path) -> list[str]:
    """Returns the closing tests from the first phase of the `failed` tests on; `root` is what node ids start from."""
    modules = {phase_of(name): PurePosixPath(name.partition("::")[0]) for name in failed if phase_of(name)}
    if not modules:
        return []
    first = min(modules)
    folder = modules[first].parent
    later = PHASES[PHASES.index(first) :]
    paths = {phase: path.name for phase in later for path in (root / folder).glob(f"test_{phase}_*.py")}
    return [f"{folder / name}::{CLOSING[phase]}" for phase, name in paths.items()]


def save(config: pytest.Config, layout: Layout, not_run: Iterable[str]) -> None:
    """Keeps the gates on pytest's list as the campaign's failures, once pytest has written the list.

    `not_run` are selected tests that the session did not come to. They count as failed where another test failed;
    where none failed, the list is empty, and `--lf` selects every test.
    """
    cache = getattr(config, "cache", None)
    if cache is None:
        return
    failed = {name for name in _kept(cache, OF_PYTEST) if phase_of(name)}
    kept = {folder: names for folder, names in _kept(cache, OF_CAMPAIGNS).items() if Path(folder).is_dir()}
    cache.set(OF_CAMPAIGNS, kept | {_key(layout): sorted(failed | set(not_run if failed else ()))})


def add_refused_rows(config: pytest.Config, campaign: Campaign, nodeid: str) -> None:
    """Adds the tests of rows whose evidence is refused to those that `--lf` selects.

    `nodeid` is that of any gate. Call this function after pytest has written what failed.
    """
    folder, rows = PurePosixPath(nodeid.partition("::")[0]).parent, _refused_rows(campaign)
    if rows and getattr(config, "cache", None) is not None:
        failed = _kept(config.cache, OF_PYTEST)
        names = [name for row in rows for name in _tests(campaign, row)]
        config.cache.set(OF_PYTEST, failed | {f"{folder}/{name}": True for name in names})


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
