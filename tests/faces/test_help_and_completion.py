"""What a newcomer sees first: the help of each command with an example that it takes, and completion at the shell."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import campaigns
import pytest
import typer
from campaigns import REPOSITORY, Made

from tracka import __version__, cli, command_help
from tracka.core.errors import UsageError
from tracka.install import setup

ROOT: Any = typer.main.get_command(cli.app)
PROGRAM = Path(sys.executable).with_name("tracka")


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each command with its name, and each group."""
    for name, command in group.commands.items():
        yield f"{before}{name}", command
        yield from commands(command, f"{before}{name} ") if hasattr(command, "commands") else ()


COMMANDS = dict(commands(ROOT))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_ends_with_an_example_that_the_command_takes(made: Made, name: str) -> None:
    shown = " ".join(made.call(*name.split(), "--help").stdout.split())
    example = shown.rpartition("Example: ")[2].strip()
    assert example == command_help.COMMANDS[name][1]
    program, *words = example.split()
    assert program == "tracka" and words[: len(name.split())] == name.split()
    if name == "setup":
        setup.parser().parse_args(words[1:])
        return
    group, context = ROOT, None
    while words:  # makes each command's context, which refuses what the command does not take, and runs nothing
        command, (word, *words) = group.commands[words[0]], words
        context = command.make_context(word, list(words), parent=context)
        if not hasattr(command, "commands"):
            return
        group = command


def test_the_help_has_no_words_that_rich_would_take_for_markup_and_leave_out() -> None:
    helps = {
        f"{name} {parameter.name}": text
        for name, command in [("", ROOT), *COMMANDS.items()]
        for parameter in command.params
        if (text := getattr(parameter, "help", None))
    }
    assert len(helps) > 100
    assert {name: text for name, text in helps.items() if re.search(r"\[/?[a-z]", text)} == {}


def test_every_help_begins_with_a_capital_letter_and_not_with_a_value_in_small_letters() -> None:
    helps = {
        f"{name} {parameter.name}": parameter.help
        for name, command in [("", ROOT), *COMMANDS.items()]
        for parameter in command.params
        if getattr(parameter, "help", None)
    }
    assert {name: text for name, text in helps.items() if not re.match(r"[A-Z0-9]", text)} == {}


@pytest.mark.parametrize("words", [(), ("init",), ("baseline",), ("baseline", "show")])
def test_a_flag_is_shown_without_the_type_of_a_value(made: Made, words: tuple[str, ...]) -> None:
    shown = made.call(*words, "--help").stdout
    assert "--help" in shown and "bool" not in shown


def test_the_version_is_printed(made: Made) -> None:
    assert made.call("--version").stdout == f"tracka {__version__}\n"


def test_a_command_that_does_not_take_its_example_would_be_found(made: Made) -> None:
    with pytest.raises(Exception, match="No such option"):
        COMMANDS["why"].make_context("why", ["run", "--no-such-option"])


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_of_a_command_is_a_sentence_in_plain_words(name: str) -> None:
    first = (COMMANDS[name].help or "").split("\n")[0]
    assert re.fullmatch(r"[A-Z].*\.", first), first
    assert not {"row hash", "handoff", "lease", "identity"} & set(re.findall("row hash|handoff|lease|identity", first))


def test_the_commands_stand_in_groups_in_the_order_of_what_one_does(made: Made) -> None:
    shown = made.call("--help").stdout
    panels = (command_help.PREPARE, command_help.RUN, command_help.JUDGE, command_help.COMPARE, command_help.SHOW)
    places = [shown.index(f"─ {panel} ─") for panel in panels]
    assert places == sorted(places)
    assert shown.index(" doctor ") < shown.index(" init ") < shown.index(" validate ") < shown.index(" verify ")


# a command line that lacks words


NEEDS = {name: needed for name, each in COMMANDS.items() if (needed := [p for p in each.params if p.required])}


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_all_missing_words_of_a_command_are_named_at_once_with_an_example(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tracka", *name.split()])
    with pytest.raises(UsageError) as refused:
        ROOT.main(name.split(), prog_name="tracka")
    (finding,) = refused.value.findings
    assert finding.where == f"tracka {name}" and finding.what.startswith("missing: ")
    for parameter in NEEDS[name]:
        shown = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.metavar or parameter.name.upper()
        assert f"{shown} ({parameter.help.rstrip('.')})" in finding.what
        assert len(shown) > 2 or name == "compare"
    assert finding.remedy == f"Example: {command_help.COMMANDS[name][1]}"


def test_a_wrong_word_and_missing_ones_are_told_together(made: Made) -> None:
    ended = made.call("compare", "tasks/a", "--confidence", "high")
    wrong, missing = ended.stderr.splitlines()
    assert ended.returncode == 2
    assert wrong.startswith("error: --confidence: ") and "tracka compare: missing: B (The candidate" in missing


@pytest.mark.parametrize(
    "words",
    [("report",), ("bundle",), ("why", "x", "--root"), ("validate", "--phase", "all", "--root"), ("compare", ".")],
)
def test_a_mistyped_folder_of_a_campaign_is_refused_with_the_close_match(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "my-campaign" / "configs").mkdir(parents=True)
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tracka", *words, "./my-campain"]
    ended = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert ended.returncode == 2 and "Did you mean my-campaign? " in ended.stderr, ended.stderr


# completion


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two campaigns below tasks/, one with a tier and one that is broken, and runs."""
    folder = tmp_path_factory.mktemp("place")
    made = campaigns.make(folder / "tasks" / "first", settings=f"{campaigns.SETTINGS}\n[tiers.nightly]\nepisodes = 1\n")
    (made.layout.runs / "baseline_b1_e2").mkdir(parents=True)
    (folder / "tasks" / "second" / "configs").mkdir(parents=True)
    (folder / "tasks" / "second" / "configs" / "campaign.toml").write_text("broken = ")
    return folder


def completed(place: Path, line: str, shell: str = "bash") -> list[str]:
    """Returns what a shell is told that could stand at the end of `line`, by the protocol of its completion."""
    words = line.split(" ")
    variables = {
        "_TRACKA_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": words[-1],
    }
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    code = "import sys; sys.argv = ['tracka']; from tracka.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", code], cwd=place, env=environ, capture_output=True, text=True)
    assert ended.stderr == ""
    return ended.stdout.split() if shell == "bash" else re.findall(r"[\w./,-]+", ended.stdout)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("tracka rep", ["report", "replay"]),
        ("tracka report ", ["tasks/first", "tasks/second"]),
        ("tracka validate --root tasks/f", ["tasks/first"]),
        ("tracka validate --phase phase", ["phase1", "phase2", "phase3", "phase4", "phase5"]),
        ("tracka validate --root tasks/first --tier ", ["nightly"]),
        ("tracka why --root tasks/first base", ["baseline_b1_e2"]),
        ("tracka why ", ["tasks/first/artifacts/runs/baseline_b1_e2"]),
        ("tracka replay --root tasks/first base", ["baseline_b1_e2"]),
        ("tracka run --artifacts-root tasks/first/artifacts/runs --run-id base", ["baseline_b1_e2"]),
        ("tracka sweep --matrix tasks/first/configs/eval_matrix.csv --rows x,base", ["x,baseline_b1_e2"]),
        ("tracka init --preset smol", ["smolvla"]),
        ("tracka validate --root tasks/second --tier ", []),  # its campaign.toml is broken
        ("tracka why --root tasks/second ", []),  # it has no matrix
    ],
)
def test_a_shell_completes_what_is_there(place: Path, line: str, told: list[str]) -> None:
    assert sorted(completed(place, line)) == sorted(told)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_the_same(place: Path, shell: str) -> None:
    assert "tasks/first" in completed(place, "tracka report ", shell)


def test_completing_imports_nothing_that_takes_long(place: Path) -> None:
    code = "import sys; sys.argv = ['tracka']; from tracka import cli, completion; completion.campaign('')"
    code += "; print(sorted(name for name in sys.modules if name.startswith(('tracka.runs', 'tracka.gates', "
    code += "'tracka.preflight', 'tracka.reporting', 'jinja2', 'numpy', 'jsonschema', 'torch'))))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.stdout == "[]\n", ended.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_what_is_installed_for_bash_completes_in_bash(place: Path, tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}", "SHELL": "/bin/bash"}
    script = """
tracka --install-completion bash >/dev/null
source ~/.bashrc
COMP_WORDS=(tracka report tasks/f) COMP_CWORD=2
$(complete -p tracka | sed 's/.*-F \\([^ ]*\\).*/\\1/') tracka
echo "${COMPREPLY[@]}"
"""
    environ["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"
    ended = subprocess.run(["bash", "-c", script], cwd=place, env=environ, capture_output=True, text=True)
    assert ended.stdout.strip() == "tasks/first", ended.stderr
