"""The end of a phase: its summaries and its handoff, written by one process from what is on disk.

A handoff's status is what the contracts say about the disk. Phases 1 to 3 pass or are blocked; phase 4 is partial
when rows failed; phase 5 is partial when phase 4 was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import collect, files, git, progress, report, run, schema, validate
from .campaign import Campaign
from .errors import errors
from .files import Json
from .layout import PHASES, Layout, phase_before

MAY_BE_PARTIAL = ("phase4", "phase5")
_SUMMARY_FILES = ("all_runs.csv", "all_runs.md", "failures.csv")


def hand_over(campaign: Campaign, phase: str, owner: str = "tracka") -> Json:
    """Writes the phase's summaries or pages, then its handoff, which it returns, and puts it on the campaign's plan.

    `owner` is who the plan's progress line names.
    """
    last, before = files.read_or_empty(campaign.layout.handoff(phase)), _before(campaign, phase)
    progress.ensure(campaign.layout)
    _write_tables_and_pages(campaign, phase, before)
    status, notes = _status(campaign, phase, before)
    handoff: Json = {
        "schema_version": schema.VERSION,
        "phase": phase,
        "status": status,
        "generated_at_utc": files.utc_now(),
        "git_commit": git.commit(campaign.layout.root),
        "inputs": _inputs(campaign, phase),
        "outputs": _outputs(campaign, phase),
        "notes": [note.replace(f"{campaign.layout.root}/", "") for note in notes],
        "details": _DETAILS[phase](campaign),
    }
    files.write_json(campaign.layout.handoff(phase), handoff)
    voided = [] if status == "pass" else _voided(campaign.layout, phase)
    progress.record(campaign.layout, handoff, last, voided, owner)
    return handoff


def _voided(layout: Layout, phase: str) -> list[str]:
    """Takes the later handoffs away, which stood on what no longer holds, and returns their phases."""
    later = [name for name in PHASES[PHASES.index(phase) + 1 :] if layout.handoff(name).exists()]
    for name in later:
        layout.handoff(name).unlink()
    return later


@dataclass(frozen=True)
class Before:
    """Why the phase before does not let this one pass. Reasons are handed on as they are: phase 5 names what stopped
    phase 2."""

    blocks: bool
    notes: tuple[str, ...]


def _before(campaign: Campaign, phase: str) -> Before | None:
    previous = phase_before(phase)
    if previous is None or not (findings := validate.handoff(campaign, previous)):
        return None
    value = validate.valid_handoff(campaign, previous)
    own = value.get("notes") if value.get("status") != "pass" else None  # a pass that is refused is outdated
    return Before(bool(validate.blockers(campaign, phase)), tuple(own or map(str, findings)))


def _write_tables_and_pages(campaign: Campaign, phase: str, before: Before | None) -> None:
    if phase in _SUMMARIES:
        for row in campaign.enabled:
            run.close_left_behind(campaign.layout, row.run_id)
        collect.write_tables(campaign, _SUMMARIES[phase](campaign))
    if phase == "phase5" and not (before and before.blocks):
        report.write(campaign)  # here too, since --lf leaves out the tests that wrote the pages


def _status(campaign: Campaign, phase: str, before: Before | None) -> tuple[str, list[str]]:
    if before and before.blocks:
        return "blocked", list(before.notes)
    findings = validate.check(campaign, phase)
    notes = [str(finding) for finding in findings]
    if before:
        return "partial", [*before.notes, *notes]
    if not errors(findings):
        return "pass", notes
    return ("partial" if phase in MAY_BE_PARTIAL else "blocked"), notes


def _inputs(campaign: Campaign, phase: str) -> dict[str, str | None]:
    """The campaign's definition as it was read, by content: a file edited meanwhile outdates the handoff. And what
    earlier phases left, by name, since that is written anew in every session."""
    layout = campaign.layout
    given: dict[str, str | None] = {**campaign.digests}
    earlier = [layout.handoff(name) for name in PHASES[: PHASES.index(phase)]]
    return given | {layout.relative(path): None for path in (*earlier, *_INPUTS[phase](campaign, layout))}


def _outputs(campaign: Campaign, phase: str) -> list[str]:
    paths = [path for path in _OUTPUTS[phase](campaign, campaign.layout) if path.is_file()]
    return [campaign.layout.relative(path) for path in paths]


def _of_phase3(campaign: Campaign, layout: Layout) -> list[Path]:
    run = layout.run(campaign.baseline)
    files = [run.manifest, run.stdout, run.stderr, run.result, run.episodes, layout.marker(campaign.baseline)]
    return [*files, *sorted(layout.summary.glob("baseline_summary.*"))]


def _of_phase4(campaign: Campaign, layout: Layout) -> list[Path]:
    rows = [row.run_id for row in campaign.enabled]
    files = [path for run_id in rows for path in (layout.run(run_id).result, layout.marker(run_id))]
    return [*files, *(layout.summary / name for name in _SUMMARY_FILES)]


def _host(campaign: Campaign) -> Json:
    found = files.read_or_empty(campaign.layout.preflight_report)
    checks = {check["name"]: check["status"] for check in found.get("checks", [])}
    return {
        "mujoco_gl_effective": found.get("mujoco_gl_effective"),
        "checks": checks,
        "blocker": found.get("blocker"),
    }


def _capabilities(campaign: Campaign) -> Json:
    known = files.read_or_empty(campaign.layout.capabilities)
    return {"version_text": known.get("version_text"), "flags": len(known.get("supported_flags", []))}


def _baseline(campaign: Campaign) -> Json:
    result = run.read_result(campaign.layout, campaign.baseline) or {}
    keys = ("exit_code", "status", "reason", "episodes", "successes", "success_rate")
    return {"run_id": campaign.baseline, **{key: result.get(key) for key in keys}}


def _counts(campaign: Campaign) -> Json:
    results = collect.campaign_results(campaign)
    reasons = collect.failure_reasons(campaign, results)
    enabled = len(campaign.enabled)
    return {
        "enabled_rows": enabled,
        "completed_rows": enabled - len(reasons),
        "failed_rows": len(reasons),
        "failures": reasons,
    }


_SUMMARIES: dict[str, Callable[[Campaign], dict[str, str]]] = {
    "phase3": collect.baseline_tables,
    "phase4": collect.tables,
}
_INPUTS: dict[str, Callable[[Campaign, Layout], list[Path]]] = {
    "phase1": lambda _, layout: [layout.plan, layout.todo],
    "phase2": lambda _, layout: [layout.capabilities],
    "phase3": lambda _, layout: [layout.capabilities, layout.preflight_report],
    "phase4": lambda _, layout: [layout.preflight_report],
    "phase5": lambda _, layout: [layout.summary / name for name in _SUMMARY_FILES],
}
_OUTPUTS: dict[str, Callable[[Campaign, Layout], list[Path]]] = {
    "phase1": lambda campaign, layout: [
        *(layout.root / name for name in campaign.digests),
        layout.capabilities,
        layout.state / "lerobot_eval_help.txt",
    ],
    "phase2": lambda _, layout: sorted(layout.preflight.glob("*")),
    "phase3": _of_phase3,
    "phase4": _of_phase4,
    "phase5": lambda _, layout: [layout.runbook, layout.results, layout.plan, layout.todo, layout.todo_list],
}
_DETAILS: dict[str, Callable[[Campaign], Json]] = {
    "phase1": _capabilities,
    "phase2": _host,
    "phase3": _baseline,
    "phase4": _counts,
    "phase5": _counts,
}
