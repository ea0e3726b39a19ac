"""Says of a campaign that is to be bundled which verdict it has, and refuses one whose bundle would not be sound.

`tracka verify` asks the same of the files in a bundle, so no bundle is written that it would call changed.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..campaign.layout import PHASES, Layout
from ..core import files, lock
from ..core.counting import counted
from ..core.errors import Finding, TrackaError
from ..gates import missing_files, recorded, validate
from ..gates.closing import CLOSED
from ..reporting import collect, verdict
from . import statements

_AGAIN = "The command above writes it anew"
NONE = "none, since no session has ended phase 5; `tracka verify` says `not accepted`"


def require(campaign: Campaign, is_redacted: bool) -> str:
    """Returns the verdict on the campaign in words.

    Raises TrackaError where files contradict each other, with the command that makes them agree. Of a redacted copy
    only the tables are asked, as `tracka verify` asks them.
    """
    if is_redacted:
        faults, is_accepted = table_faults(campaign), not statements.not_accepted(campaign)
    else:
        judgement = recorded.judge(campaign)
        faults, is_accepted = judgement.faults, not judgement.findings
    if faults:
        told = missing_files.with_commands(campaign, _with_remedies(campaign.layout, faults))
        raise TrackaError([_refusal(campaign, faults), *told])
    has_ended = campaign.layout.handoff(PHASES[-1]).is_file()
    return verdict.words(campaign, is_accepted) if has_ended else NONE


def table_faults(campaign: Campaign) -> list[Finding]:
    """Returns a finding for each table that is not that of the results, or is missing though its phase has passed."""
    of_phase = {"phase3": collect.baseline_tables(campaign), "phase4": collect.tables(campaign)}
    return [
        Finding(str(path), "the table is not that of the results", _AGAIN)
        for phase, texts in of_phase.items()
        for name, text in texts.items()
        if not _is_table(campaign, phase, path := campaign.layout.summary / name, text)
    ]


def _is_table(campaign: Campaign, phase: str, path: Path, text: str) -> bool:
    if not path.is_file():
        return validate.valid_handoff(campaign, phase).get("status") != "pass"
    return files.read_text(path, newline="") in (text, files.redacted(text))


def _refusal(campaign: Campaign, faults: Sequence[Finding]) -> Finding:
    """Returns why no bundle is written, with the one command that mends it."""
    layout = campaign.layout
    found = f"{counted(len(faults), 'contradiction')} between its files, which `tracka verify` would find"
    what = f"no bundle is written: {found}"
    if lock.is_held(lock.session_path(layout.locks)):
        return Finding(layout.display_name, what, "A session has this campaign: make the bundle when it has ended")
    if all(_is_derived(layout, finding) for finding in faults):
        return Finding(layout.display_name, what, f"Make them agree: {commands.close(layout)}, which runs nothing")
    again = f"{commands.gates(layout)}, which runs no row again whose files are sound"
    return Finding(layout.display_name, what, f"Make them agree: {again}")


def _with_remedies(layout: Layout, faults: Iterable[Finding]) -> list[Finding]:
    """Returns the faults, each file that follows from others with the remedy of the refusal."""
    return [replace(each, remedy=_AGAIN) if _is_derived(layout, each) else each for each in faults]


def _is_derived(layout: Layout, finding: Finding) -> bool:
    """Returns whether a finding is about what `tracka close` writes: a table, a page, a handoff of its phases."""
    place = finding.where.partition(", ")[0]
    written = (layout.runbook, layout.results, *map(layout.handoff, CLOSED))
    return place.startswith(f"{layout.summary}{os.sep}") or place in map(str, written)
