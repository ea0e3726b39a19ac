"""The process that stands by: python -m tracka.resident.service SOCKET ALIVE, two descriptors.

It plays one evaluation after the other, each for a process `python -m tracka.resident` that hands over its flags and
its standard files, and keeps imports, environments and the policy in between.

Guarantees: it ends when the session has ended, by whatever death, when it has been idle for IDLE_SECS, when whoever
asked is gone, and after an evaluation that failed, so nothing broken is kept.
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
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import entry
from ..standby import FILES, MESSAGE_BYTES, TAKEN
from .evaluation import Kept, Stages, run

IDLE_SECS = 20.0  # longer than the harness takes from one row to the next


def main(listening: int, alive: int) -> None:
    if os.fork():
        os._exit(0)  # the row that started us ends before we do
    os.setsid()
    entry.prepare()
    _in_background(_end_with_session, alive)
    said, output = os.pipe()  # what environment processes print
    _in_background(_pass_on, said)
    kept = Kept(lasting=True, output=output)
    with socket.socket(fileno=listening) as asked:
        asked.settimeout(IDLE_SECS)
        with contextlib.suppress(TimeoutError):
            while _serve(asked.accept()[0], kept, said) == 0:
                _free()


def _in_background(function: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()


def _end_with_session(alive: int) -> None:
    """The session holds this file's lock as long as it lives."""
    fcntl.flock(alive, fcntl.LOCK_SH)
    os._exit(0)


def _pass_on(pipe: int) -> None:
    """To stderr as it is at that moment: a row's files end with the row."""
    while text := os.read(pipe, 1 << 16):
        with contextlib.suppress(OSError):
            os.write(2, text)


def _serve(connection: socket.socket, kept: Kept, said: int) -> int:
    """Plays what is asked for and tells the exit code; 0 too where nobody asks anything."""
    with connection:
        message, files, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, FILES)
        if not message:
            return 0
        connection.send(TAKEN)
        answered = threading.Event()
        _in_background(_end_with, connection.dup(), answered)
        with _printing_to(files):
            code = _play(json.loads(message), kept)
            while select.select([said], [], [], 0)[0]:
                time.sleep(0.01)  # MuJoCo's warnings decide whether a row passes
        answered.set()
        connection.send(str(code).encode())
    return code


def _end_with(connection: socket.socket, answered: threading.Event) -> None:
    """Ends this process where the other one dies before it is answered."""
    with connection, contextlib.suppress(OSError):
        connection.recv(1)
    if not answered.is_set():
        os._exit(1)


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
    """One evaluation; its exit code as the interpreter would have it."""
    sys.argv = ["tracka.resident", *flags]
    try:
        run(kept, Stages())
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _free() -> None:
    """Leaves the device what is not needed until the next evaluation."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
