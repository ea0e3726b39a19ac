"""Remembers, while one check lasts, the facts that it asks for at every row; the next check reads them again.

A cache for the life of the process would be wrong: packages and checkpoints change between two rows of a long session.
"""

import contextlib
import functools
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

_memory: ContextVar[dict[Any, Any] | None] = ContextVar("memory", default=None)


@contextlib.contextmanager
def scope() -> Iterator[None]:
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
    """Returns `function` with a memory that works inside `scope`.

    The arguments must be hashable, and no caller may change a result.
    """
    return remembered_lately(sys.maxsize)(function)


def remembered_lately[**P, T](most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Returns a decorator as `remembered`, which forgets all but the last `most` answers.

    It is for what each row has of its own, of which a campaign may have a hundred thousand.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def cached(*args: P.args, **kwargs: P.kwargs) -> T:
            memory = _memory.get()
            if memory is None:
                return function(*args, **kwargs)
            answers: OrderedDict[Any, T] = memory.setdefault(cached, OrderedDict())
            key = (args, *kwargs.items())
            if key in answers:
                answers.move_to_end(key)
            else:
                answers[key] = function(*args, **kwargs)
                if len(answers) > most:
                    answers.popitem(last=False)
            return answers[key]

        return cached

    return decorate
