"""Every error that Track A raises on purpose, in one tree, each with the exit code that the plan gives it.

    TrackaError                 1   a run or a check failed
    ├── UsageError              2   bad input: arguments, matrix, settings; carries all its findings at once
    │   ├── RunExists           2   the run folder is taken and overwriting was not allowed
    │   └── ChangedRun          2   a passed run was made with other inputs than today's
    ├── ToolMissing             3   a program or package that must be there is not
    ├── InstallFailed           4   an installation step ended with an error
    └── Busy                    5   another process holds the row or the GPU

A `Finding` says what is wrong, where, and the remedy; the spec, preflight and the validator all speak in findings.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong. `where` names the file, and the line, row or key in it."""

    where: str
    what: str
    remedy: str
    warning: bool = False

    def __str__(self) -> str:
        kind = "warning: " if self.warning else ""
        return f"{kind}{self.where}: {self.what}. {self.remedy}"


def screen(findings: Sequence[Finding], head: str = "error: ", most: int = 20) -> str:
    """Findings as an error shows them: one a line, `head` before each, and no more than a screen of them."""
    more = [f"and {len(findings) - most} more"] if len(findings) > most else []
    return "\n".join(f"{head}{line}" for line in [*map(str, findings[:most]), *more])


def short(value: object, most: int = 120) -> str:
    """A value as an error quotes it: whole if it is short, else its beginning."""
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}..."


def some(names: Sequence[str], most: int = 8) -> str:
    """Names in one line: all of them if they are few."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(short(name) for name in names[:most]) + more


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that are more than warnings."""
    return [finding for finding in findings if not finding.warning]


class TrackaError(Exception):
    """The root of the tree; `findings` is never empty."""

    exit_code = 1

    def __init__(self, findings: Finding | Sequence[Finding]) -> None:
        self.findings = (findings,) if isinstance(findings, Finding) else tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


class UsageError(TrackaError):
    exit_code = 2


class RunExists(UsageError):
    pass


class ChangedRun(UsageError):
    pass


class ToolMissing(TrackaError):
    exit_code = 3


class InstallFailed(TrackaError):
    exit_code = 4


class Busy(TrackaError):
    exit_code = 5


def collected[T](findings: list[Finding], step: Callable[[], T]) -> T | None:
    """The result of `step`; None where it raises UsageError, whose findings are then added to `findings`."""
    try:
        return step()
    except UsageError as error:
        findings += error.findings
        return None
