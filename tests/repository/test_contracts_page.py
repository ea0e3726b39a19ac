"""docs/contracts.md tells what is there: no flag, key, column, name or test that is missing here or only there."""

import dataclasses
import re

import pytest
import typer
from campaigns import REPOSITORY
from contracts_page import PAGE, Line, is_test, resolve, table, tables, words

from tracka.campaign import matrix
from tracka.cli import app
from tracka.core import schema, system_errors
from tracka.engines import failure
from tracka.execution import slurm_outcome
from tracka.install import setup
from tracka.preflight import preflight
from tracka.reporting import collect
from tracka.runs import known_answers, time_budget

ALL = [line for group in tables().values() for lines in group for line in lines]
TOP = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMMANDS = {  # name -> command, with the commands of a group: `baseline promote`
    " ".join(names): command
    for name, top in TOP.items()
    for names, command in (
        [((name, each), below) for each, below in getattr(top, "commands", {}).items()] or [((name,), top)]
    )
}


def options(command: str) -> dict[str, object]:
    """Flag -> default of a subcommand; `...` for one that must be given, None for one that is not set."""
    if command == "setup":
        actions = [action for action in setup.parser()._actions if "--help" not in action.option_strings]
        return {action.option_strings[-1]: ... if action.required else action.default for action in actions}
    params = [param for param in COMMANDS[command].params if param.opts[0].startswith("--")]
    return {param.opts[0]: ... if param.required else param.default for param in params}


def documented(line: Line) -> dict[str, object]:
    required = dict.fromkeys(words(line["must be given"]), ...)
    others = [word.partition(" ") for word in words(line["may be given"])]
    return required | {flag: default or None for flag, _, default in others}


@pytest.mark.parametrize("line", table("Commands"), ids=lambda line: words(line["command"])[0])
def test_a_command_has_the_flags_and_defaults_on_the_page(line: Line) -> None:
    found = options(words(line["command"])[0])
    assert {flag: default if default is ... else str(default or "") or None for flag, default in found.items()} == {
        flag: default if default is ... else _none_for_zero(default, found[flag])
        for flag, default in documented(line).items()
    }


def _none_for_zero(default: object, found: object) -> object:
    """A default of 0 is falsy in both places."""
    return None if found in (0, False) and str(default) in ("0", "None") else default


def test_every_command_is_on_the_page() -> None:
    assert {words(line["command"])[0] for line in table("Commands")} == set(COMMANDS)


@pytest.mark.parametrize("line", table("Commands", 1), ids=lambda line: line["exit code"])
def test_an_exit_code_is_its_errors(line: Line) -> None:
    for name in words(line["lives in"]):
        assert str(resolve(name).exit_code) == line["exit code"]  # type: ignore[attr-defined]


KEYS = [*table("Required keys"), *table("Required keys", 1)]  # of files, and of what a command prints


@pytest.mark.parametrize("line", KEYS, ids=lambda line: words(line["schema"])[0])
def test_the_keys_of_a_file_are_those_of_its_schema(line: Line) -> None:
    keys = [*words(line["the plan's keys"]), *words(line["further keys"])]
    assert sorted(keys) == sorted(schema.load(words(line["schema"])[0])["required"])


def test_every_schema_of_an_artifact_is_on_the_page() -> None:
    shipped = {path.name.split(".")[0] for path in (REPOSITORY / "tracka" / "core" / "schemas").glob("*.json")}
    assert shipped - {"campaign", "parity"} == {words(line["schema"])[0] for line in KEYS}


def test_the_columns_are_those_of_the_tables() -> None:
    columns = [words(line["columns"]) for line in table("Columns")]
    fields = [field.name for field in dataclasses.fields(collect.EvalRunResult)]
    assert columns == [list(matrix.COLUMNS), fields, [*matrix.COLUMNS, "reason"]]


PLANNED = {
    preflight.PreflightConfig: "task_suite policy_path mujoco_gl gpu_ids artifacts_dir",
    collect.EvalRunResult: "run_id task_suite batch_size n_episodes gpu_id success_rate successes failures exit_code"
    " status stdout_log stderr_log video_path",
}


@pytest.mark.parametrize("kind", PLANNED, ids=lambda kind: kind.__name__)
def test_the_plans_dataclasses_have_the_plans_fields_first(kind: type) -> None:
    wanted = PLANNED[kind].split()
    assert [field.name for field in dataclasses.fields(kind)][: len(wanted)] == wanted


def test_the_reasons_are_those_that_the_code_gives() -> None:
    code = "".join(path.read_text() for path in (REPOSITORY / "tracka").rglob("*.py"))
    given = re.findall(r'Failure\(\s*"(\w+)"|"(not_run)"|"(below_threshold)"', code)
    reasons = (
        {"".join(found) for found in given}
        | {reason for reason, _ in failure._SIGNS}
        | set(system_errors.REMEDIES)
        | set(slurm_outcome.WHY)
        | {known_answers.REASON, failure.CHECKPOINT, *failure.ENDED, time_budget.REASON}
    )
    assert {words(line["reason"])[0] for line in table("Reasons")} == reasons


@pytest.mark.parametrize(
    "name", sorted({name for line in ALL for key in ("lives in", "written by") for name in words(line.get(key, ""))})
)
def test_what_the_page_names_exists(name: str) -> None:
    assert (REPOSITORY / name).is_file() if "/" in name else resolve(name) is not None


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(test_\w+\.py(?:::\w+)?)`", PAGE.read_text()))))
def test_every_test_that_the_page_names_exists(named: str) -> None:
    assert is_test(named)
