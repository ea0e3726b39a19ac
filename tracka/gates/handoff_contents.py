"""Makes what a handoff holds of its phase: its inputs, the files that it leaves, and its details.

All three are made for the handoff, and made again later to hold the handoff against the disk.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..campaign.campaign import Campaign
from ..campaign.layout import PHASES, Layout
from ..core import fact_cache, schema
from ..core.files import Json
from ..reporting import collect, verdict_file
from ..runs import early_stop, run

_SUMMARY_FILES = ("all_runs.csv", "all_runs.md", "failures.csv")


def inputs(campaign: Campaign, phase: str) -> dict[str, str | None]:
    """Returns the phase's inputs, path -> sha256 or None.

    A file of the campaign's definition has the hash with which it was read, so that a file edited in the meantime
    outdates the handoff. A file that an earlier phase left has None, since it is written anew in every session.
    """
    layout = campaign.layout
    definition: dict[str, str | None] = {**campaign.digests}
    earlier = [layout.handoff(name) for name in PHASES[: PHASES.index(phase)]]
    return definition | {layout.relative(path): None for path in (*earlier, *_INPUTS[phase](campaign, layout))}


def outputs(campaign: Campaign, phase: str) -> list[str]:
    """Returns the paths of the phase's output files that exist."""
    paths = [path for path in _OUTPUTS[phase](campaign, campaign.layout) if path.is_file()]
    return [campaign.layout.relative(path) for path in paths]


def _phase3_outputs(campaign: Campaign, layout: Layout) -> list[Path]:
    folder = layout.run(campaign.baseline)
    paths = [
        folder.manifest,
        folder.stdout,
        folder.stderr,
        folder.result,
        folder.episodes,
        layout.marker(campaign.baseline),
    ]
    return [*paths, *sorted(layout.summary.glob("baseline_summary.*"))]


def _phase4_outputs(campaign: Campaign, layout: Layout) -> list[Path]:
    rows = [row.run_id for row in campaign.enabled]
    paths = [path for run_id in rows for path in (layout.run(run_id).result, layout.marker(run_id))]
    verdict = [layout.verdict] if campaign.verdict else []
    return [*paths, layout.early_stop, *(layout.summary / name for name in _SUMMARY_FILES), *verdict]


def _host(campaign: Campaign) -> Json:
    report = schema.read_or_empty("preflight", campaign.layout.preflight_report)
    checks = {check["name"]: check["status"] for check in report.get("checks", [])}
    return {
        "mujoco_gl_effective": report.get("mujoco_gl_effective"),
        "checks": checks,
        "blocker": report.get("blocker"),
    }


def _capabilities(campaign: Campaign) -> Json:
    capabilities = schema.read_or_empty("cli_capabilities", campaign.layout.capabilities)
    return {"version_text": capabilities.get("version_text"), "flags": len(capabilities.get("supported_flags", []))}


def _baseline(campaign: Campaign) -> Json:
    result: Mapping[str, Any] = run.read_result(campaign.layout, campaign.baseline) or {}
    keys = ("exit_code", "status", "reason", "episodes", "successes", "success_rate")
    sha256 = collect.results_sha256(campaign.layout, [campaign.row(campaign.baseline)])
    return {"run_id": campaign.baseline, **{key: result.get(key) for key in keys}, "results_sha256": sha256}


def _counts(campaign: Campaign) -> Json:
    results = collect.campaign_results(campaign)
    with fact_cache.scope():
        reasons = collect.failure_reasons(campaign, results)
        accepted = [row for row in campaign.enabled if row.run_id not in reasons]
        accepted_unplayed = [row for row in accepted if early_stop.excused(campaign, row)]
    enabled = len(campaign.enabled)
    return {
        "enabled_rows": enabled,
        "completed_rows": enabled - len(reasons) - len(accepted_unplayed),
        "failed_rows": len(reasons),
        "failures": reasons,
        "results_sha256": collect.results_sha256(campaign.layout, campaign.enabled),
    }


def _verdict(campaign: Campaign) -> Json:
    """Returns the outcome of the campaign's verdict; nothing where the campaign has no `[verdict]`."""
    verdict = verdict_file.read(campaign)
    return {"verdict": verdict["outcome"]} if verdict else {}


_INPUTS: dict[str, Callable[[Campaign, Layout], list[Path]]] = {
    "phase1": lambda _, layout: list(layout.progress_pages[:2]),
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
    "phase3": _phase3_outputs,
    "phase4": _phase4_outputs,
    "phase5": lambda _, layout: [layout.runbook, layout.results, *layout.progress_pages],
}
_DETAILS: dict[str, Callable[[Campaign], Json]] = {
    "phase1": _capabilities,
    "phase2": _host,
    "phase3": _baseline,
    "phase4": _counts,
    "phase5": lambda campaign: _counts(campaign) | _verdict(campaign),
}


def details(campaign: Campaign, phase: str) -> Json:
    """Returns the details of the phase.

    Phase 1 has version and number of flags, phase 2 backend and checks, phase 3 the baseline's result, phases 4 and 5
    the counts of rows.
    """
    return _DETAILS[phase](campaign)
