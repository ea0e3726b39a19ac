"""Writes what a session on a campaign shows at its end: the rows, the phases, what is wrong, and the verdict.

Each finding is shown once, here; the failures above refer to it.
"""

from collections.abc import Iterator, Sequence

from .campaign import commands
from .campaign.campaign import Campaign
from .campaign.layout import PHASES
from .campaign.matrix import Row
from .core import files
from .core.errors import Finding
from .gates import validate
from .reporting import verdict, verdict_file
from .runs import row_state, run, time_budget

# The two words that a newcomer meets in the lines below, and in the verdict.
WORDS = (
    "Each phase leaves a handoff, its report to the next phase. The strict validation holds all files against the "
    "contracts once more."
)


def lines(
    campaign: Campaign, ended: Sequence[str], findings: Sequence[Finding], trouble: Sequence[str], accepted: bool
) -> Iterator[str]:
    """Yields the lines of the summary.

    `ended` are the phases that this session has ended, `findings` those of the strict validation, `trouble` says what
    could not be written, `accepted` is the verdict.
    """
    yield from row_table(campaign)
    shown: list[str] = []
    if any(campaign.layout.handoff(phase).exists() for phase in PHASES):
        yield WORDS
    for phase in PHASES:
        path = campaign.layout.handoff(phase)
        value = files.read_or_empty(path)
        if value:
            yield f"{phase}: {value.get('status')}  {campaign.layout.relative(path)}"
            yield from (f"    {note}" for note in value.get("notes", []) if note not in shown)
            shown += value.get("notes", [])
    if all(validate.valid_handoff(campaign, phase).get("status") == "pass" for phase in PHASES):
        yield from (f"    {finding}" for finding in findings if str(finding) not in shown)
    yield from (f"error: {line}" for line in trouble)
    if PHASES[-1] in ended and (shown_verdict := verdict_file.read(campaign)):
        yield f"policies: {shown_verdict['sentence']}"
    if PHASES[-1] in ended:
        tier = f"tier {campaign.tier.name}, " if campaign.tier else ""
        yield f"verdict: {verdict.words(campaign, accepted)} ({tier}strict validation of all phases)"
    if not accepted and (step := next_step(campaign)):
        yield f"next: {step}"


def next_step(campaign: Campaign) -> str:
    """Returns what to look at and to run next by the first phase that has ended without a pass; empty without one."""
    layout = campaign.layout
    statuses = {phase: files.read_or_empty(layout.handoff(phase)).get("status") for phase in PHASES}
    phase = next((phase for phase, status in statuses.items() if status not in (None, "pass")), None)
    again = commands.gates(layout, "--lf")
    if phase == "phase1":
        return f"correct the files in {layout.relative(layout.settings.parent)}, then {again}"
    if phase == "phase2":
        return f"`tracka doctor` says what this machine lacks; mend the checks named above, then {again}"
    if phase in ("phase3", "phase4"):
        results = [result for row in campaign.enabled if (result := run.read_result(layout, row.run_id))]
        logs = [layout.run(result["run_id"]).stderr for result in results if result["status"] == "fail"]
        log = f"{layout.relative(logs[0])} says why; " if logs else ""
        return f"{log}report.html shows all rows; {again} runs again what failed"
    if phase == "phase5":
        return f"tracka validate --phase all --root {layout.display_name} --strict names what keeps it from a pass"
    return ""


def row_table(campaign: Campaign) -> list[str]:
    """Returns the enabled rows as aligned lines of text: run, status, episodes, successes, device, seconds, folder."""
    head = ("run", "status", "episodes", "successes", "device", "seconds", "artifacts")
    cells = [head, *(_row_cells(campaign, row) for row in campaign.enabled)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def _row_cells(campaign: Campaign, row: Row) -> tuple[str, ...]:
    folder = campaign.layout.relative(campaign.layout.run(row.run_id).path)
    result = run.read_result(campaign.layout, row.run_id)
    if result is None:
        over_budget = time_budget.lost_start(campaign.layout, row.run_id)
        return (row.run_id, f"not run ({time_budget.REASON})" if over_budget else "not run", "", "", "", "", folder)
    status = row_state.status_text(result["status"], result["reason"], result["invalid"], result["unproven"])
    counts = ("" if result[key] is None else str(result[key]) for key in ("episodes", "successes"))
    return (
        row.run_id,
        status,
        *counts,
        run.device_name(campaign.layout, row.run_id),
        f"{result['duration_sec']:.0f}",
        folder,
    )


class FailureTexts:
    """Shortens the failures on the terminal: they refer to what the summary shows, and to each other.

    Attributes:
        campaign: the session's campaign
        summarised: the lines that the summary shows, with paths relative to the campaign's folder
        seen: the texts of blocked tests so far
    """

    def __init__(self, campaign: Campaign, ended: Sequence[str], findings: Sequence[Finding]) -> None:
        self.campaign = campaign
        known = [phase for phase in PHASES if phase in ended or campaign.layout.handoff(phase).exists()]
        notes = [note for phase in known for note in validate.valid_handoff(campaign, phase).get("notes", [])]
        states = [finding for phase in known for finding in validate.handoff_findings(campaign, phase)]
        self.summarised = {
            *notes,
            *(campaign.layout.with_relative_paths(str(finding)) for finding in [*states, *findings]),
        }
        self.seen: set[str] = set()

    def shortened(self, text: str) -> str:
        """Returns the text of a failure without lines that the summary shows.

        A text that says that its phase is blocked is returned whole once; its repetitions refer to it.
        """
        given = text.splitlines()
        if len(given) == 1 and " is blocked, see " in text:
            repeated = text in self.seen
            self.seen.add(text)
            return f"{text.partition(',')[0]}, as said above" if repeated else text
        kept = [line for line in given if self.campaign.layout.with_relative_paths(line.strip()) not in self.summarised]
        return "\n".join([*kept, f"  see below, campaign {self.campaign.name}"]) if len(kept) < len(given) else text
