"""Makes the commands that messages and pages give, for the campaign that they are about."""

import shlex

from ..core import files, installation
from .layout import PHASES, Layout

DEFAULT = installation.SMOKE  # below tasks/: the embedded campaign, which `pytest acceptance` runs by itself


def gates(layout: Layout, options: str = "", folder: str = "") -> str:
    """Returns the command that takes the campaign through its gates, such as `pytest acceptance --campaign DIR --lf`.

    The embedded campaign of a checkout needs no name, and a tier is named by `--tier`. `options` are further words for
    a shell, and `folder` is the campaign's folder as the user has written it.
    """
    if (folder or layout.display_name) == f"tasks/{DEFAULT}" and _has_gates(layout):
        return " ".join([program(layout), *filter(None, [tier_option(layout), options])])
    return named_gates(layout, options, folder)


def named_gates(layout: Layout, options: str = "", folder: str = "") -> str:
    """Returns the same command with the campaign's name, whichever campaign it is."""
    name = shlex.quote(folder or layout.display_name)
    return " ".join(filter(None, [program(layout), "--campaign", name, tier_option(layout), options]))


def close(layout: Layout) -> str:
    """Returns the command that makes tables, pages and verdict agree with the run folders, and runs nothing."""
    return " ".join(filter(None, ["tracka close", shlex.quote(layout.display_name), tier_option(layout)]))


def program(layout: Layout) -> str:
    """Returns the words that start the gates where the campaign is: in a checkout of Track A, or in another project."""
    return "pytest acceptance" if _has_gates(layout) else "pytest --pyargs tracka.acceptance"


def _has_gates(layout: Layout) -> bool:
    return (layout.project / "acceptance" / "test_phase1_contracts.py").is_file()


def replay(layout: Layout, run_id: str, task: int, episode: int) -> str:
    """Returns the command that plays one recorded episode of a run again."""
    named = ["--root", shlex.quote(layout.display_name), *filter(None, [tier_option(layout)])]
    return " ".join(["tracka replay", run_id, f"--task {task}", f"--episode {episode}", *named])


def tier_option(layout: Layout) -> str:
    """Returns the option that names the tier in a command, such as `--tier smoke`; empty for a whole campaign."""
    return f"--tier {layout.tier}" if layout.tier else ""


def run_phase(layout: Layout, phase: str) -> str:
    """Returns the remedy for what a phase leaves, where this is missing or outdated.

    Where an earlier phase has not passed, the phase alone could not pass: the command runs all that is missing.
    """
    first = _first_open_before(layout, phase)
    if first:
        return f"Run the phases from {first} on, which has not passed: {gates(layout)}"
    return f"Run {phase}: {gates(layout, f'-m {phase}')}"


def _first_open_before(layout: Layout, phase: str) -> str:
    """Returns the first phase that keeps `phase` from starting; empty where none does."""
    for earlier in PHASES[: PHASES.index(phase)]:
        may_close = ("pass", "partial") if (earlier, phase) == PHASES[-2:] else ("pass",)
        if files.read_or_empty(layout.handoff(earlier)).get("status") not in may_close:
            return earlier
    return ""
