"""Makes the commands that messages and pages give, for the campaign that they are about."""

import shlex

from .layout import Layout

DEFAULT = "smoke-libero-object"  # below tasks/: the embedded campaign, which `pytest acceptance` runs by itself


def gates(layout: Layout, options: str = "", folder: str = "") -> str:
    """Returns the command that takes the campaign through its gates, such as `pytest acceptance --campaign DIR --lf`.

    The embedded campaign needs no name, and a tier is named by `--tier`. `options` are further words for a shell, and
    `folder` is the campaign's folder as the user has written it.
    """
    name = folder or layout.display_name
    named = () if name == f"tasks/{DEFAULT}" else ("--campaign", shlex.quote(name))
    return " ".join(["pytest", "acceptance", *named, *filter(None, [tier_option(layout), options])])


def replay(layout: Layout, run_id: str, task: int, episode: int) -> str:
    """Returns the command that plays one recorded episode of a run again."""
    named = ["--root", shlex.quote(layout.display_name), *filter(None, [tier_option(layout)])]
    return " ".join(["tracka replay", run_id, f"--task {task}", f"--episode {episode}", *named])


def tier_option(layout: Layout) -> str:
    """Returns the option that names the tier in a command, such as `--tier smoke`; empty for a whole campaign."""
    return f"--tier {layout.tier}" if layout.tier else ""


def run_phase(layout: Layout, phase: str) -> str:
    """Returns the remedy for what a phase leaves, where this is missing or outdated."""
    return f"Run {phase}: {gates(layout, f'-m {phase}')}"
