"""What a conftest.py names, in `pytest_plugins`, where pytest loads no installed plug-in by itself.

Like `pytest_entry.py`, this module has no option, and loads the plug-in of Track A only if the command line names the
gates. pytest refuses a plug-in that is registered twice, so this is a module of its own.
"""

import pytest

from .pytest_entry import GATES, load


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Loads the plug-in, now since pytest asks a conftest.py's plug-ins for no earlier hook."""
    config = pluginmanager.get_plugin("pytestconfig")
    if config is not None and any(map(GATES.search, map(str, config.invocation_params.args))):
        load(pluginmanager)
