"""Keeps what `pytest --lf` selects: a campaign's own failures, and the closing tests of the phases after the first.

pytest has one list of failed tests for all campaigns, so that a session on another campaign would take tests off the
list. Here each campaign has its own list in pytest's cache. Where the list names any test, `--lf` also selects the
closing tests from the first failed phase on, so that the verdict is given whichever tests the last session selected.
"""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pytest

from .campaign.layout import PHASES
from .stages import CLOSING, phase_of

OF_PYTEST = "cache/lastfailed"  # pytest's own list: node id -> true
OF_CAMPAIGNS = "tracka/lastfailed"  # campaign's folder -> node ids
PLUGINS = ("lfplugin", "lfplugin-collwrapper")  # they read pytest's list when they are made


def restore(config: pytest.Config, campaign: Path) -> None:
    """Puts the campaign's failures on pytest's list in place of those of other campaigns, before any worker reads it.

    Does nothing in a session without pytest's cache.
    """
    cache, manager = getattr(config, "cache", None), config.pluginmanager
    own = manager.get_plugin(PLUGINS[0])
    if cache is None or own is None:
        return
    listed = cache.get(OF_PYTEST, {})
    failed = cache.get(OF_CAMPAIGNS, {}).get(str(campaign), [])
    names = [*(name for name in listed if not phase_of(name)), *failed, *closing_tests(failed, config.rootpath)]
    if set(names) == set(listed):
        return
    cache.set(OF_PYTEST, dict.fromkeys(names, True))
    for name in filter(manager.has_plugin, PLUGINS):
        manager.unregister(name=name)
    manager.register(type(own)(config), PLUGINS[0])


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


def save(config: pytest.Config, campaign: Path, not_run: Iterable[str]) -> None:
    """Keeps the gates on pytest's list as the campaign's failures, once pytest has written the list.

    `not_run` are selected tests that the session did not come to. They count as failed where another test failed;
    where none failed, the list is empty, and `--lf` selects every test.
    """
    cache = getattr(config, "cache", None)
    if cache is None:
        return
    failed = {name for name in cache.get(OF_PYTEST, {}) if phase_of(name)}
    kept = {folder: names for folder, names in cache.get(OF_CAMPAIGNS, {}).items() if Path(folder).is_dir()}
    cache.set(OF_CAMPAIGNS, kept | {str(campaign): sorted(failed | set(not_run if failed else ()))})
