"""Refuses a command line that lacks words, and names all missing words at once, with an example."""

from typing import Any

import typer
from typer.core import TyperCommand

from . import flag_help
from .core.errors import Finding, UsageError


class Command(TyperCommand):
    """A command that says everything that a command line lacks, where typer would say the first only."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns the parameters, the flags among them without a type."""
        return flag_help.without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the words of a command line as typer does. Raises UsageError where some are missing."""
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            missing = self._missing(ctx, words)
            if not missing:
                raise
            fault: Any = error
            wrong = [Finding(_name(fault.param), fault.message, "See --help")] if fault.message else []
            what = f"missing: {', '.join(missing)}"
            raise UsageError([*wrong, Finding(ctx.command_path, what, str(self.epilog))]) from None

    def _missing(self, ctx: Any, words: list[str]) -> list[str]:
        """Returns the required parameters without a value, each with its help."""
        given, _, _ = self.make_parser(ctx).parse_args(args=words)
        lacking: list[Any] = [each for each in self.params if each.required and not given.get(str(each.name))]
        return [f"{_name(each)} ({each.help.rstrip('.')})" for each in lacking]


def _name(parameter: Any) -> str:
    """Returns a parameter's name as the help shows it, such as --root or CAMPAIGN."""
    is_argument = parameter.param_type_name == "argument"
    return str((parameter.metavar or parameter.name.upper()) if is_argument else parameter.opts[0])
