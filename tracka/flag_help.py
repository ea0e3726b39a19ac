"""Shows flags in the help as they are written, where typer would add the type of a value that no flag takes."""

from typing import Any

from typer.core import TyperGroup


class Group(TyperGroup):
    """The command `tracka` or a group of its commands, whose help shows flags without a type."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns the parameters, the flags among them without a type."""
        return without_types(super().get_params(ctx))


def without_types(parameters: list[Any]) -> list[Any]:
    """Returns the parameters of a command, the flags among them without a type in the help."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
