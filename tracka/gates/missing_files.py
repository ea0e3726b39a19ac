"""Names the command that writes a missing file of a campaign, since who reads a file knows no phases."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..core import files
from ..core.errors import Finding


def with_commands(campaign: Campaign, findings: Iterable[Finding]) -> list[Finding]:
    """Returns the findings, each of a missing file with the command that writes it in the place of a general remedy."""
    return [
        replace(each, remedy=_remedy(campaign, Path(each.where))) if each.remedy == files.WRITE_IT else each
        for each in findings
    ]


def _remedy(campaign: Campaign, path: Path) -> str:
    layout = campaign.layout
    if path == layout.run_schema:
        return f"Write it: tracka schema --root {layout.root}"
    baseline = (layout.run(campaign.baseline).path, layout.marker(campaign.baseline))
    owners = (
        ("phase3", (*baseline, layout.parity)),
        ("phase4", (layout.runs, layout.rows, layout.summary)),
        ("phase2", (layout.preflight,)),
        ("phase1", (layout.state,)),
    )
    for phase, places in owners:
        if any(path.is_relative_to(place) for place in places):
            return commands.run_phase(layout, phase)
    return files.WRITE_IT
