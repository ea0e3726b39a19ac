"""Markdown of the pages that are made from the code, and the tables of docs/contracts.md as data."""

import re
from collections.abc import Iterable, Sequence

from documentation.links import REPOSITORY

CONTRACTS = REPOSITORY / "docs" / "contracts.md"
MADE = "This page is made from {source} by `make docs`.\n"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Returns a table; a bar in a cell is escaped."""
    cells = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in cells)


def code(text: object) -> str:
    """Returns a text as code, and nothing for an empty one."""
    return f"`{text}`" if str(text) else ""


def sentence(text: str) -> str:
    """Returns a text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?')) else '.'}" if text else ""


def contracts(heading: str, number: int = 0) -> list[dict[str, str]]:
    """Returns the lines of a table below a heading of docs/contracts.md, each by the names of its columns."""
    page = CONTRACTS.read_text()
    section = page.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)[number]
    header, _, *lines = [_cells(line) for line in found.splitlines()]
    return [dict(zip(header, line, strict=True)) for line in lines]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
