"""Draws a `LiveState` as a table for a terminal.

rich would draw it too, and takes fifty times as long: 14 ms of a core for eight workers, where a draw a second may cost
5 ms in all.
"""

from collections.abc import Iterator

from .live_state import LiveState
from .live_words import COLUMNS, cells, headline, waiting_lines

REVERSE, BOLD, DIM, YELLOW, PLAIN = "\x1b[7m", "\x1b[1m", "\x1b[2m", "\x1b[33m", "\x1b[0m"
GAP = "  "
ROW = COLUMNS.index("row")
LEAST_ROW = 16  # columns of a row's name, for which the columns that say less are left out
SPARE = ("worker", "elapsed", "device", "succeeded")  # those, the first to go first
WAITING_LINES = 2  # that are shown in any case


class LiveTable:
    """Makes the lines of a table. While a phase lasts its columns only grow, so that the table stands still."""

    def __init__(self, colour: bool) -> None:
        self.colour, self.phase = colour, ""
        self.widths = [len(column) for column in COLUMNS]

    def lines(self, state: LiveState, width: int, height: int) -> list[str]:
        """Returns at most `height` lines of at most `width` columns: the campaign, its workers, what waits."""
        head = [self._styled(REVERSE, _fitting(headline(state), width))]
        workers = list(self._workers(state, width)) if state.busy or state.idle else []
        waiting = [self._styled(YELLOW, _fitting(f"waiting: {line}", width)) for line in waiting_lines(state)]
        room = max(height - len(head) - min(len(waiting), WAITING_LINES), 1)
        if len(workers) > room:
            left_out = f"and {len(workers) - room + 1} more: the terminal is too low for them"
            workers = [*workers[: room - 1], _fitting(left_out, width)]
        return [*head, *workers, *waiting][:height]

    def _workers(self, state: LiveState, width: int) -> Iterator[str]:
        """Yields the head of the table and a line for each worker or GPU."""
        busy = [cells(each) for each in state.busy]
        idle = [(name, "", "idle", "", "", "", "") for name in state.idle]
        if state.phase != self.phase:
            self.phase, self.widths = state.phase, [len(column) for column in COLUMNS]
        for line in (*busy, *idle):
            self.widths = [max(width, len(cell)) for width, cell in zip(self.widths, line, strict=True)]
        shown = self._columns(width)
        for style, line in [(BOLD, COLUMNS), *(("", line) for line in busy), *((DIM, line) for line in idle)]:
            yield self._styled(style, _fitting(GAP.join(_cell(line[i], size) for i, size in shown).rstrip(), width))

    def _columns(self, width: int) -> list[tuple[int, int]]:
        """Returns the index and the width of each column that fits; the name of the row gives way first."""
        shown = dict(enumerate(self.widths))
        for spare in (None, *SPARE):
            if spare:
                del shown[COLUMNS.index(spare)]
            others = sum(len(GAP) + size for index, size in shown.items() if index != ROW)
            if width - others >= min(LEAST_ROW, self.widths[ROW]):
                break
        return list((shown | {ROW: max(1, min(self.widths[ROW], width - others))}).items())

    def _styled(self, style: str, text: str) -> str:
        return f"{style}{text}{PLAIN}" if self.colour and style else text


def _cell(text: str, width: int) -> str:
    return _fitting(text, width).ljust(width)


def _fitting(text: str, width: int) -> str:
    """Returns `text` in ASCII, of which every character takes one column, and cut to `width` columns."""
    plain = text.encode("ascii", "replace").decode()
    return plain if len(plain) <= width else f"{plain[: max(0, width - 3)]}..."[:width]
