"""Cameras that draw only while a shutter is open, each in its own simulator's graphics context.

robosuite draws both cameras in every control step, but a policy that returns many actions at once uses few of the
pictures. While its shutter is closed, a camera returns a black picture, and its timer runs on, so that the next picture
is taken at the very substep at which robosuite would take it. Switching the camera itself off and on would not do that.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from robosuite import macros
from robosuite.environments.robot_env import RobotEnv
from robosuite.utils.binding_utils import MjRenderContextOffscreen
from robosuite.utils.mjcf_utils import IMAGE_CONVENTION_MAPPING

from .channel import View
from .remote_graphics import RemoteGraphics

Image = NDArray[np.uint8]
Sensor = Callable[[dict[str, Any]], Image]


@dataclass
class RenderGate:
    """Says whether the cameras draw that `gated_cameras` has put behind it."""

    open: bool


@contextmanager
def gated_cameras(gate: RenderGate) -> Iterator[None]:
    """Puts every camera that robosuite builds within the block behind `gate`, for as long as the camera lives."""
    original = RobotEnv._create_camera_sensors

    def create(inner: Any, name: str, cam_w: int, cam_h: int, *args: Any, **kwargs: Any) -> Any:
        sensors, names = original(inner, name, cam_w, cam_h, *args, **kwargs)
        black = np.zeros((cam_h, cam_w, 3), np.uint8)
        gated = [_gated_sensor(gate, inner, sensor, black) for sensor in sensors]
        return gated, names

    RobotEnv._create_camera_sensors = create
    try:
        yield
    finally:
        RobotEnv._create_camera_sensors = original


def make_current(inner: Any) -> None:
    """Makes this simulator's graphics context the current one, before something is drawn in it or freed.

    robosuite does that only when it makes a context. With two simulators in a process, the older would then draw what
    the younger has loaded, and free the younger's textures.
    """
    graphics = inner.sim and inner.sim._render_context_offscreen
    if isinstance(graphics, MjRenderContextOffscreen):
        graphics.gl_ctx.make_current()


class Cameras:
    """Draws the cameras whose pictures lerobot's environment returns.

    A renderer draws while the simulation goes on. A graphics context of this process draws at once.
    """

    def __init__(self, env: Any) -> None:
        inner = env._env.env
        sizes = zip(inner.camera_names, inner.camera_widths, inner.camera_heights, strict=True)
        sizes_by_image = {f"{name}_image": (name, width, height) for name, width, height in sizes}
        self._inner = inner
        self._views = {env.camera_name_mapping[name]: sizes_by_image[name] for name in env.camera_name}
        self._order = IMAGE_CONVENTION_MAPPING[macros.IMAGE_CONVENTION]
        self._drawn: list[Image] = []

    def ask(self) -> None:
        """Has the scene drawn as it is now. `take` must follow."""
        sim = self._inner.sim
        if isinstance(graphics := sim._render_context_offscreen, RemoteGraphics):
            views = self._views.values()
            graphics.ask([View(sim.model.camera_name2id(name), width, height) for name, width, height in views])
        else:
            make_current(self._inner)
            self._drawn = [sim.render(camera_name=name, width=x, height=y) for name, x, y in self._views.values()]

    def take(self) -> dict[str, Image]:
        """Returns each picture that was asked for, (height, width, 3), by its name.

        Pictures are named and oriented as in LiberoEnv's observations.
        """
        graphics = self._inner.sim._render_context_offscreen
        pictures = graphics.take() if isinstance(graphics, RemoteGraphics) else self._drawn
        return {view: picture[:: self._order].copy() for view, picture in zip(self._views, pictures, strict=True)}


def _gated_sensor(gate: RenderGate, inner: Any, sensor: Sensor, black: Image) -> Sensor:
    def draw(cache: dict[str, Any]) -> Image:
        if not gate.open:
            return black
        make_current(inner)
        return sensor(cache)

    vars(draw).update(vars(sensor))  # robosuite marks a function as a sensor by its attributes
    draw.__name__ = sensor.__name__
    return draw
