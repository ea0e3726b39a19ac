"""Keeps warm worker processes of the resident engine, one per device, for the rows of one session.

The rows then share imports, environments and the policy.

Guarantees: a row gets the process of an earlier row only where their keys are the same; a row that does not end well
leaves no process behind; where no process can be started, a row plays by itself. `harness_session` ends those of a
session with it.
"""

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core import files, held_folder, lock, reading
from ..core.errors import Busy
from . import orphans, process
from .warm_request import SOCKET, unix_socket

PATH_BYTES = 100  # the kernel allows 107 bytes for a socket's path
# Flags in which the rows that one process plays may differ.
ROW_FLAGS = ("env.task", "env.task_ids", "eval.n_episodes", "seed", "output_dir", "resident.videos", "resident.resume")


def key(command: Sequence[str], environ: Mapping[str, str], load: str, batch: int) -> str:
    """Returns the hash of what two rows must have in common to share a process.

    `load` stands for the checkpoint's content and the software. `batch` is the number of episodes that lerobot-eval
    plays at once: its batch size, or all episodes where they are fewer.
    """
    row_flags = tuple(f"--{name}=" for name in ROW_FLAGS)
    words = [word for word in command if not word.startswith(row_flags)]
    return files.sha256(files.canonical([words, dict(environ), load, batch]))


def ensure_worker(
    name: str, key: str, root: Path, environ: Mapping[str, str], lease: Path | None = None
) -> dict[str, str]:
    """Returns the variable that tells a row's program of the warm worker process on the device `name`.

    Afterwards a process with the key `key` runs, started in the folder `root` if necessary, and any other has ended.
    `lease` is the lock file of a GPU, which the caller holds. Returns an empty dict where no process can be started.
    """
    folder = os.environ.get(orphans.SESSION)
    if folder is None or len(os.fsencode(folder)) + len(name) > PATH_BYTES:
        return {}
    socket_path = socket_of(Path(folder), name)
    key_file = socket_path.with_suffix(".key")
    try:
        if not (reading.text_or_none(key_file) == key and _is_listening(socket_path)):
            end_worker(socket_path)
            _start(socket_path, root, environ, lease)
            key_file.write_text(key)
    except (OSError, Busy):
        return {}
    return {SOCKET: str(socket_path)}


def socket_of(folder: Path, name: str) -> Path:
    """Returns the socket of the warm worker process on the device `name` in the session with the folder `folder`."""
    return folder / f"{name}.sock"


def end_worker(socket_path: Path) -> None:
    """Ends the warm worker process with the socket `socket_path`, if there is one."""
    socket_path.unlink(missing_ok=True)
    orphans.end(orphans.STANDS_BY, str(socket_path))


def _is_listening(socket_path: Path) -> bool:
    """Returns whether a process listens on `socket_path`."""
    with unix_socket() as connection:
        try:
            connection.connect(str(socket_path))
        except OSError:
            return False
    return True


def _start(socket_path: Path, root: Path, environ: Mapping[str, str], lease: Path | None) -> None:
    """Starts a warm worker process.

    Its socket accepts connections at once, so that the caller does not wait until the process has come up.
    """
    marks = {orphans.SESSION: str(socket_path.parent), orphans.STANDS_BY: str(socket_path)} | orphans.marks(None, lease)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(unix_socket())
        alive = stack.enter_context(held_folder.open_folder(socket_path.parent))
        listener.bind(str(socket_path))
        listener.listen()
        locks = [stack.enter_context(lock.hold(worker_lock_file(lease), "the GPU", shared=True))] if lease else []
        stack.enter_context(
            subprocess.Popen(
                process.python("tracka.engines.resident.service", str(listener.fileno()), str(alive)),
                cwd=root,
                env={**environ, **marks},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(listener.fileno(), alive, *(file.fileno() for file in locks)),
            )
        )  # the process leaves our process tree at once


def worker_lock_file(lease: Path) -> Path:
    """Returns the file that is locked while a warm worker process is on the GPU with the lock file `lease`."""
    return lease.with_suffix(".standby")
