"""Keeps the last lines of a terminal for a status that is drawn again and again, while all other output scrolls above.

The terminal itself does the scrolling (DECSTBM, the scroll region of VT100), so that other writers need not know of the
status: pytest, a test's own prints and other processes write as ever.

Guarantees: the terminal has all its lines again when the area is closed, and when its process is killed.
"""

import os
import threading
from collections.abc import Sequence

from .terminal_guard import TerminalGuard

SAVE, RESTORE = "\x1b7", "\x1b8"  # the cursor's place and colour
WHOLE_REGION = "\x1b[r"
CLEAR_BELOW, CLEAR_LINE = "\x1b[J", "\x1b[2K"
GIVE_BACK = SAVE + WHOLE_REGION + RESTORE + CLEAR_BELOW
DOWN = "\x1bD"  # one line, scrolling at the end of the region; the column stays
LEAST_LINES, LEAST_COLUMNS = 12, 40  # a smaller terminal shows no status


def is_terminal(stream: int) -> bool:
    """Returns whether the descriptor is a terminal that understands more than plain text."""
    return os.isatty(stream) and os.environ.get("TERM", "") not in ("", "dumb")


class StatusArea:
    """The last lines of the terminal `stream`, which is a descriptor.

    Attributes:
        stream: the descriptor
        lines: how many lines are kept; the number only grows, so that the text above does not jump
        size: columns and lines of the terminal when they were kept
    """

    def __init__(self, stream: int) -> None:
        self.stream, self.lines, self.size = stream, 0, (0, 0)
        self._closed, self._lock = False, threading.Lock()
        self._guard: TerminalGuard | None = None

    def room(self) -> tuple[int, int]:
        """Returns the columns and lines that a status may have now; none in the background or a small terminal."""
        columns, lines = os.get_terminal_size(self.stream)
        if columns < LEAST_COLUMNS or lines < LEAST_LINES or not self._in_foreground():
            return 0, 0
        return columns - 1, lines // 2

    def _in_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self.stream) == os.getpgrp()
        except OSError:  # not the terminal of this session, as in some containers
            return True

    def show(self, status: Sequence[str]) -> None:
        """Draws the status, whose lines have no more columns than there is room for."""
        with self._lock:
            if not self._closed and status:
                self._guard = self._guard or TerminalGuard(self.stream, GIVE_BACK)
                self._write(self._keep(len(status)) + self._drawn(status))

    def close(self) -> None:
        """Gives the lines back to the terminal, empty. Nothing is drawn afterwards."""
        with self._lock:
            if self.lines and not self._closed:
                self._write(GIVE_BACK)
            self._closed = True
            if self._guard:
                self._guard.dismiss()

    def _keep(self, lines: int) -> str:
        """Returns what makes the terminal keep at least so many lines."""
        size = os.get_terminal_size(self.stream)
        start = ""
        if self.lines and size != self.size:  # the old status may be anywhere below the cursor
            start, self.lines = GIVE_BACK, 0
        more = lines - self.lines
        if more <= 0:
            return start
        self.lines, self.size = lines, size
        region = f"\x1b[1;{size.lines - lines}r"
        return start + DOWN * more + f"\x1b[{more}A" + SAVE + region + RESTORE

    def _drawn(self, status: Sequence[str]) -> str:
        padded = [*status, *[""] * (self.lines - len(status))]
        first = self.size[1] - self.lines + 1
        drawn = "".join(f"\x1b[{first + i};1H{CLEAR_LINE}{line}" for i, line in enumerate(padded))
        return SAVE + drawn + RESTORE

    def _write(self, text: str) -> None:
        rest = memoryview(text.encode())
        while rest:
            rest = rest[os.write(self.stream, rest) :]
