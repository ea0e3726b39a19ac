"""Changes Markdown pages that belong to people: sets a box, or inserts a line.

Guarantees: everything else on a page stays as it is, to the byte, with its line ends and blank lines; a page is written
whole or not at all, and keeps its owner and its permissions.
"""

import contextlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from ..core import files

BOX = r"^[-*] \[(?P<mark>[ xX])\] "
BOXES, LINES = "Progress Tracking", "Progress"  # the plan's sections


def read(path: Path) -> str:
    """Returns a page with its line ends as they are. Raises UsageError where the page is missing or is not UTF-8."""
    return files.read_text(path, newline="")


def write(path: Path, text: str) -> None:
    """Writes a page; a new page gets the owner of its folder and the folder's permissions.

    Pages are shared, unlike artifacts.
    """
    with files.as_open_as(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    state = (path.parent if is_new else path).stat()
    files.write_atomic(path, text.encode())
    with contextlib.suppress(PermissionError):  # only root can give a file away
        os.chown(path, state.st_uid, state.st_gid)
    path.chmod(stat.S_IMODE(state.st_mode) & (0o664 if is_new else 0o7777))


def is_ticked(text: str, label: str) -> bool | None:
    """Returns whether the box before `label`, a regular expression, is ticked; None where the page has no such box."""
    box = _box(text, label)
    return None if box is None else box["mark"] != " "


def with_box(text: str, label: str, ticked: bool) -> str:
    """Returns `text` with the box before `label`, a regular expression, ticked or cleared."""
    box = _box(text, label)
    if box is None or (box["mark"] != " ") is ticked:
        return text
    return f"{text[: box.start('mark')]}{'x' if ticked else ' '}{text[box.end('mark') :]}"


def with_missing_boxes(text: str, model: str, labels: Sequence[str]) -> str:
    """Returns `text` with the boxes of these labels, regular expressions, that `model` has and `text` has not.

    They come behind the last such box of `text`, else into the section for boxes, which is added where it is missing.
    """
    boxes, end = {label: _box(text, label) for label in labels}, _line_end(text)
    models = (_box(model, label) for label, box in boxes.items() if box is None)
    lines = end.join(model[box.start() : model.find("\n", box.start())] for box in models if box)
    if not lines:
        return text
    if present := [box for box in boxes.values() if box]:
        at = _line_stop(text, max(box.end() for box in present))
        return f"{text[:at]}{end}{lines}{text[at:] or end}"
    if section := _section(text, BOXES):
        return f"{text[: section[0]]}{end}{end}{lines}{text[section[0] :] or end}"
    if progress := re.search(rf"^## {LINES}[ \t\r]*$", text, re.MULTILINE):
        return f"{text[: progress.start()]}## {BOXES}{end}{end}{lines}{end}{end}{text[progress.start() :]}"
    return with_last_line(with_last_line(with_last_line(text, ""), f"## {BOXES}"), f"{end}{lines}")


def _line_stop(text: str, position: int) -> int:
    """Returns where the line at `position` ends, before its line end."""
    found = re.compile(r"[\r\n]").search(text, position)
    return found.start() if found else len(text)


def _box(text: str, label: str) -> re.Match[str] | None:
    """Returns the first such box of the section for boxes, or of the whole page where the section has none."""
    box = re.compile(BOX + label, re.MULTILINE)
    return box.search(text, *(_section(text, BOXES) or (0,))) or box.search(text)


def with_line(text: str, line: str) -> str:
    """Returns `text` with `line` at the end of the section for progress lines, which is added where it is missing."""
    section = _section(text, LINES)
    if section is None:
        return with_line(with_last_line(with_last_line(text, ""), f"## {LINES}"), line)
    last, end = _end_of_last_line(text[: section[1]]), _line_end(text)
    after_an_item = text[:last].splitlines()[-1].startswith(("- ", "* "))
    return f"{text[:last]}{end}{'' if after_an_item else end}{line}{text[last:] or end}"


def with_last_line(text: str, line: str) -> str:
    """Returns `text` with `line` as its last line."""
    end = _line_end(text)
    return f"{text}{'' if text.endswith(end) else end}{line}{end}"


def _section(text: str, heading: str) -> tuple[int, int] | None:
    """Returns start and end of the page's last section of this heading, or None."""
    headings = [*re.finditer(rf"^## {heading}[ \t\r]*$", text, re.MULTILINE)]
    if not headings:
        return None
    following = re.compile(r"^##? ", re.MULTILINE).search(text, headings[-1].end())
    return headings[-1].end(), following.start() if following else len(text)


def _end_of_last_line(text: str) -> int:
    """Returns the end of the last line that is not blank, without its line end."""
    rest = text[len(text.rstrip()) :]
    return len(text) - len(rest.lstrip(" \t"))


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
