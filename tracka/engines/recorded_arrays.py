"""The arrays that an engine records of each episode, actions and states: where they lie, and whether they are whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import files, reading
from ..core.errors import Finding, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ACTIONS, STATES = "actions", "states"  # folders below an engine's output, with one file an episode
KINDS = (ACTIONS, STATES)


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
