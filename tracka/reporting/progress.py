"""Keeps the pages on which people follow a campaign: `plan.md`, `todo/NAME.md` and `todo/TODO.md`.

Guarantees: the box of a phase says what its last handoff said; each handoff adds one progress line, and no line is ever
rewritten; nothing else on a page changes, save the next action in `todo/NAME.md` and boxes that were missing; the box
in TODO.md is ticked last of all, and is cleared when a phase does not pass; campaigns that share a TODO.md lose no line
to each other. A tier is not the acceptance of its campaign, so a session on a tier leaves these pages as they are.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..campaign.layout import PHASES, Layout
from ..core import damaged, escaping, files, lock
from ..core.errors import Finding, UsageError
from ..core.reports import Handoff
from . import checklist, rejected_rows, templating

# The statuses that complete a phase. By the plan, preflight is also complete with a blocker that is on record.
COMPLETE = dict.fromkeys(PHASES, ("pass",)) | {"phase2": ("pass", "blocked")}
LINE = re.compile(r"^- \S+Z \| phase=(?P<phase>phase\d) \| owner=[^|]* \| status=(?P<status>\w+) \|", re.MULTILINE)


def ensure(layout: Layout) -> None:
    """Writes pages that are missing, and adds missing boxes and the campaign's line in TODO.md.

    A page that cannot be read as text is set aside and written anew. Does nothing for a tier.
    """
    if not layout.progress_pages:
        return
    for path, template in {layout.plan: "plan.md.j2", layout.todo: "todo.md.j2"}.items():
        new_page = files.redacted(templating.render(template, _facts(layout)))
        before = _readable_text(path)
        labels = [*map(_phase_label, PHASES)]
        text = checklist.with_missing_boxes(before, new_page, labels) if before.strip() else new_page
        if text != before:
            checklist.write(path, text)
    _update_list(layout)


def _readable_text(path: Path) -> str:
    """Returns a page's text, empty where there is no page; what cannot be read as text is set aside."""
    if not os.path.lexists(path):
        return ""
    try:
        return checklist.read(path)
    except UsageError:
        damaged.set_aside(path)
        return ""


def _facts(layout: Layout) -> dict[str, str]:
    """Returns what the templates of both pages say of the campaign."""
    return {
        "name": layout.root.name,
        "folder": layout.display_name,
        "gates": commands.named_gates(layout),
        "todo": os.path.relpath(layout.todo, layout.plan.parent),
        "plan": os.path.relpath(layout.plan, layout.todo.parent),
    }


def _update_list(layout: Layout, accepted: bool | None = None) -> None:
    """Adds the campaign's line to TODO.md where it is missing, and sets its box unless `accepted` is None.

    Several campaigns may share the list, so that one process at a time reads and writes it.
    """
    path = layout.todo_list
    with lock.hold(layout.todo_lock, str(path), wait=True):
        before = _readable_text(path)
        text = before or "# TODO\n\n"
        if checklist.is_ticked(text, _own_link(layout)) is None:
            text = checklist.with_last_line(text, files.redacted(_entry(layout)))
        if accepted is not None:
            text = checklist.with_box(text, _own_link(layout), accepted)
        if text != before:
            checklist.write(path, text)


def _entry(layout: Layout) -> str:
    """Returns the campaign's line in TODO.md."""
    name = layout.root.name
    return f"- [ ] [{name}]({name}.md): every acceptance criterion of `{layout.display_name}/plan.md` holds"


def _own_link(layout: Layout) -> str:
    """Returns the regular expression of the link that begins the campaign's line in TODO.md."""
    return rf"[*_]*\[[^\]]*\]\({re.escape(layout.todo.name)}\)"


def record(layout: Layout, handoff: Handoff, previous: Mapping[str, Any], voided: Iterable[str], owner: str) -> None:
    """Records a new handoff on plan.md and todo/NAME.md: sets the phase's box and adds a progress line.

    The line says so where the `previous` handoff of the phase was the same. The boxes of `voided`, the later phases
    whose handoffs the new one took away, are cleared. `owner` is the name in the line. A status other than pass also
    clears the campaign's box in TODO.md. Does nothing for a tier.
    """
    if not layout.progress_pages:
        return
    ensure(layout)
    phase, action = handoff["phase"], files.redacted(_next_action(layout, handoff))
    again = "Judged again, nothing changed. " if _content(previous) == _content(handoff) else ""
    line = files.redacted(_line(layout, handoff, owner, again + action))
    boxes = {phase: handoff["status"] in COMPLETE[phase], **dict.fromkeys(voided, False)}
    for path in (layout.plan, layout.todo):
        text = checklist.read(path)
        for name, is_complete in boxes.items():
            text = checklist.with_box(text, _phase_label(name), is_complete)
        if path == layout.todo:
            text = _with_next_action(text, action)
        checklist.write(path, checklist.with_line(text, line))
    if handoff["status"] != "pass":
        close(layout, accepted=False)


def _content(handoff: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a handoff as it is on disk, without the keys that differ each time."""
    stamps = ("generated_at_utc", "git_commit")
    return {key: files.redacted(value) for key, value in handoff.items() if key not in stamps}


def close(layout: Layout, accepted: bool) -> None:
    """Ticks the campaign's box in TODO.md if the campaign is `accepted`, and clears the box otherwise.

    Does nothing for a tier.
    """
    if not layout.progress_pages:
        return
    ensure(layout)
    _update_list(layout, accepted)


def is_accepted(layout: Layout) -> bool:
    """Returns whether the campaign's box in TODO.md is ticked, as the last session that accepted it left the box."""
    page = layout.todo_list
    return page.is_file() and bool(checklist.is_ticked(checklist.read(page), _own_link(layout)))


def _phase_label(phase: str) -> str:
    """Returns the regular expression of the words behind a phase's box."""
    return rf"Phase {phase[-1]}\b"


def _with_next_action(text: str, action: str) -> str:
    return re.sub(r"^Next action: [^\r\n]*", lambda _: f"Next action: {action}", text, count=1, flags=re.MULTILINE)


def _last_status(text: str, phase: str) -> str | None:
    lines = reversed([*LINE.finditer(text)])
    return next((line["status"] for line in lines if line["phase"] == phase), None)


def _line(layout: Layout, handoff: Handoff, owner: str, action: str) -> str:
    """Returns one progress line, in the form of the plan's template."""
    marker = f"{layout.display_name}/{layout.relative(layout.handoff(handoff['phase']))}"
    words = [
        f"phase={handoff['phase']}",
        f"owner={_one_line(owner)}",
        f"status={handoff['status']}",
        f"marker={marker}",
    ]
    return " | ".join([f"- {handoff['generated_at_utc']}", *words, f"next={action}"])


def _next_action(layout: Layout, handoff: Handoff) -> str:
    command = commands.named_gates(layout)
    if handoff["status"] != "pass":
        note = handoff["notes"][0] if handoff["notes"] else "no reason is on record"
        fact, is_measured, _ = note.partition(rejected_rows.STAYS)
        if is_measured:
            return f"{_one_line(fact)} {rejected_rows.STAYS}; {rejected_rows.OTHER_CAMPAIGN}"
        return f"Remove the cause and rerun: {command}. The cause: {_one_line(note)}"
    if handoff["phase"] == PHASES[-1]:
        return "None: every phase has passed."
    later = PHASES[PHASES.index(handoff["phase"]) + 1]
    return f"Run phase {later[-1]}: {command} -m {later}"


def _one_line(text: str, most: int = 160) -> str:
    """Returns `text` as one line without the template's separator, cut after `most` characters."""
    line = escaping.line(text).replace("|", "/") or "unknown"
    return escaping.cell(line if len(line) <= most else f"{line[:most]}...")


def findings(campaign: Campaign, phases: Iterable[str]) -> Iterator[Finding]:
    """Yields a warning where the pages do not show what the handoffs of `phases` say.

    These findings are only warnings, since the pages belong to people. A tier has no such pages.
    """
    layout = campaign.layout
    if not layout.progress_pages:
        return
    handoffs = {phase: files.read_or_empty(layout.handoff(phase)) for phase in PHASES}
    # A missing page is reported as an error elsewhere; a renamed campaign has its todo page under its old name.
    for path in filter(Path.exists, (layout.plan, layout.todo)):
        text = checklist.read(path)
        for phase in phases:
            if handoffs[phase]:
                yield from _outdated_entries(layout, path, text, phase, str(handoffs[phase].get("status")))
    if is_accepted(layout) and any(handoff.get("status") != "pass" for handoff in handoffs.values()):
        what = "the campaign's box is ticked, but not every phase has passed"
        yield Finding(str(layout.todo_list), what, _remedy(layout), warning=True)


def _remedy(layout: Layout) -> str:
    return f"Run {commands.gates(layout)}, which updates the page and its boxes"


def _outdated_entries(layout: Layout, path: Path, text: str, phase: str, status: str) -> Iterator[Finding]:
    if checklist.is_ticked(text, _phase_label(phase)) is not (status in COMPLETE[phase]):
        what = f"the box of {phase} does not match its status, {status}"
        yield Finding(str(path), what, _remedy(layout), warning=True)
    if _last_status(text, phase) != status:
        what = f"the last line on {phase} does not match its status, {status}"
        yield Finding(str(path), what, _remedy(layout), warning=True)
