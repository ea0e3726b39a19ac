"""Remembers facts that one check asks for at every row, while the check lasts; the next check reads them again.

A cache for the life of the process would be wrong: packages and checkpoints change between two rows of a long session.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

_memory: ContextVar[dict[Any, Any] | None] = ContextVar("known", default=None)


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Lets `remembered` functions answer repeated arguments from memory inside this block.

    An inner block shares the outer memory.
    """
    if _memory.get() is not None:
        yield
        return
    token = _memory.set({})
    try:
        yield
    finally:
        _memory.reset(token)


def remembered[**P, T](function: Callable[P, T]) -> Callable[P, T]:
    """Returns `function` with a memory that works inside `lasting`.

    Arguments must be hashable, and nobody may change a result.
    """

    @functools.wraps(function)
    def read(*args: P.args, **kwargs: P.kwargs) -> T:
        known = _memory.get()
        if known is None:
            return function(*args, **kwargs)
        key = (function, args, *kwargs.items())
        if key not in known:
            known[key] = function(*args, **kwargs)
        answer: T = known[key]
        return answer

    return read
