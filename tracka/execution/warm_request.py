"""Asks a warm worker process to play a row: the side of the row's own program, which does nothing else then.

The module imports no other of Track A, since a row waits for each import of its program.
"""

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence

SOCKET = "TRACKA_STANDBY"  # tells a row's program the socket of the warm worker process
FILES = 2  # stdout and stderr
MESSAGE_BYTES = 1 << 17
TAKEN = b"taken"


def evaluate_on_worker(socket_path: str, flags: Sequence[str]) -> int | None:
    """Returns the exit code of an evaluation with these flags by the warm worker process with the socket `socket_path`.

    Returns None where the process has not taken the evaluation. If the process is killed while it plays, this process
    kills itself.
    """
    with unix_socket() as connection:
        try:
            connection.connect(socket_path)
            socket.send_fds(connection, [json.dumps(list(flags)).encode()], [1, 2])
            if connection.recv(len(TAKEN)) != TAKEN:
                return None
        except OSError:
            return None
        with contextlib.suppress(OSError):
            if code := connection.recv(16):
                return int(code)
    print("error: the warm worker process on this device was killed", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)  # so that the row ends as it would without that process
    return 1


def unix_socket() -> socket.socket:
    """Returns a socket of the kind by which rows and warm worker processes talk, whose messages stay whole."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
