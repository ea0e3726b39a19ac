"""docs/commands.md: every command with its arguments and options, from the command line itself."""

import argparse
import re
from collections.abc import Iterator
from typing import Any

import typer

from documentation.markdown import MADE, code, contracts, sentence, table
from tracka import cli, plugin
from tracka.install import setup

GATES = "pytest acceptance"
IN_A_CHECKOUT = "must be given in a checkout; elsewhere a folder of the environment"
INTRODUCTION = """
`tracka COMMAND --help` says the same on a terminal. `python -m tracka` is the same command as `tracka`. The commands
are in the order of the alphabet; [exit-codes.md](exit-codes.md) says what their exit codes mean, and
[contracts.md](contracts.md#commands) which test holds each of them.
"""
GATES_TEXT = """
Runs the five gates of a campaign and gives its verdict. All options of pytest hold too: `-n 8` runs eight rows at a
time, `-m phase4` one phase, `--lf` what failed before, `--junitxml=FILE` writes a report.
"""


def page() -> str:
    """Returns the page."""
    named = dict(_commands(typer.main.get_command(cli.app)))
    exits = {code_words(line["command"]): line["exit codes"] for line in contracts("Commands")}
    parts = [_section(name, command, exits.get(name, "")) for name, command in sorted(named.items())]
    return f"# Commands\n\n{MADE.format(source='the command line')}{INTRODUCTION}\n{_gates()}\n" + "\n".join(parts)


def code_words(cell: str) -> str:
    """Returns the first words in code of a cell."""
    return str(re.findall(r"`([^`]+)`", cell)[0])


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        elif not command.hidden:
            yield f"{before}{name}", command


def _section(name: str, command: Any, exits: str) -> str:
    params = _setup_params() if name == "setup" else [_param(each) for each in command.params]
    arguments = [each for each in params if not each[0].startswith("-")]
    options = [each for each in params if each[0].startswith("-")]
    words = [argument if needed else f"[{argument}]" for argument, needed, _ in arguments]
    usage = " ".join(["tracka", name, *words, *(["[OPTIONS]"] if options else [])])
    parts = [f"## tracka {name}\n", f"{' '.join((command.help or '').split())}\n", f"```text\n{usage}\n```\n"]
    if command.epilog:
        parts.append(f"Example:\n\n```text\n{command.epilog.strip().removeprefix('Example: ')}\n```\n")
    if params:
        lines = ((code(flag), sentence(help_text), default) for flag, default, help_text in [*arguments, *options])
        parts.append(table(("argument or option", "what it says", "default"), lines))
    if exits:
        parts.append(f"Exit codes: {exits}.\n")
    return "\n".join(parts)


def _param(param: Any) -> tuple[str, str, str]:
    """Returns an option or an argument as it is written, its default, and its help."""
    if not param.opts[0].startswith("-"):
        return (param.metavar or param.name).upper(), "must be given" if param.required else "", param.help or ""
    flag = f"{param.opts[0]} / {param.secondary_opts[0]}" if param.secondary_opts else param.opts[0]
    return flag, _default(param.required, param.default), param.help or ""


def _setup_params() -> list[tuple[str, str, str]]:
    actions = [each for each in setup.parser()._actions if not isinstance(each, argparse._HelpAction)]
    defaults = [IN_A_CHECKOUT if each.required else _default(False, each.default) for each in actions]
    named = zip(actions, defaults, strict=True)
    return [(each.option_strings[-1], default, each.help or "") for each, default in named]


def _default(required: bool, default: object) -> str:
    if required:
        return "must be given"
    return "" if default in (None, False, "", ()) else code(default)


class _Options:
    """Notes what a pytest plug-in adds to pytest's command line."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def getgroup(self, _: str) -> "_Options":
        return self

    def addoption(self, *names: str, **words: Any) -> None:
        text = re.sub(r" \(default: %\(default\)s\)", "; by default TRACKA_OWNER, else the user", words.get("help", ""))
        self.found.append((names[0], text))

    def addini(self, *_: Any, **__: Any) -> None:
        """Takes no note: a setting of pytest.ini is no option."""


def _gates() -> str:
    options = _Options()
    plugin.pytest_addoption(options)  # type: ignore[arg-type]
    lines = ((code(name), sentence(text)) for name, text in options.found)
    return f"## {GATES}\n{GATES_TEXT}\n{table(('option', 'what it says'), lines)}"
