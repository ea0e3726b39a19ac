"""A terminal for tests: a pseudo-terminal in which a program runs, and the screen that a user would see.

The screen knows what pytest and Track A write: text, colours, moves of the cursor, deletions, and scroll regions.
"""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

SEQUENCE = re.compile(
    r"\x1b(?:\[([?0-9;]*)([A-Za-z])|\]([^\x07\x1b]*)(?:\x07|\x1b\\)|([78DMc=>]))|([^\x1b])", re.DOTALL
)
CTRL_C = b"\x03"


class Screen:
    """What a terminal of `columns` and `lines` shows, and the lines that have left it at the top, the oldest first."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.rows = [""] * lines
        self.history: list[str] = []
        self.x = self.y = 0
        self.top, self.bottom = 0, lines - 1
        self.saved = (0, 0)
        self.rest = ""

    def feed(self, text: str) -> None:
        """Takes what a program writes; the rest of a sequence may come with the next call."""
        self.rest += text
        end = 0
        for match in SEQUENCE.finditer(self.rest):
            if match.start() != end:
                break  # a sequence that has not come whole
            parameters, command, _, escape, character = match.groups()
            if command:
                self._control(command, [int(word) if word.isdigit() else 0 for word in (parameters or "0").split(";")])
            elif escape:
                self._escape(escape)
            elif character:
                self._put(character)
            end = match.end()
        self.rest = self.rest[end:]

    def text(self) -> list[str]:
        """Returns all lines, from the first that was written to the last one with text."""
        shown = [row.rstrip() for row in [*self.history, *self.rows]]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def resize(self, columns: int, lines: int) -> None:
        """Gives the screen another size; as in most terminals, no scroll region is left."""
        self.rows = [*self.rows[:lines], *[""] * (lines - len(self.rows))]
        self.columns, self.lines, self.top, self.bottom = columns, lines, 0, lines - 1
        self.y = min(self.y, lines - 1)

    def _control(self, command: str, numbers: list[int]) -> None:
        number = max(1, numbers[0])
        if command == "H":
            self.y, self.x = number - 1, max(1, [*numbers, 1][1]) - 1
        elif command == "r":
            last = numbers[1] if len(numbers) > 1 else 0
            self.top, self.bottom, self.y, self.x = number - 1, (last or self.lines) - 1, 0, 0
        elif command == "A":
            self.y = max(self.top if self.y >= self.top else 0, self.y - number)
        elif command == "K":
            self.rows[self.y] = "" if numbers[0] == 2 else self.rows[self.y][: self.x]
        elif command == "J":
            self.rows[self.y] = self.rows[self.y][: self.x]
            self.rows[self.y + 1 :] = [""] * (self.lines - self.y - 1)
        else:
            assert command in "mhl", command

    def _escape(self, escape: str) -> None:
        if escape == "7":
            self.saved = (self.x, self.y)
        elif escape == "8":
            self.x, self.y = self.saved
        elif escape == "D":
            self._down()

    def _put(self, character: str) -> None:
        if character == "\n":
            self._down()
        elif character == "\r":
            self.x = 0
        elif character == "\b":
            self.x = max(0, self.x - 1)
        elif character.isprintable():
            if self.x >= self.columns:
                self.x = 0
                self._down()
            row = self.rows[self.y].ljust(self.x)
            self.rows[self.y] = row[: self.x] + character + row[self.x + 1 :]
            self.x += 1

    def _down(self) -> None:
        if self.y != self.bottom:
            self.y = min(self.y + 1, self.lines - 1)
            return
        gone = self.rows.pop(self.top)
        if self.top == 0:
            self.history.append(gone)
        self.rows.insert(self.bottom, "")


class Terminal:
    """A program on a terminal of its own.

    Attributes:
        process: the program
        screen: what its terminal shows
        written: all that the program wrote
        moments: every text of the screen, one after the other
    """

    def __init__(self, process: subprocess.Popen[bytes], controller: int, screen: Screen) -> None:
        self.process, self.controller, self.screen = process, controller, screen
        self.written = b""
        self.moments: list[str] = []

    def until(self, condition: Callable[[str], bool]) -> str:
        """Returns the first text of the screen that meets the condition; fails if the program ends before."""
        while True:
            for text in self._read():
                if condition(text):
                    return text
            assert self.process.poll() is None, "\n".join(self.screen.text())

    def end(self) -> list[str]:
        """Returns all lines of the terminal once the program has ended."""
        while self.process.poll() is None:
            self._read()
        while self._read():
            pass
        return self.screen.text()

    def send(self, keys: bytes) -> None:
        os.write(self.controller, keys)

    def _read(self) -> list[str]:
        """Takes what has been written within a moment, and returns the text of the screen after it."""
        if not select.select([self.controller], [], [], 0.1)[0]:
            return []
        try:
            chunk = os.read(self.controller, 65536)
        except OSError:  # nobody has the terminal open any more
            return []
        if not chunk:
            return []
        self.written += chunk
        self.screen.feed(chunk.decode(errors="replace"))
        self.moments.append("\n".join(self.screen.rows))
        return self.moments[-1:]


@contextlib.contextmanager
def opened(
    command: Sequence[str], cwd: Path, environ: Mapping[str, str], columns: int = 100, lines: int = 30
) -> Iterator[Terminal]:
    """Runs a command on a terminal of its own, in the foreground, while this block lasts."""
    controller, terminal = pty.openpty()
    set_size(controller, columns, lines)

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**environ, "TERM": "xterm-256color"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(terminal)
    try:
        yield Terminal(process, controller, Screen(columns, lines))
    finally:
        process.kill()
        process.wait()
        os.close(controller)


def set_size(descriptor: int, columns: int, lines: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
