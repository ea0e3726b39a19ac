"""The signals that ask this process to end: Ctrl-C, TERM, and HUP, which the kernel sends when a terminal is closed.

Guarantees: the first of them interrupts this process like Ctrl-C, so that its rows are closed; what follows while the
process ends changes nothing, so that no second Ctrl-C leaves a row open or prints a traceback; a terminal that is gone
raises no error where this process prints.
"""

import atexit
import contextlib
import os
import select
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDING_SECS = 60.0  # longer than a session takes to close its rows; a signal after that interrupts once more
EXIT_CODE = 128 + signal.SIGINT  # of a `tracka` command that one of them has ended
_TERMINALS = (4, 5, *range(136, 144))  # the kernel's major numbers of consoles, /dev/tty and pseudo terminals
_HUNG_UP = select.POLLHUP | select.POLLERR


class _Interruption:
    """The handler of the signals. `last` is when it last interrupted this process, by the monotonic clock."""

    def __init__(self) -> None:
        self.last: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            let_go_of_closed_terminals()
        if self.last is None:
            atexit.register(_ignore_all)  # or the interpreter, as it ends, would let a signal change the exit code
        if self.last is None or time.monotonic() - self.last > ENDING_SECS:
            self.last = time.monotonic()
            raise KeyboardInterrupt


def _ignore_all() -> None:
    for number in ALL:
        signal.signal(number, signal.SIG_IGN)


def interrupt_once() -> None:
    """Makes the first of the signals raise KeyboardInterrupt, and the following ones do nothing while that is handled.

    A signal that this process was told to ignore, as by nohup or in a shell's background, stays ignored, except TERM.
    """
    handler = _Interruption()
    for number in ALL:
        previous = signal.getsignal(number)
        is_ignored = previous == signal.SIG_IGN and number != signal.SIGTERM
        if not is_ignored and not isinstance(previous, _Interruption):
            signal.signal(number, handler)


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
