"""Runs steps side by side in threads, all of which end at once where the caller fails or is interrupted.

A thread hears of no signal: Ctrl-C interrupts the main thread alone, which would then wait for its threads. Guarantee:
where a block of lanes is left by an exception, waiting steps are not begun, the child processes of running steps are
ended (`process.run` asks `of_this_thread`), and no thread is left.
"""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType

_here = threading.local()


class Lanes(ThreadPoolExecutor):
    """A pool of `count` threads. Lanes that a step of other lanes opens end with those."""

    def __init__(self, count: int) -> None:
        super().__init__(count, initializer=self._begin_thread)
        self._ended = threading.Event()
        self._around = of_this_thread()

    def _begin_thread(self) -> None:
        _here.lanes = self

    def submit[**P, T](self, step: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        def begin() -> T:
            require_open()
            return step(*args, **kwargs)

        return super().submit(begin)

    @property
    def are_ended(self) -> bool:
        """Returns whether these lanes, or the lanes around them, were left by an exception."""
        return self._ended.is_set() or (self._around is not None and self._around.are_ended)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._end()
            return
        try:
            self.shutdown()
        except BaseException:  # Ctrl-C while the last steps are waited for
            self._end()
            raise

    def _end(self) -> None:
        self._ended.set()
        self.shutdown(cancel_futures=True)


def of_this_thread() -> Lanes | None:
    """Returns the lanes whose step this thread runs; None in a thread of no lanes."""
    lanes: Lanes | None = getattr(_here, "lanes", None)
    return lanes


def require_open() -> None:
    """Raises CancelledError in a step whose lanes have ended."""
    lanes = of_this_thread()
    if lanes is not None and lanes.are_ended:
        raise CancelledError
