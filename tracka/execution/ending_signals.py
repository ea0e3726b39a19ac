"""The signals that ask this process to end: Ctrl-C, TERM, and HUP, which the kernel sends when a terminal is closed.

Guarantees: the first of them interrupts this process like Ctrl-C, so that its rows are closed; an interrupt that is
lost is raised again, a second later; what follows while the process ends changes nothing, so that no second Ctrl-C
leaves a row open or prints a traceback; a terminal that is gone raises no error where this process prints.

An interrupt is lost where Python raises it in code whose errors it drops, such as a weak reference's callback while a
module is imported, and where a library takes any error for its own.
"""

import atexit
import contextlib
import os
import queue
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDING_SECS = 60.0  # longer than a session takes to close its rows; a signal after that interrupts once more
REMINDER_SECS = 1.0
EXIT_CODE = 128 + signal.SIGINT  # of a `tracka` command that one of them has ended
_TERMINALS = (4, 5, *range(136, 144))  # the kernel's major numbers of consoles, /dev/tty and pseudo terminals
_HUNG_UP = select.POLLHUP | select.POLLERR


class _Interruption:
    """The handler of the signals.

    Attributes:
        last: when it last interrupted this process, by the monotonic clock; None before the first signal
        is_handled: whether the program has caught the interrupt, and ends
    """

    def __init__(self) -> None:
        self.last: float | None = None
        self.is_handled = False
        self._is_reminder = False
        self._first: queue.SimpleQueue[int] = queue.SimpleQueue()  # the one queue that a signal's handler may use

    def __call__(self, number: int, frame: FrameType | None) -> None:
        is_reminder, self._is_reminder = self._is_reminder, False
        if number == signal.SIGHUP:
            let_go_of_closed_terminals()
        if self.last is None:
            atexit.register(_ignore_all)  # or the interpreter, as it ends, would let a signal change the exit code
            self._first.put(number)
        if self.last is None or self._is_lost() or (not is_reminder and time.monotonic() - self.last > ENDING_SECS):
            self.last = time.monotonic()
            raise KeyboardInterrupt

    def _is_lost(self) -> bool:
        """Returns whether the interrupt neither was caught by the program nor is on its way there."""
        error = sys.exception()  # what a `finally`, an `except` or the end of a `with` is handling
        while error is not None and not isinstance(error, KeyboardInterrupt):
            error = error.__context__
        return error is None and not self.is_handled

    def _is_open(self, number: int) -> bool:
        """Returns whether the interrupt is not handled yet, and this handler still the one of the signal."""
        return not self.is_handled and signal.getsignal(number) is self

    def start_reminders(self) -> None:
        """Starts the thread that waits for the first signal; a handler that started it could meet threading's locks.

        Where the system allows no further thread, a lost interrupt stays lost.
        """
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._remind, name="interruption", daemon=True).start()

    def _remind(self) -> None:
        """Sends the first signal to the main thread again, every REMINDER_SECS, until the interrupt is handled."""
        main_thread, number = threading.main_thread().ident, self._first.get()
        assert main_thread is not None
        time.sleep(REMINDER_SECS)
        while self._is_open(number):
            self._is_reminder = True
            signal.pthread_kill(main_thread, number)
            time.sleep(REMINDER_SECS)


def _ignore_all() -> None:
    for number in ALL:
        signal.signal(number, signal.SIG_IGN)


def interrupt_once() -> None:
    """Makes the first of the signals raise KeyboardInterrupt, and those that follow do nothing unless it was lost.

    A signal that this process was told to ignore, as by nohup or in a shell's background, stays ignored, except TERM.
    """
    previous = {number: signal.getsignal(number) for number in ALL}
    if any(isinstance(each, _Interruption) for each in previous.values()):
        return
    handler = _Interruption()
    handler.start_reminders()
    for number in ALL:
        if previous[number] != signal.SIG_IGN or number == signal.SIGTERM:
            signal.signal(number, handler)


def mark_as_handled() -> None:
    """Says that the program has caught the interrupt, if there was one: it is not raised again."""
    for number in ALL:
        handler = signal.getsignal(number)
        if isinstance(handler, _Interruption) and handler.last is not None:
            handler.is_handled = True


def let_go_of_closed_terminals() -> None:
    """Puts /dev/null in the place of each terminal that has been closed, where reading and writing would fail."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in _terminals():
        poller = select.poll()
        poller.register(descriptor, 0)  # an end is always reported
        if any(event & _HUNG_UP for _, event in poller.poll(0)):
            os.dup2(null, descriptor, inheritable=os.get_inheritable(descriptor))
    os.close(null)


def _terminals() -> Iterator[int]:
    """Yields this process's descriptors of terminals."""
    for name in sorted(path.name for path in Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):  # such as the descriptor by which the folder was read
            status = os.fstat(int(name))
            if stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in _TERMINALS:
                yield int(name)
