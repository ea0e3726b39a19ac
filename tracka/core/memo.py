"""Facts that one check asks for at every row, read once while it lasts: the next check reads them anew.

A cache for the life of the process would not do: packages and checkpoints change between two rows of a long session.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

_known: ContextVar[dict[Any, Any] | None] = ContextVar("known", default=None)


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Inside this block a `remembered` function answers the same arguments from memory; one in another adds nothing."""
    if _known.get() is not None:
        yield
        return
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def remembered[**P, T](function: Callable[P, T]) -> Callable[P, T]:
    """`function`, whose arguments are hashable and whose answers nobody changes."""

    @functools.wraps(function)
    def read(*args: P.args, **kwargs: P.kwargs) -> T:
        known = _known.get()
        if known is None:
            return function(*args, **kwargs)
        key = (function, args, *kwargs.items())
        if key not in known:
            known[key] = function(*args, **kwargs)
        answer: T = known[key]
        return answer

    return read
