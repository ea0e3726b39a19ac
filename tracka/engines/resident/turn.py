"""The turns of an evaluation's worker processes: no more of them work at a time than there are cores.

A worker process gives its turn back while it waits for its pictures. A renderer may first have to load the task, and it
shares the GPU with the policy, so the core would stand still meanwhile.
"""

import time
from collections.abc import Callable
from multiprocessing.synchronize import Semaphore


class Turn:
    """The right of this process to work, of which `semaphore` has one for each core.

    `waited` has the seconds that this process has spent in `wait`.
    """

    def __init__(self, semaphore: Semaphore) -> None:
        self._semaphore = semaphore
        self._held = False
        self.waited = 0.0

    def take(self) -> None:
        """Waits for a turn, unless this process has one."""
        if not self._held:
            self._semaphore.acquire()
            self._held = True

    def give_back(self) -> None:
        """Lets another process work, if this process has a turn."""
        if self._held:
            self._held = False
            self._semaphore.release()

    def __enter__(self) -> "Turn":
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def wait(self, until: Callable[[], None], take_again: bool) -> None:
        """Calls `until`, which waits for another process, without the turn.

        Takes a turn again if `take_again` is true. Otherwise only little work may follow.
        """
        start = time.perf_counter()
        self.give_back()
        until()
        if take_again:
            self.take()
        self.waited += time.perf_counter() - start
