"""The process that stands by: python -m tracka.engines.resident.service SOCKET ALIVE, two descriptors.

It plays one evaluation after the other, each for a process `python -m tracka.engines.resident` that hands over its
flags and its standard files, and keeps imports, environments and the policy in between.

Guarantees: it ends, with all that it started, when the session has ended, by whatever death; when it has been idle for
IDLE_SECS; when whoever asked is gone; and after an evaluation that failed, so nothing broken is kept.
"""

import contextlib
import fcntl
import gc
import json
import os
import select
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from ...execution import entry, leftover
from ...execution.standby import FILES, MESSAGE_BYTES, TAKEN
from .evaluation import Kept, Stages, run

IDLE_SECS = 20.0  # longer than the harness takes from one row to the next


def main(listening: int, alive: int) -> None:
    if os.fork():
        os._exit(0)  # the row that started us ends before we do
    os.setsid()
    entry.prepare()
    _in_background(_end_with_session, alive)
    voices = Voices()
    kept = Kept(lasting=True, output=voices.write)
    with socket.socket(fileno=listening) as asked:
        os.register_at_fork(after_in_child=asked.close)  # or somebody might still be answered when we have ended
        asked.settimeout(IDLE_SECS)
        with contextlib.suppress(TimeoutError):
            while _serve(asked.accept()[0], kept, voices) == 0:
                _free()
    _leave(0)


class Voices:
    """What environment processes print, passed on to stderr as it is at that moment: a row's files end with it."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self.passing = threading.Lock()
        _in_background(self._listen)

    def _listen(self) -> None:
        while True:
            select.select([self.read], [], [])
            self.pass_on()

    def pass_on(self) -> None:
        """All that has been said until now. MuJoCo's warnings decide whether a row passes: none may come too late."""
        with self.passing:
            while select.select([self.read], [], [], 0)[0]:
                text = os.read(self.read, 1 << 16)
                with contextlib.suppress(OSError):
                    os.write(2, text)


def _in_background(function: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()


def _end_with_session(alive: int) -> None:
    """The session holds this file's lock as long as it lives."""
    fcntl.flock(alive, fcntl.LOCK_SH)
    _leave(0)


def _leave(code: int) -> NoReturn:
    """Ends this process and all that it or a policy has started."""
    leftover.end(leftover.STANDS_BY, os.environ[leftover.STANDS_BY])
    os._exit(code)


def _serve(connection: socket.socket, kept: Kept, voices: Voices) -> int:
    """Plays what is asked for and tells the exit code. 0 too where nobody asks anything, 1 where it cannot be done."""
    with connection:
        message, files, flags, _ = socket.recv_fds(connection, MESSAGE_BYTES, FILES)
        if not message:
            return 0
        if flags & socket.MSG_TRUNC or not _whole(kept):
            return 1  # whoever asked has not been told that it is taken, and plays by itself
        connection.send(TAKEN)
        answered = threading.Event()
        _in_background(_end_with, connection.dup(), answered)
        with _printing_to(files):
            code = _play(json.loads(message), kept)
            voices.pass_on()
        answered.set()
        connection.send(str(code).encode())
    return code


def _whole(kept: Kept) -> bool:
    """Whether all environment processes live: one may have been killed while nobody played."""
    return kept.crew is None or all(process.is_alive() for process in kept.crew.processes)


def _end_with(connection: socket.socket, answered: threading.Event) -> None:
    """Ends this process where the other one dies before it is answered."""
    with connection, contextlib.suppress(OSError):
        connection.recv(1)
    if not answered.is_set():
        _leave(1)


@contextlib.contextmanager
def _printing_to(files: Sequence[int]) -> Iterator[None]:
    """stdout and stderr are those of whoever asked."""
    before = [os.dup(1), os.dup(2)]
    for number, file in enumerate(files, start=1):
        os.dup2(file, number)
        os.close(file)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, file in enumerate(before, start=1):
            os.dup2(file, number)
            os.close(file)


def _play(flags: Sequence[str], kept: Kept) -> int:
    """One evaluation; its exit code and last words as the interpreter would have them."""
    sys.argv = ["tracka.engines.resident", *flags]
    try:
        run(kept, Stages())
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _free() -> None:
    """Leaves the device what the next evaluation does not need."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
