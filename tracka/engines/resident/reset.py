"""Resets that bring a built simulator to the bits in which a rebuilt one would begin.

robosuite's hard reset builds and compiles the whole model anew, seconds for a state that is fixed by few things: the
model as compiled, the seed, the fixed init state, and how often the environment was reset before. The last because
LIBERO appends to a list of samplers at each rebuilding, so that later resets draw more numbers before they place the
fixtures. A fast reset puts back what an episode may have changed in the model, makes that list as long as it would
be, and then does what a hard reset does after the compilation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from libero.libero.envs.env_wrapper import ControlEnv
from numpy.typing import NDArray
from robosuite.environments.base import MujocoEnv
from robosuite.utils.errors import RandomizationError

# What robosuite and LIBERO write into a model once it is compiled: colours that show or hide, and fixtures' places.
WRITTEN = ("site_rgba", "geom_rgba", "body_pos", "body_quat")
LOADS = 3  # of the model up to an environment's first reset: its building, lerobot's own reset of it, and this one
Arrays = dict[str, NDArray[np.float64]]


@contextmanager
def recorded(compiled: Arrays) -> Iterator[None]:
    """Keeps the model of what is built meanwhile, as compiled, in `compiled`; and leaves out lerobot's own first reset.

    That one starts from no seed, so nothing of it lasts but the number of resets, which `Rewind` counts.
    """
    initialize, reset = MujocoEnv._initialize_sim, ControlEnv.reset

    def keep(inner: Any, *places: Any, **named: Any) -> None:
        initialize(inner, *places, **named)
        compiled.update({name: getattr(inner.sim.model._model, name).copy() for name in WRITTEN})

    MujocoEnv._initialize_sim, ControlEnv.reset = keep, lambda env: None
    try:
        yield
    finally:
        MujocoEnv._initialize_sim, ControlEnv.reset = initialize, reset


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """Leaves numpy's global generator, which LIBERO seeds at each reset, to others as it was."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


class Rewind:
    """Resets of one simulator, fast or hard, counted as the reference would have counted them."""

    def __init__(self, inner: Any, compiled: Arrays) -> None:
        """`inner`: the LIBERO environment as built, not yet reset; `compiled`: what `recorded` kept."""
        self._inner = inner
        self._compiled = compiled
        self._samplers = list(inner.object_property_initializers)
        self._shown_sites = list(inner.visualization_sites_list)
        models = [*inner.objects_dict.values(), *inner.fixtures_dict.values()]
        self._looks = [(each.object_properties, dict(each.object_properties["vis_site_names"])) for each in models]

    def fast(self, seed: int, ordinal: int) -> None:
        """The simulator as after a hard reset with `seed` that `ordinal` others came before."""
        np.random.seed(seed)
        loads = LOADS + ordinal
        while not self._fast(loads):
            loads += 1  # a hard reset that finds no room for an object loads the model once more

    def hard(self, seed: int, ordinal: int) -> None:
        """The same by robosuite's own means, in seconds."""
        np.random.seed(seed)
        self._count(LOADS - 1 + ordinal)
        while not self._placed(self._inner.reset):
            pass

    def _fast(self, loads: int) -> bool:
        self._count(loads)
        self._restore()
        sim = self._inner.sim
        sim.reset()
        sim.forward()  # as when the simulation is made,
        sim.forward()  # and when its renderer is
        return self._placed(self._begin)

    def _begin(self) -> None:
        inner = self._inner
        inner._reset_internal()
        inner.sim.forward()
        inner._obs_cache = {}
        inner.visualize(vis_settings=dict.fromkeys(inner._visualizations, False))
        inner._get_observations(force_update=True)

    def _placed(self, begin: Any) -> bool:
        try:
            begin()
        except RandomizationError:
            return False
        return True

    def _count(self, loads: int) -> None:
        self._inner.object_property_initializers = self._samplers * loads
        self._inner.visualization_sites_list = self._shown_sites * loads

    def _restore(self) -> None:
        model = self._inner.sim.model._model
        for name, values in self._compiled.items():
            getattr(model, name)[:] = values
        for properties, look in self._looks:
            properties["vis_site_names"] = dict(look)
        for robot in self._inner.robots:
            robot.gripper.current_action = np.zeros(robot.gripper.dof)  # robosuite leaves it where it was
