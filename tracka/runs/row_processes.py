"""The processes of a sweep's rows. The next one of a slot is started while a row plays, so that no row waits for it.

Starting Python and importing the harness takes as long as all else that lies between two rows of a warm process.
"""

import contextlib
from dataclasses import dataclass, field

from . import worker
from .worker import Child, Work


@dataclass
class RowProcesses:
    """Holds the processes that have no row yet, at most one for each slot."""

    ready: dict[int, Child] = field(default_factory=dict)

    def start(self, work: Work, slot: int) -> Child:
        """Returns the process that runs the row of `work`. Raises OSError where none can be started."""
        child = self.ready.pop(slot, None)
        if child is None or child.poll() is not None:
            child = worker.prepare(slot)
        worker.give(child, work)
        return child

    def prepare(self, slot: int, likely: Work) -> None:
        """Starts the process of the slot's next row, which plans the row of `likely` to be quick with its own.

        Where none can be started, the next row starts its own.
        """
        if slot not in self.ready:
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
