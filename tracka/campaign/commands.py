"""Makes the commands that messages and pages give, for the campaign that they are about."""

import shlex

from .layout import Layout

DEFAULT = "smoke-libero-object"  # below tasks/: the embedded campaign, which `pytest acceptance` runs by itself


def gates(layout: Layout, options: str = "") -> str:
    """Returns the command that takes the campaign through its gates, such as `pytest acceptance --campaign DIR --lf`.

    The embedded campaign needs no name. `options` are further words, as a shell reads them.
    """
    named = () if layout.display_name == f"tasks/{DEFAULT}" else ("--campaign", shlex.quote(layout.display_name))
    return " ".join(["pytest", "acceptance", *named, *filter(None, [options])])


def run_phase(layout: Layout, phase: str) -> str:
    """Returns the remedy for what a phase leaves, where this is missing or outdated."""
    return f"Run {phase}: {gates(layout, f'-m {phase}')}"
