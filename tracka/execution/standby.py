"""Processes of the resident engine that stand by, one a device, so that a session's rows share imports, environments
and the policy.

Guarantees: a row gets the process of an earlier one only where their keys are the same; a row that does not end well
leaves none; none outlives the session; where none can be had, a row plays by itself.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..core import files, lock
from ..core.errors import Busy
from . import leftover, process

SOCKET = "TRACKA_STANDBY"  # tells a row's program whom to ask
FILES = 2  # stdout and stderr
MESSAGE_BYTES = 1 << 17
TAKEN = b"taken"
PATH_BYTES = 100  # the kernel takes 107 of a socket's
# Of a row's flags, those in which rows may differ that one process plays.
OWN = ("env.task", "env.task_ids", "eval.n_episodes", "seed", "output_dir", "resident.videos")


@contextlib.contextmanager
def session() -> Iterator[None]:
    """While this lasts, rows that this process or its children run may leave processes that stand by."""
    folder = Path(tempfile.mkdtemp(prefix="tracka-"))
    with lock.hold(folder / "alive", "a session"):
        os.environ[leftover.SESSION] = str(folder)
        try:
            yield
        finally:
            del os.environ[leftover.SESSION]
            for place in folder.glob("*.sock"):
                end(place)
            shutil.rmtree(folder, ignore_errors=True)


def key(command: Sequence[str], environ: Mapping[str, str], load: str, batch: int) -> str:
    """What two rows must have in common; `load` stands for the checkpoint's content and the software.

    `batch` is how many episodes lerobot-eval plays at once: its batch size, or all episodes where they are fewer.
    """
    own = tuple(f"--{name}=" for name in OWN)
    words = [word for word in command if not word.startswith(own)]
    return files.sha256(files.canonical([words, dict(environ), load, batch]))


def ready(name: str, wanted: str, root: Path, environ: Mapping[str, str], lease: Path | None = None) -> dict[str, str]:
    """What tells a row's program of the process that stands by on the device `name`; nothing where none can be had.

    One with the key `wanted` is there afterwards, started in the folder `root` if need be; any other has ended. `lease`
    is the lock file of a GPU, which the caller holds.
    """
    folder = os.environ.get(leftover.SESSION)
    if folder is None or len(os.fsencode(folder)) + len(name) > PATH_BYTES:
        return {}
    place = Path(folder) / f"{name}.sock"
    told = place.with_suffix(".key")
    try:
        if not (told.is_file() and told.read_text() == wanted and _stands(place)):
            end(place)
            _start(place, root, environ, lease)
            told.write_text(wanted)
    except (OSError, Busy):
        return {}
    return {SOCKET: str(place)}


def end(place: Path) -> None:
    """Ends who stands by there, if anybody does."""
    place.unlink(missing_ok=True)
    leftover.end(leftover.STANDS_BY, str(place))


def _stands(place: Path) -> bool:
    with _socket() as asked:
        try:
            asked.connect(str(place))
        except OSError:
            return False
    return True


def _start(place: Path, root: Path, environ: Mapping[str, str], lease: Path | None) -> None:
    """The socket is there at once, so that nobody has to wait for the process behind it to come up."""
    marks = {leftover.SESSION: str(place.parent), leftover.STANDS_BY: str(place)} | leftover.marks(None, lease)
    with contextlib.ExitStack() as opened:
        listening, alive = opened.enter_context(_socket()), opened.enter_context((place.parent / "alive").open())
        listening.bind(str(place))
        listening.listen()
        held = [opened.enter_context(lock.hold(occupied(lease), "the GPU", shared=True))] if lease else []
        opened.enter_context(
            subprocess.Popen(
                process.python("tracka.engines.resident.service", str(listening.fileno()), str(alive.fileno())),
                cwd=root,
                env={**environ, **marks},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(listening.fileno(), alive.fileno(), *(file.fileno() for file in held)),
            )
        )  # the process leaves our tree at once


def occupied(lease: Path) -> Path:
    """The file that is locked as long as somebody stands by on the GPU with this lock file."""
    return lease.with_suffix(".standby")


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def ask(place: str, flags: Sequence[str]) -> int | None:
    """The exit code of an evaluation with these flags by who stands by there; None where nobody has taken it."""
    with _socket() as asked:
        try:
            asked.connect(place)
            socket.send_fds(asked, [json.dumps(list(flags)).encode()], [1, 2])
            if asked.recv(len(TAKEN)) != TAKEN:
                return None
        except OSError:
            return None
        with contextlib.suppress(OSError):
            if code := asked.recv(16):
                return int(code)
    print("error: the process that stood by on this device was killed", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)  # so that the row ends as it would by itself
    return 1
