"""Resets that bring a built simulator to the very bits in which a rebuilt one would begin.

robosuite's hard reset builds and compiles the whole model anew, which takes seconds. The state that results depends on
few things: the compiled model, the seed, the fixed init state, and how often the environment was reset before. The
count matters because LIBERO appends to a list of samplers at each rebuilding, so that later resets draw more numbers
before they place the fixtures. A fast reset puts back what an episode may have changed in the model, makes that list as
long as a hard reset would have made it, and then does what a hard reset does after the compilation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from libero.libero.envs.env_wrapper import ControlEnv
from numpy.typing import NDArray
from robosuite.environments.base import MujocoEnv
from robosuite.utils.errors import RandomizationError

# What robosuite and LIBERO write into a compiled model: colours that show or hide things, and the fixtures' places.
WRITTEN = ("site_rgba", "geom_rgba", "body_pos", "body_quat")
# How often the model is loaded until an environment's first reset is done: when the environment is built, when lerobot
# resets it then, and in that first reset.
LOADS = 3
Arrays = dict[str, NDArray[np.float64]]


@contextmanager
def record_model(compiled: Arrays) -> Iterator[None]:
    """Copies the compiled model of the environment built within the block to `compiled`; skips lerobot's first reset.

    lerobot's first reset has no seed, so nothing of it lasts but the number of resets, which `Resetter` counts.
    """
    initialize, reset = MujocoEnv._initialize_sim, ControlEnv.reset

    def keep(inner: Any, *args: Any, **kwargs: Any) -> None:
        initialize(inner, *args, **kwargs)
        compiled.update({name: getattr(inner.sim.model._model, name).copy() for name in WRITTEN})

    MujocoEnv._initialize_sim, ControlEnv.reset = keep, lambda env: None
    try:
        yield
    finally:
        MujocoEnv._initialize_sim, ControlEnv.reset = initialize, reset


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """Restores numpy's global generator, which LIBERO seeds at each reset, at the end of the block."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


class Resetter:
    """Resets one simulator, fast or hard, and counts the resets as lerobot-eval would have counted them."""

    def __init__(self, inner: Any, compiled: Arrays) -> None:
        """Takes the LIBERO environment `inner`, built and not yet reset, and `compiled` as `record_model` filled it."""
        self._inner = inner
        self._compiled = compiled
        self._samplers = list(inner.object_property_initializers)
        self._shown_sites = list(inner.visualization_sites_list)
        models = [*inner.objects_dict.values(), *inner.fixtures_dict.values()]
        self._looks = [(model.object_properties, dict(model.object_properties["vis_site_names"])) for model in models]

    def fast(self, seed: int, ordinal: int) -> None:
        """Brings the simulator to the state after a hard reset with `seed` that `ordinal` other resets preceded."""
        np.random.seed(seed)
        loads = LOADS + ordinal
        while not self._fast(loads):
            loads += 1  # a hard reset that finds no room for an object loads the model once more

    def hard(self, seed: int, ordinal: int) -> None:
        """Does what `fast` does by robosuite's own hard reset, which takes seconds."""
        np.random.seed(seed)
        self._count(LOADS - 1 + ordinal)
        while not self._placed(self._inner.reset):
            pass

    def _fast(self, loads: int) -> bool:
        self._count(loads)
        self._restore()
        sim = self._inner.sim
        sim.reset()
        sim.forward()  # robosuite does this when it makes the simulation,
        sim.forward()  # and again when it makes the renderer
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
            robot.gripper.current_action = np.zeros(robot.gripper.dof)  # robosuite would leave it as it was
