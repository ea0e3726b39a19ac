"""Reads docs/contracts.md and docs/departures.md as data: their tables, which tests hold against the code."""

import ast
import importlib
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
def tests_of(name: str) -> frozenset[str]:
    """Returns the names of the test functions in the file `name` below tests/."""
    tree = ast.parse(module_of_tests(name).read_text())
    functions = (node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return frozenset(name for name in functions if name.startswith("test_"))


def is_test(name: str) -> bool:
    """Returns whether a test exists: `test_x.py::test_y`, or `test_x.py` for any test of that file."""
    file, _, function = name.partition("::")
    return function in tests_of(file) if function else bool(tests_of(file))


def resolve(name: str) -> object:
    """Returns what `package.module.name` means below tracka."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(f"tracka.{module}"), attribute)


@cache
def tables(page: Path = PAGE) -> dict[str, list[list[Line]]]:
    """Returns the tables of a page under the heading above them; a line is column -> cell."""
    found: dict[str, list[list[Line]]] = {}
    for section in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
        found[section.splitlines()[0]] = [_lines(block.splitlines()) for block in blocks]
    return found


def table(heading: str, number: int = 0) -> list[Line]:
    """Returns the lines of one table of docs/contracts.md under a heading."""
    return tables()[heading][number]


def _lines(rows: list[str]) -> list[Line]:
    head, _, *body = ([_plain(cell) for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))] for row in rows)
    return [dict(zip(head, cells, strict=True)) for cells in body]


def _plain(cell: str) -> str:
    return cell.strip().replace("\\|", "|")


def words(cell: str) -> list[str]:
    """Returns the words between backquotes."""
    return re.findall(r"`([^`]+)`", cell)
