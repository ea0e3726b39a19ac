"""Loads the plug-in of Track A into the sessions of an installed Track A, and into no other session.

pytest imports this module in each session of the environment, as it does with every installed plug-in. Other people's
tests must not notice: the module imports nothing of Track A, has no option, and acts only if the command line names the
gates, as `pytest --pyargs tracka.acceptance` does, or if the session cannot start: then it may name that command. Where
pytest loads no installed plug-in by itself, a conftest.py names `for_conftest.py`.
"""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

GATES = re.compile(r"(^|/)tracka[./]acceptance($|[./:])")
CHECKOUT_GATES = re.compile(r"(\./)?acceptance(/|/test_phase\S*)?")  # the gates' folder in a checkout of Track A
CAMPAIGN = "--campaign"
PLUGINS = ("tracka.plugin", "tracka.fixtures.gates")
OPTIONS = ("-ra", "--tb=short")  # as in Track A's own pytest.ini; the user's own come later and win


def load(pluginmanager: pytest.PytestPluginManager) -> None:
    """Loads the plug-in and the fixtures of the gates, unless they are loaded already."""
    for name in PLUGINS:
        pluginmanager.import_plugin(name)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: Any, args: list[str]) -> Iterator[None]:
    """Loads the plug-in before any conftest.py, which may name the plug-in too.

    Raises UsageError with the right command where the session asks for the gates of a checkout that is not here.
    """
    if any(map(GATES.search, args)):
        args[:0] = OPTIONS
        load(early_config.pluginmanager)
        yield
        return
    yield  # loads each conftest.py, so that all options are known below
    if _asks_for_missing_gates(early_config, parser, args):
        words = [word for word in early_config.invocation_params.args if not CHECKOUT_GATES.fullmatch(str(word))]
        command = shlex.join(["pytest", "--pyargs", "tracka.acceptance", *map(str, words)])
        raise pytest.UsageError(f"no checkout of Track A is here; an installed Track A takes: {command}")


def _asks_for_missing_gates(config: pytest.Config, parser: Any, args: list[str]) -> bool:
    """Returns whether pytest would refuse these words, and they are those of the gates in a checkout."""
    known, unknown = parser.parse_known_and_unknown_args(args)
    folders = [word for word in known.file_or_dir if CHECKOUT_GATES.fullmatch(str(word)) and not known.pyargs]
    missing = any(not (config.invocation_params.dir / folder).exists() for folder in folders)
    return missing or any(word.partition("=")[0] == CAMPAIGN for word in unknown)
