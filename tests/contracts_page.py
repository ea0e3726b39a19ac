"""Reads docs/contracts.md as data: its tables, which tests hold against the code."""

import re
from functools import cache
from pathlib import Path

from campaigns import REPOSITORY

PAGE = REPOSITORY / "docs" / "contracts.md"
Line = dict[str, str]


def module_of_tests(name: str) -> Path:
    """Returns the path of the file `name` below tests/, such as `test_cli.py`, in whichever folder the file stands."""
    (path,) = (REPOSITORY / "tests").rglob(name)
    return path


@cache
def tables() -> dict[str, list[list[Line]]]:
    """Returns the tables of the page under the heading above them; a line is column -> cell."""
    found: dict[str, list[list[Line]]] = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
        found[section.splitlines()[0]] = [_lines(block.splitlines()) for block in blocks]
    return found


def table(heading: str, number: int = 0) -> list[Line]:
    """Returns the lines of one table under a heading."""
    return tables()[heading][number]


def _lines(rows: list[str]) -> list[Line]:
    head, _, *body = ([cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows)
    return [dict(zip(head, cells, strict=True)) for cells in body]


def words(cell: str) -> list[str]:
    """Returns the words between backquotes."""
    return re.findall(r"`([^`]+)`", cell)
