"""Recognises what lerobot's loaders print when a policy does not get all of its weights from the file.

Most loaders load what fits, print what does not, and go on; those of pi0 and pi0.5 even go on with random weights
(lerobot 0.6.1: policies/utils.py, pi0/modeling_pi0.py, vla_jepa/modeling_vla_jepa.py). PEFT warns of tensors that an
adapter lacks (peft 0.21: peft_model.py). A policy for which one of these lines was printed is not the policy of the
checkpoint.
"""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

SIGNS = (
    "Missing key(s) when loading model",
    "Unexpected key(s) when loading model",
    "Missing keys when loading state dict",
    "Unexpected keys when loading state dict",
    "Could not load state dict",
    "Returning model without loading pretrained weights",
    "reinit_modules: skipping",
    "Found missing adapter keys while loading the checkpoint",
)


def first_sign_line(text: str) -> str | None:
    """Returns the first line of `text` that tells of weights which were not loaded; None without such a line."""
    return next((line.strip() for line in text.splitlines() if any(sign in line for sign in SIGNS)), None)


class IncompleteWeights(Exception):
    """Raised where a policy was loaded without some of its weights, or its file holds weights that were not used."""


@contextlib.contextmanager
def require_complete_weights() -> Iterator[None]:
    """Raises IncompleteWeights at the end of the block if a loader printed, logged or warned of one of the SIGNS."""
    stdout = _Tee(sys.stdout)
    with capture_log() as log_lines, capture_warnings() as warning_lines, contextlib.redirect_stdout(stdout):
        yield
    if line := first_sign_line("\n".join([*log_lines, *warning_lines, stdout.getvalue()])):
        raise IncompleteWeights(line)


@contextlib.contextmanager
def capture_log() -> Iterator[list[str]]:
    """Collects the warnings that are logged within the block, and yields the list of their messages."""
    listener = _Listener()
    logging.getLogger().addHandler(listener)
    try:
        yield listener.lines
    finally:
        logging.getLogger().removeHandler(listener)


@contextlib.contextmanager
def capture_warnings() -> Iterator[list[str]]:
    """Collects the warnings of the module `warnings` within the block, and yields the list of their messages.

    The warnings are shown as usual: a process shows the same warning once. PEFT's warning alone is shown each time,
    because a process may load a policy again.
    """
    lines: list[str] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("always", f".*{SIGNS[-1]}")
        show = warnings.showwarning

        def note(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            lines.append(str(message))
            show(message, *args, **kwargs)

        warnings.showwarning = note
        yield lines


class _Tee(io.StringIO):
    """Keeps what is printed and passes it on to another stream."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(text)
        return super().write(text)

    def flush(self) -> None:
        self.stream.flush()


class _Listener(logging.Handler):
    """Keeps the messages that are logged, from warnings on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
