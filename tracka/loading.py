"""What lerobot's loaders print when a policy does not get all of its weights from the file.

Most of them load what fits, print what does not, and go on; those of pi0 and pi0.5 even go on with random weights
(lerobot 0.6.1: policies/utils.py, pi0/modeling_pi0.py, vla_jepa/modeling_vla_jepa.py). A policy of which one of these
lines was printed is not the policy of the checkpoint.
"""

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from typing import TextIO

SIGNS = (
    "Missing key(s) when loading model",
    "Unexpected key(s) when loading model",
    "Missing keys when loading state dict",
    "Unexpected keys when loading state dict",
    "Could not load state dict",
    "Returning model without loading pretrained weights",
    "reinit_modules: skipping",
)


def sign_in(text: str) -> str | None:
    """The first line of `text` that tells of weights which were not loaded."""
    return next((line.strip() for line in text.splitlines() if any(sign in line for sign in SIGNS)), None)


class IncompleteWeights(Exception):
    """A policy was loaded without some of its weights, or its file holds weights that it does not use."""


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Raises IncompleteWeights at the end of the block if a loader printed or logged one of the SIGNS meanwhile."""
    printed = _Tee(sys.stdout)
    with logged() as lines, contextlib.redirect_stdout(printed):
        yield
    if line := sign_in("\n".join([*lines, printed.getvalue()])):
        raise IncompleteWeights(line)


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Collects the warnings that are logged within the block."""
    listener = _Listener()
    logging.getLogger().addHandler(listener)
    try:
        yield listener.lines
    finally:
        logging.getLogger().removeHandler(listener)


class _Tee(io.StringIO):
    """Keeps what is printed and passes it on."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(text)
        return super().write(text)

    def flush(self) -> None:
        self.stream.flush()


class _Listener(logging.Handler):
    """Keeps the messages that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
