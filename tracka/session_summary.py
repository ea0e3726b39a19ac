"""Writes what a session on a campaign shows at its end: the rows, the phases, what is wrong, and the verdict.

Each finding is shown once, here; the failures above refer to it.
"""

from collections.abc import Iterator, Sequence

from .campaign import commands
from .campaign.campaign import Campaign
from .campaign.layout import PHASES
from .campaign.matrix import Row
from .core import files, installation, schema
from .core.counting import counted
from .core.errors import Finding, joined_names
from .gates import validate
from .reporting import rejected_rows, verdict, verdict_file
from .runs import row_state, run, time_budget

# The words that a newcomer meets in the lines below, and in the verdict.
WORDS = (
    "Each phase leaves a handoff, its report to the next phase. The strict validation checks all files against the "
    f"contracts, the rules of the phases, once more. All words: {installation.page('glossary.md')}"
)
MOST_CAUSES = rejected_rows.MOST + 1
# The checks that `tracka doctor` makes as well, by the first word of their names.
OF_DOCTOR = ("gpus", "cuda", "version", "libero_config", "libero_assets", "disk", "lerobot_import", "rendering")


def lines(
    campaign: Campaign,
    ended: Sequence[str],
    findings: Sequence[Finding],
    trouble: Sequence[str],
    accepted: bool,
    interrupted: str | None = None,
) -> Iterator[str]:
    """Yields the lines of the summary.

    `ended` are the phases that this session has ended, `findings` those of the strict validation, `trouble` says what
    could not be written, `accepted` is the verdict, `interrupted` the phase in which Ctrl-C has ended the session.
    """
    yield from row_table(campaign)
    shown: list[str] = []
    if any(campaign.layout.handoff(phase).exists() for phase in PHASES):
        yield WORDS
    for phase in PHASES:
        path = campaign.layout.handoff(phase)
        value = files.read_or_empty(path)
        if value:
            cut_off = ", interrupted" if phase == interrupted else ""
            yield f"{phase}: {value.get('status')}{cut_off}  {campaign.layout.relative(path)}"
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


def last_lines(campaign: Campaign, accepted: bool, failed: int = 0, interrupted: str | None = None) -> Iterator[str]:
    """Yields what stands last of a session: why it is not accepted, in a line for each cause, and what to do next.

    `failed` is the number of failed tests, which may be more than the causes: one phase that has not passed fails the
    tests of all later ones. `interrupted` is the phase in which Ctrl-C has ended the session. Of an accepted campaign
    nothing is said but what to do where it has no threshold.
    """
    if accepted:
        step = verdict.threshold_step(campaign)
    else:
        step = next_step(campaign, interrupted)
        causes = _causes(campaign)
        if 0 < len(causes) < failed:
            yield f"{counted(failed, 'test')} failed; it began with {counted(len(causes), 'cause')}:"
        yield from (f"cause: {line}" for line in causes[:MOST_CAUSES])
        if len(causes) > MOST_CAUSES:
            yield f"{counted(len(causes) - MOST_CAUSES, 'more cause')}, see above"
    if step:
        yield f"next: {step}"


def _causes(campaign: Campaign) -> list[str]:
    """Returns what keeps the first phase without a pass from one: its rows, or where all are accepted its handoff."""
    phase = _open_phase(campaign)
    if phase is None:
        return []
    if phase in PHASES[2:] and (of_rows := [*rejected_rows.causes(campaign, rejected_rows.reasons(campaign))]):
        return of_rows
    notes = files.read_or_empty(campaign.layout.handoff(phase)).get("notes", [])
    return [note for note in notes if not note.startswith("warning: ")]


def next_step(campaign: Campaign, interrupted: str | None = None) -> str:
    """Returns what to look at and to run next by the first phase that has ended without a pass; empty without one.

    A session that was `interrupted` in a phase goes on first.
    """
    layout = campaign.layout
    phase = _open_phase(campaign)
    again = commands.gates(layout, "--lf")
    if interrupted:
        return f"{again} goes on where the session was interrupted, in {interrupted}"
    if phase == "phase1":
        return f"correct the files in {layout.relative(layout.settings.parent)}, then {again}"
    if phase == "phase2":
        return _of_host(campaign, again)
    if phase in ("phase3", "phase4"):
        return _of_rows(campaign)
    if phase == "phase5":
        return f"tracka validate --phase all --root {layout.display_name} --strict names what keeps it from a pass"
    return ""


def _open_phase(campaign: Campaign) -> str | None:
    """Returns the first phase that has ended without a pass; None where there is none."""
    statuses = {phase: files.read_or_empty(campaign.layout.handoff(phase)).get("status") for phase in PHASES}
    return next((phase for phase, status in statuses.items() if status not in (None, "pass")), None)


def _of_host(campaign: Campaign, again: str) -> str:
    """Returns what to do about checks that keep phase 2 from a pass; `again` is the command for that.

    `tracka doctor` is named only where it makes one of these checks too. A check whose process took too long names
    what to run in its own remedy, and so does a preflight that was interrupted.
    """
    report = schema.read_or_empty("preflight", campaign.layout.preflight_report)
    failed = [check for check in report.get("checks", ()) if check["required"] and check["status"] == "fail"]
    remedies = list(dict.fromkeys(check["remedy"] for check in failed))
    if len(remedies) == 1 and remedies[0]:
        return remedies[0] if again in remedies[0] else f"{remedies[0]}; then {again}"
    doctor = "`tracka doctor` says what this machine lacks; "
    lacking = [check["name"].partition(":")[0] for check in failed if again not in (check["remedy"] or "")]
    is_of_doctor = not failed or any(name in OF_DOCTOR for name in lacking)
    return f"{doctor if is_of_doctor else ''}mend the checks named above, then {again}"


def _of_rows(campaign: Campaign) -> str:
    """Returns what to do about rows that keep phase 3 or 4 from a pass."""
    layout = campaign.layout
    page = f"{layout.display_name}/{layout.report_page.relative_to(layout.root)}"
    if changed := rejected_rows.with_other_inputs(campaign):
        anew = f"{commands.gates(layout, '--allow-overwrite')} plays anew what has changed, and keeps the old attempts"
        return f"give what has changed a new run id ({joined_names(changed)}); or {anew}"
    passed = [each for each in PHASES if validate.valid_handoff(campaign, each).get("status") == "pass"]
    if any(validate.handoff_findings(campaign, each) for each in passed):
        return f"{commands.gates(layout)} closes the earlier phases anew; no row that stands is played again"
    reasons = rejected_rows.reasons(campaign)
    if rejected_rows.are_measured(reasons.values()):
        look = f"look at {page} and at the videos below {layout.display_name}/{layout.relative(layout.runs)}"
        return f"measured: a rerun changes nothing; {look}; {rejected_rows.OTHER_CAMPAIGN}"
    again = commands.gates(layout, "--lf")
    if not rejected_rows.reasons(campaign, with_not_run=True):
        return f"every row is accepted; mend what the phase finds beside them, then {again}"
    if rejected_rows.were_cut_off(reasons.values()):
        return f"{again} plays what was cut off; there is nothing to mend"
    mute = (*rejected_rows.OF_MEASURED, *rejected_rows.CUT_OFF)
    logs = [layout.run(run_id).stderr for run_id, why in reasons.items() if why not in mute]
    log = next((f"{layout.display_name}/{layout.relative(path)} says why; " for path in logs if path.is_file()), "")
    return f"{log}{page} shows all rows; {again} runs again what failed"


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
