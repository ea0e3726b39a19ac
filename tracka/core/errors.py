"""Every error that Track A raises on purpose, in one class tree, each with the exit code that the plan assigns.

    TrackaError                 1   a run or a check failed
    ├── UsageError              2   bad input: arguments, matrix, settings; carries all its findings at once
    │   ├── RunExists           2   the run folder exists already and overwriting was not allowed
    │   └── ChangedRun          2   a passed run was made with inputs that differ from the current ones
    ├── ToolMissing             3   a required program or package is missing
    ├── InstallFailed           4   an installation step ended with an error
    └── Busy                    5   another process holds the row or the GPU

A `Finding` says what is wrong, where, and what the remedy is. The matrix, the settings, preflight and the validator all
report their problems as findings.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong. `where` names the file, and the line, row or key in the file."""

    where: str
    what: str
    remedy: str
    warning: bool = False

    def __str__(self) -> str:
        kind = "warning: " if self.warning else ""
        return f"{kind}{self.where}: {self.what}. {self.remedy}"


def screen(findings: Sequence[Finding], head: str = "error: ", most: int = 20) -> str:
    """Returns findings as an error message shows them: one per line after `head`.

    Shows at most `most`, then a count of the rest.
    """
    more = [f"and {len(findings) - most} more"] if len(findings) > most else []
    return "\n".join(f"{head}{line}" for line in [*map(str, findings[:most]), *more])


def shortened(value: object, most: int = 120) -> str:
    """Returns a value as an error message quotes it: the whole text if it is short, otherwise its beginning."""
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}..."


def joined_names(names: Sequence[str], most: int = 8) -> str:
    """Returns names on one line: all of them if they are few, otherwise the first `most` and a count of the rest."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shortened(name) for name in names[:most]) + more


def without_warnings(findings: Iterable[Finding]) -> list[Finding]:
    """Returns the findings that are not warnings."""
    return [finding for finding in findings if not finding.warning]


class TrackaError(Exception):
    """The root of the error tree. `findings` is never empty."""

    exit_code = 1

    def __init__(self, findings: Finding | Sequence[Finding]) -> None:
        self.findings = (findings,) if isinstance(findings, Finding) else tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


class UsageError(TrackaError):
    """Raised for bad input: arguments, matrix or settings. Carries all its findings at once."""

    exit_code = 2


class RunExists(UsageError):
    """Raised where the run folder exists already and overwriting was not allowed."""

    pass


class ChangedRun(UsageError):
    """Raised where a passed run was made with inputs that differ from the current ones."""

    pass


class ToolMissing(TrackaError):
    """Raised where a required program or package is missing."""

    exit_code = 3


class InstallFailed(TrackaError):
    """Raised where an installation step ended with an error."""

    exit_code = 4


class Busy(TrackaError):
    """Raised where another process holds the row or the GPU."""

    exit_code = 5


def collect_findings[T](findings: list[Finding], step: Callable[[], T]) -> T | None:
    """Returns the result of `step`.

    If `step` raises UsageError, adds the error's findings to `findings` and returns None.
    """
    try:
        return step()
    except UsageError as error:
        findings += error.findings
        return None
