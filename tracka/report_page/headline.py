"""Says how a campaign ended: the verdict in a word and a sentence, its phases, and the caveats that limit it."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..campaign.campaign import Campaign
from ..campaign.layout import PHASES
from ..core.counting import counted
from ..core.errors import Finding
from ..core.verdicts import CampaignVerdict
from ..gates import validate
from ..reporting import caveats, progress, results_page, verdict, verdict_file
from ..reporting.collect import EvalRunResult

GOOD, BAD, OPEN = "good", "bad", "open"  # how a page colours a verdict
NOT_FINISHED = "not finished"
WARNING = "warning: "
TITLES = {
    "phase1": "contracts",
    "phase2": "preflight",
    "phase3": "baseline",
    "phase4": "sweep",
    "phase5": "closure",
}


@dataclass(frozen=True)
class PhaseState:
    """A phase's handoff: its status, `missing` where there is none, and why it does not hold."""

    phase: str
    title: str
    status: str
    at_utc: str
    findings: Sequence[Finding]
    notes: Sequence[str]


@dataclass(frozen=True)
class Headline:
    """The verdict. `tone` is GOOD, BAD or OPEN; `sentences` say what was reached, and what keeps it from more.

    `claims` is the verdict on what `[verdict]` in campaign.toml asks for, None where it asks for nothing.
    """

    words: str
    tone: str
    sentences: Sequence[str]
    phases: Sequence[PhaseState]
    caveats: Sequence[str]
    claims: CampaignVerdict | None


def read(
    campaign: Campaign, results: Sequence[EvalRunResult], reasons: Mapping[str, str], accepted: bool | None = None
) -> Headline:
    """Returns the headline of a campaign. `reasons` are those of `collect.failure_reasons`.

    `accepted` is the judgement of the session that has just ended. None takes that of the last session, as it stands on
    disk: the handoffs, and the box in TODO.md, which a tier has not. `tracka validate` looks at all evidence again.
    """
    phases = [_phase(campaign, phase) for phase in PHASES]
    hold = not any(phase.findings for phase in phases)
    if accepted is None:
        accepted = hold and (campaign.layout.tier is not None or progress.is_accepted(campaign.layout))
    words = verdict.words(campaign, accepted)
    if not hold and all(phase.status in ("pass", "missing") for phase in phases):
        words = NOT_FINISHED
    tone = GOOD if words.startswith("accepted") else OPEN if words in (verdict.NO_THRESHOLD, NOT_FINISHED) else BAD
    claims = verdict_file.read(campaign)
    sentences = [*([claims["sentence"]] if claims else []), *_sentences(campaign, results, reasons, phases)]
    if hold and not accepted:
        command = f"tracka validate --phase all --root {shlex.quote(campaign.layout.display_name)} --strict"
        sentences.append(f"All phases pass, but the last session did not accept the campaign: `{command}` says why.")
    return Headline(words, tone, sentences, phases, _caveats(campaign, phases), claims)


def _phase(campaign: Campaign, phase: str) -> PhaseState:
    handoff: Mapping[str, object] = validate.valid_handoff(campaign, phase)
    findings = validate.handoff_findings(campaign, phase)
    status = str(handoff.get("status", "missing"))
    notes = handoff.get("notes", ())
    return PhaseState(
        phase,
        TITLES[phase],
        "outdated" if status == "pass" and findings else status,
        str(handoff.get("generated_at_utc", "")),
        findings,
        [str(note) for note in notes] if isinstance(notes, list) else [],
    )


def _sentences(
    campaign: Campaign,
    results: Sequence[EvalRunResult],
    reasons: Mapping[str, str],
    phases: Sequence[PhaseState],
) -> Sequence[str]:
    accepted_rows = len(results) - len(reasons)
    words = [
        "running" if result.status == "running" else reasons[result.run_id]
        for result in results
        if result.run_id in reasons
    ]
    others = ", ".join(f"{number} {word}" for word, number in Counter(words).most_common())
    rest = f"; the others: {others}" if others else ""
    verb = "is" if accepted_rows == 1 else "are"
    sentences = [f"{accepted_rows} of {counted(len(results), 'row')} {verb} accepted{rest}."]
    for total in results_page.totals(campaign, results):
        counts_text = f"{total.successes} of {counted(total.episodes, 'episode')} succeeded"
        sentences.append(f"{total.policy_path} in {total.suite}: {counts_text}, {total.rate}.")
    sentences.append(verdict.threshold(campaign))
    if step := verdict.threshold_step(campaign):
        sentences.append(f"Next: {step}.")
    blocked = next((phase for phase in phases if phase.status == "blocked"), None)
    if blocked and blocked.notes:
        sentences.append(f"{blocked.phase} ({blocked.title}) is blocked: {blocked.notes[0]}")
    return sentences


def _caveats(campaign: Campaign, phases: Sequence[PhaseState]) -> list[str]:
    """Returns what limits the verdict: the warnings of the handoffs, and settings that are not the benchmark's."""
    warnings = [note.removeprefix(WARNING) for phase in phases for note in phase.notes if note.startswith(WARNING)]
    settings = [str(finding).removeprefix(WARNING) for finding in caveats.of_settings(campaign)]
    return list(dict.fromkeys([*warnings, *settings]))
