"""What a process asks of Linux by prctl: to end with its parent, and to become the parent of orphans below it."""

import ctypes
import os
import signal

_LIBC = ctypes.CDLL(None)  # loaded here, because a child between fork and exec should load nothing
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
PARENT_DIED = 125  # the exit code of a process whose parent died before the kernel knew to end it


def end_with_parent(parent: int) -> None:
    """Asks the kernel to kill this process when the process `parent` dies, even by KILL and while this one is stopped.

    Ends this process where its parent has died already. The kernel means the thread that started this process.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(PARENT_DIED)


def adopt_orphans() -> None:
    """Asks the kernel to make this process the parent of each process below it whose own parent has died."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)
