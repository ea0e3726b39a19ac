"""Says which phase keeps the rows of a campaign from running, by the handoffs on disk."""

from collections.abc import Sequence

from ..campaign import commands
from ..campaign.layout import PHASES, Layout
from ..core import escaping, files

BEFORE_ROWS = PHASES[:3]
MOST = 3


def reason(layout: Layout) -> str:
    """Returns the first phase that keeps rows from running, and why, such as `phase2 is blocked: ...`.

    Returns an empty text where no phase is on record that does so.
    """
    for phase in BEFORE_ROWS:
        handoff = files.read_or_empty(layout.handoff(phase))
        if handoff and handoff.get("status") != "pass":
            return escaping.plain(f"{phase} is {handoff.get('status')}: {in_short(handoff.get('notes', []))}")
    return ""


def remedy(layout: Layout) -> str:
    """Returns what to do where rows have not run: what keeps them from it is mended first."""
    if reason(layout):
        return f"Mend that first, then run the campaign: {commands.gates(layout, '--lf')}"
    return f"Run the campaign first: {commands.gates(layout)}"


def in_short(notes: Sequence[str]) -> str:
    """Returns the notes of a handoff as the end of a sentence: the first of them, and a count of the rest."""
    rest = f"; and {len(notes) - MOST} more" if len(notes) > MOST else ""
    return "; ".join(note.rstrip(".") for note in notes[:MOST]) + rest
