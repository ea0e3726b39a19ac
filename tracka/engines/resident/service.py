"""The warm worker process: python -m tracka.engines.resident.service SOCKET ALIVE, which are two descriptors.

The warm process plays one evaluation after the other, each for a process `python -m tracka.engines.resident` that hands
over its flags and its standard files. Imports, environments and the policy are kept from one evaluation to the next.

Guarantees: the warm process ends, with all processes that it started, when the session has ended, by whatever death,
even while the warm process is stopped (SIGSTOP) or busy, since its guard ends it; when its guard is killed; when it has
been idle for IDLE_SECS; when the process that asked for an evaluation is gone; and after an evaluation that failed, so
that nothing broken is kept.
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

from ...core import held_folder
from ...execution import guard, orphans, process_setup
from ...execution.warm_request import FILES, MESSAGE_BYTES, TAKEN
from .evaluation import EvaluationCache, Stages, run

IDLE_SECS = 20.0  # longer than the harness takes from the end of one row to the start of the next
ENDING_SECS = 1.0  # a warm process has nothing to finish when its session has ended


def main(listening: int, alive: int) -> None:
    """Plays the evaluations that the socket `listening` brings, until one fails or none comes for IDLE_SECS.

    `alive` is the session's folder, which the session keeps locked while it lives.
    """
    if os.fork():
        os._exit(0)  # the row that started this process ends before it does
    os.setsid()
    process_setup.prepare()
    # The thread below cannot end this process while an import holds the interpreter, sometimes for many seconds.
    guard.fork(lambda: held_folder.is_locked(alive), kept=alive, ending_secs=ENDING_SECS, ends_with_guard=True)
    _in_background(_end_with_session, alive)
    forwarder = OutputForwarder()
    cache = EvaluationCache(persistent=True, output=forwarder.write)
    with socket.socket(fileno=listening) as listener:
        # A child that held the socket open would let other processes connect after this one has ended.
        os.register_at_fork(after_in_child=listener.close)
        listener.settimeout(IDLE_SECS)
        with contextlib.suppress(TimeoutError):
            played = 0
            while _serve(listener.accept()[0], cache, forwarder) == 0:
                if cache.evaluations > played:  # not after a mere look whether this process lives: a row may wait
                    _free()
                played = cache.evaluations
    _leave(0)


class OutputForwarder:
    """Passes on what the worker processes print to the stderr that this process has at that moment.

    The worker processes outlive a row's files, so they print into a pipe, whose end is `write`.
    """

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self.passing = threading.Lock()
        _in_background(self._listen)

    def _listen(self) -> None:
        while True:
            select.select([self.read], [], [])
            self.pass_on()

    def pass_on(self) -> None:
        """Writes all that has been printed until now to stderr.

        MuJoCo's warnings decide whether a row passes, so none may arrive after the row has ended.
        """
        with self.passing:
            while select.select([self.read], [], [], 0)[0]:
                text = os.read(self.read, 1 << 16)
                with contextlib.suppress(OSError):
                    os.write(2, text)


def _in_background(function: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()


def _end_with_session(alive: int) -> None:
    """Waits for the lock that the session holds while it lives, then ends this process."""
    fcntl.flock(alive, fcntl.LOCK_SH)
    _leave(0)


def _leave(code: int) -> NoReturn:
    """Ends this process and all processes that it or a policy has started."""
    orphans.end(orphans.STANDS_BY, os.environ[orphans.STANDS_BY])
    os._exit(code)


def _serve(connection: socket.socket, cache: EvaluationCache, forwarder: OutputForwarder) -> int:
    """Plays the evaluation that a connection asks for, sends its exit code there and returns it.

    Returns 0 for a connection that asks for nothing, and 1 where a message is too long or a worker process has died.
    """
    with connection:
        message, files, flags, _ = socket.recv_fds(connection, MESSAGE_BYTES, FILES)
        if not message:
            return 0
        if flags & socket.MSG_TRUNC or not _workers_live(cache):
            return 1  # without the answer TAKEN the process that asked plays the evaluation itself
        connection.send(TAKEN)
        answered = threading.Event()
        _in_background(_end_with, connection.dup(), answered)
        with _printing_to(files):
            code = _play(json.loads(message), cache)
            forwarder.pass_on()
        answered.set()
        connection.send(str(code).encode())
    return code


def _workers_live(cache: EvaluationCache) -> bool:
    """Returns whether all worker processes live: one may have been killed between two evaluations."""
    return cache.pool is None or cache.pool.lives


def _end_with(connection: socket.socket, answered: threading.Event) -> None:
    """Ends this process if the process that asked dies before it is answered."""
    with connection, contextlib.suppress(OSError):
        connection.recv(1)
    if not answered.is_set():
        _leave(1)


@contextlib.contextmanager
def _printing_to(files: Sequence[int]) -> Iterator[None]:
    """Makes stdout and stderr within the block those of the process that asked."""
    saved_files = [os.dup(1), os.dup(2)]
    for number, file in enumerate(files, start=1):
        os.dup2(file, number)
        os.close(file)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, file in enumerate(saved_files, start=1):
            os.dup2(file, number)
            os.close(file)


def _play(flags: Sequence[str], cache: EvaluationCache) -> int:
    """Plays one evaluation and returns its exit code; errors are printed as the interpreter would print them."""
    sys.argv = ["tracka.engines.resident", *flags]
    try:
        run(cache, Stages())
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
    """Frees the memory, of this process and of its GPU, that the next evaluation does not need."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
