"""Names the plug-ins: options, order and handoffs in tracka.plugin, the fixtures of the gates in fixtures.gates."""

pytest_plugins = ["tracka.plugin", "fixtures.gates"]
