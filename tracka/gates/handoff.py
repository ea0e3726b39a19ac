"""Ends a phase: writes its summaries and its handoff, in one process, from what is on disk.

A handoff's status is what the contracts say about the disk. Phases 1 to 3 pass or are blocked; phase 4 is partial when
rows failed; phase 5 is partial when phase 4 was. A phase is blocked where the phase before does not let it start.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ..campaign.campaign import Campaign
from ..campaign.layout import PHASES, Layout, phase_before
from ..core import damaged, files, git, schema
from ..core.errors import Finding, UsageError, without_warnings
from ..core.reports import Handoff
from ..reporting import caveats, collect, progress, report, verdict_file
from ..runs import early_stop, row_state, run
from . import derived_files, handoff_contents, validate

Judge = Callable[[Campaign, str], list[Finding]]  # campaign, phase -> what breaks the phase's contracts
MAY_BE_PARTIAL = ("phase4", "phase5")
_SUMMARIES: dict[str, Callable[[Campaign], dict[str, str]]] = {
    "phase3": collect.baseline_tables,
    "phase4": collect.tables,
}


def hand_over(campaign: Campaign, phase: str, owner: str = "tracka", judge: Judge | None = None) -> Handoff:
    """Writes the phase's summaries or pages, then its handoff, records it on the campaign's plan, and returns it.

    `owner` is the name in the plan's progress line. `judge` is asked for what breaks the phase's contracts, once, after
    its tables and pages are written; `validate.phase_findings` where none is given.
    """
    last_handoff, previous = files.read_or_empty(campaign.layout.handoff(phase)), _previous_phase(campaign, phase)
    progress.ensure(campaign.layout)
    _write_tables_and_pages(campaign, phase, previous)
    status, notes = _status(campaign, phase, previous, judge or validate.phase_findings)
    notes += [str(caveat) for caveat in caveats.of_phase(campaign, phase) if not (previous and previous.blocks)]
    handoff: Handoff = {
        "schema_version": schema.VERSION,
        "phase": phase,
        "status": status,
        "generated_at_utc": files.utc_now(),
        "git_commit": git.commit(campaign.layout.root),
        "inputs": handoff_contents.inputs(campaign, phase),
        "outputs": handoff_contents.outputs(campaign, phase),
        "notes": [campaign.layout.with_relative_paths(note) for note in notes],
        "details": handoff_contents.details(campaign, phase),
    }
    files.write_json(campaign.layout.handoff(phase), handoff)
    voided = [] if status == "pass" else _void_later_handoffs(campaign.layout, phase)
    progress.record(campaign.layout, handoff, last_handoff, voided, owner)
    return handoff


def _void_later_handoffs(layout: Layout, phase: str) -> list[str]:
    """Deletes the later handoffs, since what they were based on no longer holds, and returns their phases."""
    later = [name for name in PHASES[PHASES.index(phase) + 1 :] if layout.handoff(name).exists()]
    for name in later:
        damaged.remove(layout.handoff(name))
    return later


@dataclass(frozen=True)
class PreviousPhase:
    """Why the phase before does not let this phase pass.

    `blocks` says whether this phase may not start at all. `notes` are the reasons, handed on as they are, so that phase
    5 names what stopped phase 2.
    """

    blocks: bool
    notes: tuple[str, ...]


def _previous_phase(campaign: Campaign, phase: str) -> PreviousPhase | None:
    name = phase_before(phase)
    if name is None or not (findings := validate.handoff_findings(campaign, name)):
        return None
    value = validate.valid_handoff(campaign, name)
    # A handoff that is refused although it says pass is outdated, so its own notes are not the reason.
    own_notes = value.get("notes", []) if value.get("status") != "pass" else []
    reasons = [note for note in own_notes if not note.startswith("warning: ")]
    return PreviousPhase(bool(validate.blockers(campaign, phase)), tuple(reasons or map(str, findings)))


def _write_tables_and_pages(campaign: Campaign, phase: str, previous: PreviousPhase | None) -> None:
    """Writes the phase's tables and pages, unless a result was changed after its run.

    A contract reports a result that was changed.
    """
    if phase in _SUMMARIES:
        for row in campaign.enabled:
            if not row_state.has_ended(campaign.layout, row.run_id):  # who asks about each looks at all processes
                run.close_left_behind(campaign.layout, row.run_id)
    if phase == "phase4":
        early_stop.set_aside_unsupported(campaign)
    try:
        collect.require_unchanged(campaign.layout, [row.run_id for row in campaign.enabled])
    except UsageError:
        return
    if phase in _SUMMARIES:
        collect.write_tables(campaign, _SUMMARIES[phase](campaign))
    if phase == "phase4":
        verdict_file.write(campaign)
    if phase == "phase5" and previous and previous.blocks:
        derived_files.refresh_pages(campaign)  # those of an earlier session would contradict the run folders
    elif phase == "phase5":
        report.write(campaign)  # written here too, since --lf leaves out the tests that wrote the pages


def _status(campaign: Campaign, phase: str, previous: PreviousPhase | None, judge: Judge) -> tuple[str, list[str]]:
    if previous and previous.blocks:
        return "blocked", list(previous.notes)
    findings = judge(campaign, phase)
    notes = [str(finding) for finding in findings]
    if previous:
        return "partial", [*previous.notes, *notes]
    if not without_warnings(findings):
        return "pass", notes
    return ("partial" if phase in MAY_BE_PARTIAL else "blocked"), notes
