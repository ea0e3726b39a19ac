"""docs/departures.md lists every contract of the plan: each holds by a test or a module, or departs by a row."""

import re

import pytest
from campaigns import REPOSITORY
from contracts_page import Line, is_test, resolve, tables, words
from test_contracts_page import options

PAGE = REPOSITORY / "docs" / "departures.md"
CONTRACT, STATE, WHERE = "the plan's contract", "state", "held by, or the row above"
(ROWS,) = tables(PAGE)["What departs"]
CONTRACTS = [line for lines in tables(PAGE)["Every contract of the plan"] for line in lines]
HOLDS = [line for line in CONTRACTS if line[STATE] == "holds"]
DEPARTS = [line for line in CONTRACTS if line[STATE] == "departs"]
FLAG = re.compile(r"(\w+) (--[\w-]+)(?: (\S+))?")


def rows_of(line: Line) -> list[list[str]]:
    """Returns for each anchor of a contract, its words in italics, the rows of the first table that begin with it."""
    anchors = re.findall(r"\*([^*]+)\*", line[WHERE])
    return [[name for name in row_names() if name.startswith(anchor)] for anchor in anchors]


def row_names() -> list[str]:
    return [row["the plan"].replace("`", "") for row in ROWS]


def names(line: Line) -> list[str]:
    """Returns what a contract that holds names: tests, modules, and files of the repository."""
    return words(line[WHERE])


def test_each_contract_holds_or_departs() -> None:
    assert [line for line in CONTRACTS if line not in HOLDS and line not in DEPARTS] == []
    assert HOLDS and DEPARTS


def test_no_contract_stands_twice_under_a_heading() -> None:
    for lines in tables(PAGE)["Every contract of the plan"]:
        contracts = [line[CONTRACT] for line in lines]
        assert sorted(set(contracts)) == sorted(contracts)


def test_what_departs_names_rows_of_the_table_each_by_its_first_words() -> None:
    assert [line for line in DEPARTS if not rows_of(line) or any(len(rows) != 1 for rows in rows_of(line))] == []


def test_what_holds_names_no_row() -> None:
    assert [line for line in HOLDS if rows_of(line)] == []


def test_every_row_of_the_table_is_a_contracts() -> None:
    assert {row for line in DEPARTS for rows in rows_of(line) for row in rows} == set(row_names())


def test_what_holds_names_where() -> None:
    assert [line for line in HOLDS if not names(line)] == []


def test_every_test_module_and_file_that_a_contract_names_exists() -> None:
    assert [name for line in HOLDS for name in names(line) if not exists(name)] == []


def exists(name: str) -> bool:
    if name.startswith("test_"):
        return is_test(name)
    return (REPOSITORY / name).is_file() if "/" in name else resolve(name) is not None


def flags(line: Line) -> list[tuple[str, str, str | None]]:
    """Returns command, flag and default of each flag that a contract names, as in `run --seed 7`."""
    return [(match[1], match[2], match[3]) for word in words(line[CONTRACT]) if (match := FLAG.fullmatch(word))]


@pytest.mark.parametrize("line", [line for line in CONTRACTS if flags(line)], ids=lambda line: line[CONTRACT])
def test_a_flag_and_its_default_are_the_commands(line: Line) -> None:
    for command, flag, default in flags(line):
        value = options(command)[flag]
        if ", required" in line[CONTRACT]:
            assert value is ...
        elif line[STATE] == "holds":
            assert str(value or 0) == (default or "0")


def test_every_flag_of_the_plans_is_a_contract() -> None:
    """Compares the page with the flags of the seven commands, without those that the plan does not have."""
    further = {"discover": {"--trust"}, "preflight": {"--trust", "--accept-invalid-sim", "--strict", "--dry-run"}}
    further |= {"collect": {"--dry-run"}, "sweep": {"--no-live", "--shard"}, "validate": {"--quick"}}
    further |= {"setup": {"--venv"}}
    listed = {(command, flag) for line in CONTRACTS for command, flag, _ in flags(line)}
    commands = ("discover", "setup", "preflight", "run", "sweep", "collect", "validate")
    shown = {name: set(options(name)) - further.get(name, set()) - {"--tier", "--launcher"} for name in commands}
    assert listed == {(name, flag) for name in commands for flag in shown[name]}
