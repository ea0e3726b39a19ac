"""What drawing reads of a simulation, in memory that the process of the simulation and a renderer share.

The renderer gets all positions and orientations that MuJoCo has derived, not the joints' positions alone: at a control
step's end the derived ones are of a moment before, and that moment is what robosuite draws.
"""

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .reset import WRITTEN

ALIGNMENT = 64
POSES = (
    *("xpos", "xquat", "xmat", "xipos", "ximat", "xanchor", "xaxis", "subtree_com", "geom_xpos", "geom_xmat"),
    *("site_xpos", "site_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir", "mocap_pos", "mocap_quat"),
    *("qpos", "flexvert_xpos", "ten_wrapadr", "ten_wrapnum", "ten_length", "wrap_obj", "wrap_xpos", "sensordata"),
)
# What robosuite and LIBERO write into a compiled model, or what others may write there to change its look.
LOOKS = (*WRITTEN, "geom_matid", "geom_size", "site_matid", "site_size", "mat_rgba")


class SharedScene:
    """Copies the quantities of one simulation to shared memory and from there into another simulation of its model."""

    def __init__(self, model: Any, data: Any, memory: mmap.mmap) -> None:
        """Takes MuJoCo's model and data. Raises ValueError where the memory is too small for the model."""
        own = [*(getattr(data, name) for name in POSES), *(getattr(model, name) for name in LOOKS)]
        self._pairs = list(zip(own, _views(own, memory), strict=True))

    def store(self) -> None:
        """Copies the simulation's quantities to the shared memory."""
        for own, shared in self._pairs:
            shared[...] = own

    def load(self) -> None:
        """Copies the quantities from the shared memory into the simulation."""
        for own, shared in self._pairs:
            own[...] = shared


def _views(arrays: list[NDArray[Any]], memory: mmap.mmap) -> Iterator[NDArray[Any]]:
    """Returns a view of the memory for each of the arrays, with its shape and type, one behind the other."""
    start = 0
    for each in arrays:
        if start + each.nbytes > len(memory):
            raise ValueError(f"what drawing this model reads takes more than {len(memory)} bytes")
        yield np.frombuffer(memory, each.dtype, each.size, start).reshape(each.shape)
        start += -(-each.nbytes // ALIGNMENT) * ALIGNMENT
