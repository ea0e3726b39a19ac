"""The page of faults and the fault suite name each other, whole."""

import ast
import re

import pytest
from campaigns import REPOSITORY
from contracts_page import module_of_tests

PAGE = (REPOSITORY / "docs" / "reliability.md").read_text()
NAMED = re.findall(r"`((?:faults/)?test_\w+\.py)::(test_\w+)`", PAGE)
SUITE = sorted((REPOSITORY / "tests" / "faults").glob("test_*.py"))


def functions_of(name: str) -> set[str]:
    tree = ast.parse(module_of_tests(name).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_every_test_that_the_page_names_exists(file: str, test: str) -> None:
    assert test in functions_of(file)


@pytest.mark.parametrize("path", SUITE, ids=lambda path: path.stem)
def test_every_test_of_the_suite_is_on_the_page(path: object) -> None:
    name = f"faults/{path.name}"  # type: ignore[attr-defined]
    assert functions_of(name) == {test for file, test in NAMED if file == name}


def test_every_line_of_the_tables_names_its_test() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| fault", "| ---"))]
    assert len(lines) > 40 and all(re.search(r"`[\w/]+\.py::test_\w+` \|$", line) for line in lines)
