"""Writes recorded actions as side files, which the page loads by a script element when an episode is opened.

A page that lies on disk may not read the files beside it by itself (`fetch` is blocked for file://), but it may load
scripts. A side file holds the episodes of one task of one attempt. It is named by the hash of their actions, so that it
is written once.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import files
from ..engines import recorded_arrays
from . import embedding

# OSC_POSE of robosuite, LIBERO's controller: a move, a turn and the gripper.
LIBERO_NAMES = ("move x", "move y", "move z", "turn x", "turn y", "turn z", "gripper")

# What the listener records of the robot: the hand's place and orientation, and the fingers' places.
STATE_NAMES = ("hand x", "hand y", "hand z", "quat x", "quat y", "quat z", "quat w", "finger 1", "finger 2")

Content = dict[str, Any]


@dataclass(frozen=True)
class TraceFiles:
    """The files of an episode's actions and, where they were recorded, of the robot's states; one row a step."""

    actions: Path
    states: Path | None = None


def key(digests: Sequence[str]) -> str:
    """Returns the name of the side file for episodes whose actions have these hashes."""
    return files.sha256("".join(digests).encode())[:32]


def content(recorded: Mapping[int, TraceFiles]) -> Content:
    """Returns what the page draws: episode -> its actions and states as base64 of float32, row by row.

    An episode whose actions cannot be read is left out.
    """
    return {str(episode): trace for episode, paths in recorded.items() if (trace := _trace_of(paths))}


def _trace_of(paths: TraceFiles) -> Content | None:
    trace = _trace(paths.actions, LIBERO_NAMES, "action")
    state = _trace(paths.states, STATE_NAMES, "state") if paths.states and trace else None
    return trace | {"state": state} if trace and state and state["steps"] == trace["steps"] else trace


def _trace(path: Path, known_names: Sequence[str], kind: str) -> Content | None:
    numbers = recorded_arrays.shown(path)
    if numbers is None:
        return None
    size = numbers.shape[1]
    names = known_names if size == len(known_names) else [f"{kind} {number}" for number in range(size)]
    values = base64.b64encode(numbers.astype("<f4").tobytes()).decode()
    return {"names": [*names], "steps": len(numbers), "values": values}


def write(folder: Path, name: str, recorded: Mapping[int, TraceFiles]) -> Path:
    """Returns the side file `name` in `folder`, which is written where it is missing."""
    path = folder / f"{name}.js"
    if not path.is_file():
        files.write_text(path, f'tracka.trace("{name}",{embedding.json_text(content(recorded))});\n')
    return path
