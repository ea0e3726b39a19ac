"""The arrays that an engine records of each episode, actions and states: where they lie, and whether they are whole."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import files, reading
from ..core.errors import Finding, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ACTIONS, STATES = "actions", "states"  # folders below an engine's output, with one file an episode
KINDS = (ACTIONS, STATES)
_HEAD = re.compile(r"\{'descr': '<f4', 'fortran_order': False, 'shape': \(([0-9, ]*)\), \}\s*")


def path(output: Path, kind: str, suite: str, task_id: int, episode: int) -> Path:
    """Returns the file of an episode's actions or states, which have one row a control step."""
    return output / kind / f"{suite}_{task_id}_{episode}.npy"


def shown(file: Path) -> "NDArray[Any] | None":
    """Returns recorded numbers to be drawn, of shape (steps, size); None where the file holds no such array."""
    try:
        values = reading.array(file)
    except (OSError, ValueError):
        return None
    return values if values.ndim == 2 and values.dtype.kind in "fiu" and values.size else None


def length(file: Path) -> int | None:
    """Returns how many rows a recorded array has, by the head of its file; None where there is no such file."""
    try:
        return plain(file).shape[0]
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class PlainArray:
    """A recorded array without numpy: its shape, and its numbers as bytes of float32, row after row."""

    shape: tuple[int, ...]
    content: bytes


def plain(file: Path) -> PlainArray:
    """Returns a recorded array, as engines write it: float32 in the order of its rows.

    Raises OSError as `reading.content` does, and ValueError where the file holds something else.
    """
    data = reading.content(file, reading.RESULTS)
    if data[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("it is not an array of numpy's format 1.0")
    begin = 10 + int.from_bytes(data[8:10], "little")
    match = _HEAD.fullmatch(data[10:begin].decode("latin-1"))
    if match is None:
        raise ValueError("it is not an array of float32 in the order of its rows")
    shape = tuple(int(number) for number in match[1].split(",") if number.strip())
    if math.prod(shape) * 4 != len(data) - begin:
        raise ValueError("it is not wholly there")
    return PlainArray(shape, data[begin:])


def require(file: Path, sha256: str) -> None:
    """Raises UsageError as `read` does, without numpy for an array that an engine of today has written."""
    try:
        content = plain(file).content
    except (OSError, ValueError):
        read(file, sha256)
        return
    if files.sha256(content) != sha256:
        raise UsageError(Finding(str(file), f"these are not the {file.parent.name} of episodes.jsonl", "Run again"))


def read(file: Path, sha256: str) -> "NDArray[Any]":
    """Returns the recorded array as float32.

    Raises UsageError where the file cannot be read, or its content has not the hash that the episode's line says.
    """
    import numpy as np

    try:
        array: NDArray[Any] = reading.array(file).astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        what = f"the {file.parent.name} cannot be read ({error})"
        raise UsageError(Finding(str(file), what, "Run again")) from error
    if files.sha256(array.tobytes()) != sha256:
        raise UsageError(Finding(str(file), f"these are not the {file.parent.name} of episodes.jsonl", "Run again"))
    return array
