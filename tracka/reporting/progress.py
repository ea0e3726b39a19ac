"""Keeps the pages on which people follow a campaign: `plan.md`, `todo/NAME.md` and `todo/TODO.md`.

Guarantees: the box of a phase says what its last handoff said; a progress line is added when that status changes, and
no line is ever rewritten; the box in TODO.md is ticked last of all, and is cleared when a phase does not pass.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..campaign.campaign import Campaign
from ..campaign.layout import PHASES, Layout
from ..core import escaping, files
from ..core.errors import Finding
from ..core.reports import Handoff
from . import templating

# The statuses that complete a phase. By the plan, preflight is also complete with a blocker that is on record.
COMPLETE = dict.fromkeys(PHASES, ("pass",)) | {"phase2": ("pass", "blocked")}
BOX = r"^(?P<head>[-*] \[)[ xX](?P<tail>\] {what})"
LINE = re.compile(r"^- \S+Z \| phase=(?P<phase>phase\d) \| owner=[^|]* \| status=(?P<status>\w+) \|", re.MULTILINE)
HEADING = "## Progress"


def ensure(layout: Layout) -> None:
    """Writes those of the three pages that are missing, and adds the campaign's line to TODO.md if it is not there."""
    facts = {"name": layout.root.name, "folder": layout.display_name}
    for path, template in {layout.plan: "plan.md.j2", layout.todo: "todo.md.j2"}.items():
        if not path.exists():
            _write(path, templating.render(template, facts))
    todo_text = files.read_text(layout.todo_list) if layout.todo_list.exists() else "# TODO\n\n"
    if _box(todo_text, _own_box(layout)) is None:
        _write(layout.todo_list, todo_text + _entry(layout))


def _entry(layout: Layout) -> str:
    """Returns the campaign's line in TODO.md."""
    name = layout.root.name
    return f"- [ ] [{name}]({name}.md): every acceptance criterion of `{layout.display_name}/plan.md` holds\n"


def _write(path: Path, text: str) -> None:
    """Writes a page; a new page gets the permissions of the campaign's folder.

    Pages are shared, unlike artifacts.
    """
    with files.as_open_as(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files.redacted(text), encoding="utf-8")


def record(layout: Layout, handoff: Handoff, previous: Mapping[str, Any], voided: Iterable[str], owner: str) -> None:
    """Records a new handoff on plan.md and todo/NAME.md: sets the phase's box and adds a progress line.

    The line is added if the status differs from the phase's `previous` handoff, or from the page's last line on the
    phase. The boxes of `voided`, the later phases whose handoffs the new one took away, are cleared. `owner` is the
    name in the line. A status other than pass also clears the campaign's box in TODO.md.
    """
    ensure(layout)
    phase, status = handoff["phase"], handoff["status"]
    action = _next_action(layout, handoff)
    for path in (layout.plan, layout.todo):
        text = _set_phase_box(files.read_text(path), phase, status in COMPLETE[phase])
        for later in voided:
            text = _set_phase_box(text, later, False)
        if previous.get("status") != status or _last_status(text, phase) != status:
            text = _append_line(text, _line(layout, handoff, owner, action))
        if path == layout.todo:
            text = re.sub(r"^Next action: .*$", lambda _: f"Next action: {action}", text, count=1, flags=re.MULTILINE)
        _write(path, text)
    if status != "pass":
        close(layout, accepted=False)


def close(layout: Layout, accepted: bool) -> None:
    """Ticks the campaign's box in TODO.md if the campaign is `accepted`, and clears the box otherwise."""
    ensure(layout)
    text = files.read_text(layout.todo_list)
    _write(layout.todo_list, _set_box(text, _own_box(layout), accepted))


def _own_box(layout: Layout) -> str:
    return rf".*\[[^\]]*\]\({re.escape(layout.root.name)}\.md\)"


def _set_phase_box(text: str, phase: str, done: bool) -> str:
    return _set_box(text, _phase_box(phase), done)


def _phase_box(phase: str) -> str:
    return rf"Phase {phase[-1]}\b"


def _set_box(text: str, what: str, done: bool) -> str:
    mark = "x" if done else " "
    pattern = re.compile(BOX.replace("{what}", what), re.MULTILINE)
    return pattern.sub(lambda match: f"{match['head']}{mark}{match['tail']}", text, count=1)


def _box(text: str, what: str) -> bool | None:
    """Returns whether the box is ticked; None where the page has no such box."""
    match = re.search(BOX.replace("{what}", what), text, re.MULTILINE)
    return None if match is None else match[0][len(match["head"])] != " "


def _last_status(text: str, phase: str) -> str | None:
    return next((match["status"] for match in reversed([*LINE.finditer(text)]) if match["phase"] == phase), None)


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


def _append_line(text: str, line: str) -> str:
    """Returns `text` with `line` at the end of its section Progress, which is added where it is missing."""
    if not re.search(rf"^{HEADING}\s*$", text, re.MULTILINE):
        text = f"{text.rstrip()}\n\n{HEADING}\n\n"
    start = [*re.finditer(rf"^{HEADING}\s*$", text, re.MULTILINE)][-1].end()
    following = re.search(r"^## ", text[start:], re.MULTILINE)
    end = start + following.start() if following else len(text)
    section = text[:end].rstrip("\n")
    gap = "\n" if section.splitlines()[-1].startswith("- ") else "\n\n"
    rest = f"\n{text[end:]}" if following else ""
    return f"{section}{gap}{line}\n{rest}"


def _next_action(layout: Layout, handoff: Handoff) -> str:
    command = f"pytest acceptance --campaign {shlex.quote(layout.display_name)}"
    if handoff["status"] != "pass":
        note = _one_line(handoff["notes"][0] if handoff["notes"] else "no reason is on record")
        return f"Mend {note}; then rerun: {command}"
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

    These findings are only warnings, since the pages belong to people.
    """
    layout = campaign.layout
    handoffs = {phase: files.read_or_empty(layout.handoff(phase)) for phase in PHASES}
    # A missing page is reported as an error elsewhere; a renamed campaign has its todo page under its old name.
    for path in filter(Path.exists, (layout.plan, layout.todo)):
        text = files.read_text(path)
        for phase in phases:
            if handoffs[phase]:
                yield from _outdated_entries(path, text, phase, str(handoffs[phase].get("status")))
    ticked = layout.todo_list.exists() and _box(files.read_text(layout.todo_list), _own_box(layout))
    if ticked and any(handoff.get("status") != "pass" for handoff in handoffs.values()):
        yield Finding(
            str(layout.todo_list), "the campaign's box is ticked, but not every phase has passed", _REMEDY, warning=True
        )


_REMEDY = "Run pytest acceptance, which updates the page and makes a removed page anew, with all boxes"


def _outdated_entries(path: Path, text: str, phase: str, status: str) -> Iterator[Finding]:
    if _box(text, _phase_box(phase)) is not (status in COMPLETE[phase]):
        yield Finding(str(path), f"the box of {phase} does not match its status, {status}", _REMEDY, warning=True)
    if _last_status(text, phase) != status:
        yield Finding(str(path), f"the last line on {phase} does not match its status, {status}", _REMEDY, warning=True)
