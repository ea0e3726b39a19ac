"""The processes of a sweep's rows. The next one of a slot is started while a row plays, so that no row waits for it.

Starting Python and importing the harness takes as long as all else that lies between two rows of a warm process.
"""

import contextlib
import time
from dataclasses import dataclass, field

from . import worker
from .worker import Child, Work

# A slot's next process begins so long after its row, whose own program comes up first and needs the cores.
DELAY_SECS = 0.5


@dataclass
class RowProcesses:
    """Holds the processes that have no row yet, at most one for each slot, and when the row of each slot began."""

    ready: dict[int, Child] = field(default_factory=dict)
    began: dict[int, float] = field(default_factory=dict)

    def start(self, work: Work, slot: int) -> Child:
        """Returns the process that runs the row of `work`. Raises OSError where none can be started."""
        child = self.ready.pop(slot, None)
        if child is None or child.poll() is not None:
            child = worker.prepare(slot)
        worker.give(child, work)
        self.began[slot] = time.monotonic()
        return child

    def prepare(self, slot: int, likely: Work) -> None:
        """Starts the process of the slot's next row, which plans the row of `likely` to be quick with its own.

        Does nothing in the first DELAY_SECS of the slot's row. Where none can be started, the next row starts its own.
        """
        if slot not in self.ready and time.monotonic() - self.began[slot] >= DELAY_SECS:
            with contextlib.suppress(OSError):
                self.ready[slot] = worker.prepare(slot)
                worker.rehearse(self.ready[slot], likely)

    def end(self) -> None:
        """Ends the processes that have got no row."""
        for child in self.ready.values():
            child.kill()
        for child in self.ready.values():
            child.communicate()
        self.ready.clear()
