"""Loads the plug-in of Track A into the sessions of an installed Track A, and into no other session.

pytest imports this module in each session of the environment, as it does with every installed plug-in. Other people's
tests must not notice: the module imports nothing, has no option, and acts only if the command line names the gates, as
`pytest --pyargs tracka.acceptance` does.
"""

import re
from typing import Any

GATES = re.compile(r"(^|/)tracka[./]acceptance($|[./:])")
PLUGINS = ("tracka.plugin", "tracka.fixtures.gates")
OPTIONS = ("-ra", "--tb=short")  # as in Track A's own pytest.ini; the user's own come later and win


def pytest_load_initial_conftests(early_config: Any, args: list[str]) -> None:
    """Loads the plug-in before any conftest.py, which may name the plug-in too."""
    if not any(map(GATES.search, args)):
        return
    args[:0] = OPTIONS
    for name in PLUGINS:
        early_config.pluginmanager.import_plugin(name)
