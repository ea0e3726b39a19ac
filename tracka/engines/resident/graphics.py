"""Graphics contexts of environments that are built without any: each worker process opens its own, or a renderer draws.

robosuite makes a graphics context whenever it makes a simulation. A forked process cannot use its parent's, and a
driver makes few contexts a second. So a builder process builds environments with a stand-in, `PendingGraphics`, and the
forked worker process puts something that draws in its place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mujoco
from robosuite.environments import base
from robosuite.utils.binding_utils import MjRenderContextOffscreen

# Makes the graphics of a simulation for the device that robosuite names: MjRenderContextOffscreen or what acts like it.
OpenGraphics = Callable[[Any, int], Any]


class PendingGraphics:
    """Stands for the graphics context of a simulation until one is opened: it takes the settings and draws nothing."""

    offscreen = True

    def __init__(self, sim: Any, device_id: int, *_: Any, **__: Any) -> None:
        self.vopt = mujoco.MjvOption()
        sim.add_render_context(self)


@contextmanager
def pending_graphics() -> Iterator[None]:
    """Makes robosuite give PendingGraphics to each simulation that it makes within the block."""
    original = base.MjRenderContextOffscreen
    base.MjRenderContextOffscreen = PendingGraphics
    try:
        yield
    finally:
        base.MjRenderContextOffscreen = original


def open_graphics(inner: Any, make: OpenGraphics = MjRenderContextOffscreen) -> None:
    """Puts what `make` makes in the place of the environment's PendingGraphics, with the same settings.

    robosuite's own context computes the simulation's forward dynamics, so the environment must be reset afterwards.
    """
    pending = inner.sim._render_context_offscreen
    inner.sim._render_context_offscreen = None
    opened = make(inner.sim, inner.render_gpu_device_id)
    opened.vopt.geomgroup[:] = pending.vopt.geomgroup
