"""A guard of the terminal: a small shell beside a program that keeps lines of its terminal.

A program that is killed cannot give the lines back itself, and its terminal would scroll in a part of the screen until
somebody runs `reset`. The shell waits at a pipe whose other end the program alone has.

Guarantees: the shell writes nothing unless the program ends without `dismiss`, and ends with the program in any case;
a signal from the keyboard does not reach it. Where it cannot be started, or is killed too, all else is as without it.
"""

import contextlib
import os
import subprocess

SHELL = "/bin/sh"
# A line in the pipe says that all is well; the end of the pipe without one says that the program has been killed.
SCRIPT = 'read -r _ || printf %s "$0"'


class TerminalGuard:
    """A shell that writes `remedy` to the terminal `stream`, a descriptor, if this process is killed."""

    def __init__(self, stream: int, remedy: str) -> None:
        self._pipe: int | None = None
        self._shell: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):
            self._start(stream, remedy)

    def _start(self, stream: int, remedy: str) -> None:
        ours, self._pipe = os.pipe()
        try:
            self._shell = subprocess.Popen(
                [SHELL, "-c", SCRIPT, remedy],
                stdin=ours,
                stdout=stream,
                stderr=subprocess.DEVNULL,
                env={},  # without the marks by which the processes of a dead session are ended
                start_new_session=True,
            )
        finally:
            os.close(ours)

    def dismiss(self) -> None:
        """Ends the shell, which writes nothing."""
        if self._pipe is None:
            return
        with contextlib.suppress(OSError):  # the shell has been killed
            os.write(self._pipe, b"\n")
        os.close(self._pipe)
        self._pipe = None
        if self._shell is not None:
            self._shell.wait()
