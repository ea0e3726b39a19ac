"""A session of the harness: what one `pytest acceptance`, `tracka run` or `tracka sweep` starts, and its folder.

Every process that a session starts is marked with the session's folder, which the session holds while it lives.

Guarantees: no warm process outlives its session; what a dead session left, its processes and its folder, is ended and
removed when the next one begins, before a GPU is leased, and a process that cannot be ended is named.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core import held_folder
from . import orphans, warm_process
from .orphans import Survivor


@contextlib.contextmanager
def hold() -> Iterator[list[Survivor]]:
    """Begins a session, which lasts as long as the block, and yields the processes of dead ones that are still alive.

    Rows that this process or its children run inside the block may leave warm processes.
    """
    survivors = orphans.end_of_dead_sessions()
    held_folder.remove_of_dead()
    with held_folder.make() as folder:
        os.environ[orphans.SESSION] = str(folder)
        try:
            yield survivors
        finally:
            os.environ.pop(orphans.SESSION, None)
            for socket_path in folder.glob("*.sock"):
                warm_process.end_worker(socket_path)


def own_folder() -> Path | None:
    """Returns the folder of the session that this process belongs to, or None outside of a session."""
    folder = os.environ.get(orphans.SESSION)
    return Path(folder) if folder else None


def warnings(survivors: Sequence[Survivor]) -> list[str]:
    """Returns a line for each process of a dead session that could not be ended."""
    remedy = "End it, or restart this host: it may still use memory, a GPU or a row's folder"
    return [f"warning: {survivor} is left of a dead session and cannot be ended. {remedy}" for survivor in survivors]
