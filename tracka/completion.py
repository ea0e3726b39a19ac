"""Completes what a user types at a shell: campaigns below tasks/, run ids, phases, tiers and fixed words.

Guarantees: a shell waits for each answer, so nothing but names is read: folders, matrices and keys of tiers; a campaign
that is broken completes to nothing and prints nothing.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import typer

from .campaign.layout import PHASES, Layout
from .core.errors import TrackaError
from .core.lerobot_facts import SUITE_TASKS

TASKS = Path("tasks")
# Parameters that say which campaign is meant, in any command.
OF_CAMPAIGN = ("root", "artifacts_root", "runs_root", "artifacts_dir", "matrix", "folder")


def one_of(*words: str) -> Callable[[str], list[str]]:
    """Returns a completion to one of these words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


phase = one_of(*PHASES, "all")
suite = one_of(*SUITE_TASKS)
backend = one_of("egl", "glx", "osmesa")
preset = one_of("pi0", "pi05", "smolvla")


def campaign(incomplete: str) -> list[str]:
    """Returns the campaigns below tasks/, as a command line names their folders."""
    return [str(root) for root in _campaigns() if str(root).startswith(incomplete)]


def run_id(context: typer.Context, incomplete: str) -> list[str]:
    """Returns the run ids of the campaign that the command line names, or where the user stands."""
    return [name for name in _run_ids(_root(context)) if name.startswith(incomplete)]


def run(context: typer.Context, incomplete: str) -> list[str]:
    """Returns the run ids as above; without a campaign the run folders of all campaigns below tasks/."""
    root = _root(context)
    if Layout(root).has_settings:
        return run_id(context, incomplete)
    folders = (path for each in _campaigns() for path in sorted(Layout(each).runs.glob("*")) if path.is_dir())
    return [str(path) for path in folders if str(path).startswith(incomplete)]


def run_ids(context: typer.Context, incomplete: str) -> list[str]:
    """Returns continuations of a list of run ids, separated by commas."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _run_ids(_root(context)) if name.startswith(last)]


def tier(context: typer.Context, incomplete: str) -> list[str]:
    """Returns the tiers of the campaign that the command line names."""
    with contextlib.suppress(TrackaError, OSError, ValueError):
        from .core import parsing, reading

        settings = parsing.toml_table(reading.content(Layout(_root(context)).settings, reading.SETTINGS))
        return [name for name in settings.get("tiers", {}) if name.startswith(incomplete)]
    return []


def _campaigns() -> Iterator[Path]:
    return (path.parent.parent for path in sorted(TASKS.glob("*/configs/campaign.toml")))


def _run_ids(root: Path) -> Sequence[str]:
    from .campaign import matrix

    with contextlib.suppress(TrackaError, OSError, ValueError):
        return [row.run_id for row in matrix.load(Layout(root).matrix)]
    return []


def _root(context: typer.Context) -> Path:
    """Returns the folder of the campaign around the first place that the command line names, else where we stand."""
    named = (context.params.get(name) for name in OF_CAMPAIGN)
    place = Path(next((str(value) for value in named if value), "."))
    return next((folder for folder in (place, *place.absolute().parents) if Layout(folder).has_settings), place)
