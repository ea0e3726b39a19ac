"""Shows where a session stands while it runs: as a table on a terminal, as a line a minute elsewhere.

Guarantees: what is shown never reaches the streams that pytest captures, nor a file of the campaign. A failure to show
changes nothing else. Showing takes at most SHARE of a core: the view rests as long as that needs.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from .campaign.campaign import Campaign
from .campaign.matrix import Row
from .core import system_errors
from .reporting import live_state, live_words
from .reporting.live_table import LiveTable
from .runs.session_rows import SessionRows
from .status_area import StatusArea, is_terminal

TABLE_SECS, LINE_SECS = 1.0, 60.0
SHARE = 0.005  # of a core
END_SECS = 5.0  # that the thread gets to end, should a disk hang
CI = ("CI", "BUILD_NUMBER")  # as pytest itself recognises CI

Show = Callable[[live_state.LiveState], None]


@contextlib.contextmanager
def shown(
    campaign: Campaign, session: SessionRows, stream: int, write_line: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Shows the session on the descriptor `stream` while this block lasts, and leaves the terminal as it was.

    `write_line` writes a line where a table cannot be shown; by default it goes to `stream`.
    """
    with contextlib.ExitStack() as stack:
        show, period = _table(stream, stack) if _takes_table(stream) else (_lines(stream, write_line), LINE_SECS)
        watcher = live_state.Watcher(campaign, session)
        stack.enter_context(_repeated(lambda: _show(watcher, show), period))
        yield


def _show(watcher: live_state.Watcher, show: Show) -> None:
    if watcher.session.has_begun:
        show(watcher.look())


def _takes_table(stream: int) -> bool:
    return is_terminal(stream) and not any(os.environ.get(name) for name in CI)


def _table(stream: int, stack: contextlib.ExitStack) -> tuple[Show, float]:
    area, table = StatusArea(stream), LiveTable(colour="NO_COLOR" not in os.environ)
    stack.callback(area.close)

    def show(state: live_state.LiveState) -> None:
        columns, lines = area.room()
        if lines:
            area.show(table.lines(state, columns, lines))

    return show, TABLE_SECS


def _lines(stream: int, write_line: Callable[[str], None] | None) -> Show:
    def show(state: live_state.LiveState) -> None:
        text = f"[{datetime.now():%H:%M:%S}] {live_words.line(state)}"
        if write_line:
            write_line(text)
        else:
            os.write(stream, f"{text}\n".encode())

    return show


@contextlib.contextmanager
def _repeated(step: Callable[[], None], period: float) -> Iterator[None]:
    """Calls `step` every `period` seconds in a thread of its own while this block lasts.

    The thread takes no signal: those that end a session are the main thread's, which may hold them back. Where the
    system starts no thread, nothing is shown.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_repeat, args=(step, period, ended), name="live view", daemon=True)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with contextlib.suppress(OSError), system_errors.as_own_errors():
            thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        yield
    finally:
        ended.set()
        if thread.ident is not None:  # it was started
            thread.join(END_SECS)


def _repeat(step: Callable[[], None], period: float, ended: threading.Event) -> None:
    pause = period
    while not ended.wait(pause):
        start = time.thread_time()
        with contextlib.suppress(Exception):  # a file that changes meanwhile; the next look is a new one
            step()
        pause = max(period, (time.thread_time() - start) / SHARE)


@contextlib.contextmanager
def of_sweep(
    campaign: Campaign, rows: Sequence[Row], max_parallel: int, resume: bool, quiet: bool
) -> Iterator[SessionRows]:
    """Shows a sweep on stderr while this block lasts, unless `quiet` is set or stderr is closed.

    Yields what the sweep is to keep of its rows.
    """
    workers = [f"gw{number}" for number in range(min(max_parallel, len(rows)))]
    session = SessionRows(rows, workers, resume)
    try:
        stream = None if quiet else sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        stream = None
    with shown(campaign, session, stream) if stream is not None else contextlib.nullcontext():
        yield session
