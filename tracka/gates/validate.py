"""Holds the disk against the contracts: one contract, one phase, or everything up to a phase with its handoffs.

Gates, handoffs and `tracka validate` all use this module, so they cannot disagree.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..campaign.layout import PHASES, phase_before
from ..campaign.matrix import Row
from ..core import fact_cache, files, schema
from ..core.errors import Finding, TrackaError, UsageError, collect_findings, joined_names, without_warnings
from ..core.reports import Handoff
from ..reporting import blocked_phase, progress, rejected_rows
from . import handoff_contents, missing_files
from .host_contracts import Contract
from .phase_contracts import CONTRACTS, QUICK_CONTRACTS, AllRows, row_by_row
from .row_contracts import ROW_CONTRACTS

# What a quick validation leaves out, in words.
LEFT_OUT = (
    "videos, hashes and copies of the runs' files, eval_info.json and logs against the results, results.md against the"
    " run folders"
)


def phase_findings(campaign: Campaign, phase: str, quick: bool = False) -> list[Finding]:
    """Returns all findings in the artifacts of one phase, except those about its handoff."""
    contracts = (QUICK_CONTRACTS if quick else CONTRACTS)[phase]
    with fact_cache.scope():
        of_rows = row_by_row(campaign, {name: each for name, each in contracts.items() if isinstance(each, AllRows)})
        findings = [
            finding
            for name, contract in contracts.items()
            for finding in (
                missing_files.with_commands(campaign, of_rows[name])
                if name in of_rows
                else _findings(campaign, contract)
            )
        ]
    return list(dict.fromkeys(findings))


def contract_findings(campaign: Campaign, phase: str, name: str) -> list[Finding]:
    """Returns the findings of one contract of a phase, warnings included."""
    return _findings(campaign, CONTRACTS[phase][name])


def _findings(campaign: Campaign, contract: Contract) -> list[Finding]:
    try:
        return missing_files.with_commands(campaign, contract(campaign))
    except TrackaError as error:
        return missing_files.with_commands(campaign, error.findings)


def row_contract_findings(campaign: Campaign, row: Row, name: str) -> list[Finding]:
    """Returns the findings of one contract of a row. `name` is a key of ROW_CONTRACTS."""
    try:
        return missing_files.with_commands(campaign, ROW_CONTRACTS[name](campaign, row))
    except TrackaError as error:
        return missing_files.with_commands(campaign, error.findings)


def validate(
    campaign: Campaign,
    phases: Sequence[str] = PHASES,
    strict: bool = False,
    quick: bool = False,
    judged: Mapping[str, Sequence[Finding]] = MappingProxyType({}),
) -> list[Finding]:
    """Returns what breaks the contracts of `phases`, and what is wrong with the handoffs up to the last of `phases`.

    Warnings are left out unless `strict`. With `quick`, LEFT_OUT is left out, so that nothing found is no verdict.
    `judged` has the findings of phases whose contracts have just been asked, which are not asked again.
    """
    last = max(PHASES.index(phase) for phase in phases)
    with fact_cache.scope():
        findings = [finding for phase in PHASES[: last + 1] for finding in handoff_findings(campaign, phase)]
        for phase in phases:
            findings += judged[phase] if phase in judged else phase_findings(campaign, phase, quick)
        findings += collect_findings(findings, lambda: list(progress.findings(campaign, phases))) or []
    findings = list(dict.fromkeys(findings))
    return findings if strict else without_warnings(findings)


def read_handoff(campaign: Campaign, phase: str) -> Handoff:
    """Returns the phase's handoff. Raises UsageError where the handoff is missing or broken."""
    path = campaign.layout.handoff(phase)
    remedy = commands.run_phase(campaign.layout, phase)
    if not path.exists():
        raise UsageError(Finding(str(path), f"the handoff of {phase} does not exist", remedy))
    value = schema.read("handoff", path)
    if value["phase"] != phase:
        raise UsageError(Finding(f"{path}, key phase", f"this is the handoff of {value['phase']}", remedy))
    return value


def handoff_findings(campaign: Campaign, phase: str) -> list[Finding]:
    """Returns why the phase after `phase` may not start.

    The handoff of `phase` is missing or invalid, does not say pass, or is outdated.
    """
    try:
        value = read_handoff(campaign, phase)
    except UsageError as error:
        return list(error.findings)
    where = str(campaign.layout.handoff(phase))
    if value["status"] != "pass":
        reason = _reason(campaign, value)
        again = f"Mend the cause, then run {phase} again: {commands.gates(campaign.layout)}"
        remedy = "" if rejected_rows.STAYS in reason and rejected_rows.only_measured(campaign) else again
        return [Finding(where, f"{phase} is {value['status']}{reason}", remedy)]
    return [
        *_changed_inputs(campaign, value, where),
        *_missing_outputs(campaign, value, where),
        *_missing_entries(campaign, value, where),
    ]


def blockers(campaign: Campaign, phase: str) -> list[Finding]:
    """Returns why `phase` may not start, by the handoff of the phase before. Phase 5 may close a partial phase 4."""
    previous = phase_before(phase)
    if previous is None:
        return []
    may_close = phase == PHASES[-1] and valid_handoff(campaign, previous).get("status") == "partial"
    return [] if may_close else handoff_findings(campaign, previous)


def valid_handoff(campaign: Campaign, phase: str) -> Mapping[str, Any]:
    """Returns the phase's handoff, or an empty one where `read_handoff` raises UsageError."""
    try:
        return read_handoff(campaign, phase)
    except UsageError:
        return {}


def _reason(campaign: Campaign, value: Handoff) -> str:
    """Returns why a phase has not passed, as the end of a sentence: its own notes, else the phase that stopped it."""
    previous = phase_before(value["phase"])
    earlier = valid_handoff(campaign, previous) if previous else {}
    own_notes = [note for note in value["notes"] if note not in earlier.get("notes", [])]
    if own_notes or not earlier:
        return f": {blocked_phase.in_short(own_notes)}"
    return f", since {previous} is {earlier['status']}"


def _changed_inputs(campaign: Campaign, value: Handoff, where: str) -> Iterator[Finding]:
    for name, digest in value["inputs"].items():
        path = campaign.layout.root / name
        if digest and (not path.is_file() or files.sha256_file(path) != digest):
            what = f"{name} has changed since {value['phase']} was accepted"
            yield Finding(where, what, f"Run {value['phase']} again: {commands.gates(campaign.layout)}")


def _missing_entries(campaign: Campaign, value: Handoff, where: str) -> Iterator[Finding]:
    """Yields a finding for files or facts of the phase that its handoff lacks, or states differently from the disk."""
    remedy = f"Run {value['phase']} again: {commands.gates(campaign.layout)}"
    expected: dict[Literal["inputs", "outputs"], list[str]] = {
        "inputs": list(campaign.digests),
        "outputs": handoff_contents.outputs(campaign, value["phase"]),
    }
    for key, expected_names in expected.items():
        handoff_names = frozenset(value[key])
        if missing := [name for name in expected_names if name not in handoff_names]:
            yield Finding(f"{where}, key {key}", f"the handoff does not name {joined_names(missing)}", remedy)
    if value["details"] != handoff_contents.details(campaign, value["phase"]):
        yield Finding(f"{where}, key details", "the details do not match the artifacts", remedy)


def _missing_outputs(campaign: Campaign, value: Handoff, where: str) -> Iterator[Finding]:
    layout = campaign.layout
    remedy = f"Run {value['phase']} again: {commands.gates(campaign.layout)}"
    for name in value["outputs"]:
        if not (layout.root / name).exists() and not layout.is_left_out(layout.root / name):
            yield Finding(where, f"the output {name} no longer exists", remedy)
