"""Finds the line of a child's log that names why the child failed.

In this order:

1. The errors that Python reports: the last line of each traceback, and each warning whose category is an error, such as
   GLFW's. The one that came first is the cause. Where the last one is another, it stands beside the cause: in a chain
   of tracebacks ("During handling of", "the direct cause of") the first says what went wrong and the last what the
   program made of it, and after an error that was survived the last is the one that ended the program. "Exception
   ignored in" does not count, with all that is printed below it: after any error robosuite's EGL context fails once
   more as the interpreter ends.
2. The first line that looks like an error: an exception without its traceback, `error:`, `ERROR`, `fatal`, a crash.
3. The last line with words in it.

Standard library only, since set-up reads logs too. Guarantees: the text is one short plain line without the secrets of
our environment; the note of a log of bounded size that bytes are left out is never taken for a line of the child.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from . import escaping, files, reading

MOST = 300  # characters of one error
WHOLE = 1 << 24  # bytes; a supervised child's log is smaller
OUT_OF_MEMORY = 9  # the signal of the kernel's out-of-memory killer
_HEADER = re.compile(r".*\bTraceback \(most recent call last\):$")
_RAISED = re.compile(r"[A-Za-z_][\w.<>]*(?:: .*|:?$)")  # an exception's line below its traceback: type and message
_WARNED = re.compile(r"\S+:\d+: ((?:\w+\.)*\w*(?:Error|Exception): .*)")
_NOTE = re.compile(r"\[tracka: \d+ bytes are left out here.*")
# "Exception ignored in: ..." (a progress bar may stand before it on the line), the traceback below it (indented lines,
# then the exception's own line and what is indented below that), and the tracebacks that are chained to it.
_BLOCK = r"Traceback .*\n(?:[ \t^~].*\n)*(?:\S.*(?:\n|$)(?:[ \t].*(?:\n|$))*)?"
_CHAINED = rf"\n(?:During handling|The above exception) .*\n\n{_BLOCK}"
_IGNORED = re.compile(rf"^.*\bException ignored (?:in|on|while)\b.*(?:\n|$)(?:{_BLOCK}(?:{_CHAINED})*)?", re.MULTILINE)
_LOOKS_LIKE_AN_ERROR = re.compile(
    r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt)(?::|$)|(?i:\berror:|\bfatal\b|out of memory)|\bERROR\b|^E: "
    r"|Segmentation fault|Bus error|Illegal instruction|core dumped|^Aborted|^Killed|terminate called|CUDA error"
)


def without_ignored(text: str) -> str:
    """Returns `text` on plain lines, without what Python says of exceptions that it ignored, as in destructors."""
    return _IGNORED.sub("", escaping.plain(re.sub(r"\r\n?", "\n", text)))


def error(text: str) -> str | None:
    """Returns the error that a log names as the cause, with the last one where that is another; None without one."""
    lines = [line for line in without_ignored(text).split("\n") if not _NOTE.match(line)]
    raised = list(_errors(lines))
    if raised:
        return _line(raised[0] if raised[-1] == raised[0] else f"{raised[0]}; then {raised[-1]}", 2 * MOST + 7)
    return next(
        (_line(_message(lines, at)) for at, line in enumerate(lines) if _LOOKS_LIKE_AN_ERROR.search(line)), None
    )


def cause(text: str) -> str:
    """Returns the error that a log names as the cause, else its last line with words in it."""
    lines = [line for line in without_ignored(text).split("\n") if line.strip() and not _NOTE.match(line)]
    return error(text) or _line((lines or ["nothing was printed"])[-1])


def how_it_ended(code: int, text: str) -> str:
    """Returns how a child with the exit code `code` ended, and the cause that its output names.

    A negative code is a signal, as in subprocess. Only an error is a cause then: a child that is killed says nothing.
    """
    if code >= 0:
        return f"exit code {code}: {cause(text)}"
    killer = ", which the kernel's out-of-memory killer sends" if -code == OUT_OF_MEMORY else ""
    named = error(text)
    return f"ended by signal {-code}{killer}: {named or f'no error was printed, and last: {cause(text)}'}"


def read(*logs: Path) -> str:
    """Returns the text of a child's logs, one after the other; a missing log is empty."""
    return "\n".join(reading.tail(log, WHOLE) for log in logs)


def _errors(lines: list[str]) -> Iterator[str]:
    """Yields the errors that Python reports, in their order: raised ones below their traceback, and warnings."""
    below_header = False
    for at, line in enumerate(lines):
        if _HEADER.match(line):
            below_header = True
        elif below_header and _RAISED.match(line):
            below_header = False
            yield _line(_message(lines, at))
        elif warned := _WARNED.match(line):
            yield _line(warned[1])


def _message(lines: list[str], at: int) -> str:
    """Returns the line `at` of a log, with what is indented below it where the line itself leaves the message open."""
    first, below = lines[at].strip(), []
    for line in lines[at + 1 :]:
        if not (
            line[:1] in (" ", "\t") and (first.endswith((":", "(", "[", "{")) or line.strip().startswith("what():"))
        ):
            break
        below.append(line)
    return " ".join([first, *below])


def _line(text: str, most: int = MOST) -> str:
    return escaping.line(files.redacted(files.without_password(text)), most)
