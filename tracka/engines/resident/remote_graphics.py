"""The graphics of a simulation that another process draws: a renderer, which gets the scene in shared memory."""

import os
import socket
from collections.abc import Sequence
from typing import Any

import mujoco

from . import channel as channels
from . import graphics
from .channel import Channel, DrawPictures, LoadTask, View
from .episode import Task
from .scene import SharedScene
from .turn import Turn


def load_task(renderer: socket.socket, task: Task, inner: Any) -> None:
    """Sends the compiled model of an environment to a renderer, through a file in memory."""
    file = os.memfd_create("model")
    mujoco.mj_saveModel(inner.sim.model._model, f"/proc/self/fd/{file}")
    channels.send(renderer, LoadTask(task, inner.render_gpu_device_id), file)
    os.close(file)


def draw_with(inner: Any, renderer: socket.socket, channel: Channel, slot: int, task: Task, turn: Turn) -> None:
    """Has a renderer draw an environment that was built without graphics."""
    graphics.open_graphics(inner, lambda sim, _: RemoteGraphics(sim, renderer, channel, slot, task, turn))


class RemoteGraphics:
    """Takes the place of robosuite's graphics context of one simulation: `renderer` draws what it is asked for.

    `ask` and `take` draw all cameras in one message, and the simulation may go on in between. `render` and
    `read_pixels` are what robosuite calls for one picture.
    """

    offscreen = True

    def __init__(self, sim: Any, renderer: socket.socket, channel: Channel, slot: int, task: Task, turn: Turn) -> None:
        self.vopt = mujoco.MjvOption()
        self._renderer, self._channel, self._slot, self._task, self._turn = renderer, channel, slot, task, turn
        self._asked: tuple[View, ...] = ()
        self._scene = SharedScene(sim.model._model, sim.data._data, channel.scene)
        sim.add_render_context(self)

    def ask(self, views: Sequence[View]) -> None:
        """Asks for pictures of the simulation as it is now."""
        self._asked = tuple(views)
        self._scene.store()
        groups = tuple(map(int, self.vopt.geomgroup))
        channels.send(self._renderer, DrawPictures(self._slot, self._task, self._asked, groups))

    def take(self) -> list[Any]:
        """Returns the pictures that were asked for last, as views of shared memory. Gives the turn back meanwhile."""
        self._turn.wait(self._channel.wait_until_drawn, take_again=False)
        return [self._channel.picture(number, each.width, each.height) for number, each in enumerate(self._asked)]

    def render(self, width: int, height: int, camera_id: int | None = None, segmentation: bool = False) -> None:
        """Asks for a picture of the simulation as it is now."""
        if segmentation:
            raise ValueError("a renderer draws no segmentation: set renderers = 0 in [resident]")
        self.ask([View(camera_id, width, height)])

    def read_pixels(self, width: int, height: int, depth: bool = False, segmentation: bool = False) -> Any:
        """Returns the picture that was asked for last."""
        self._turn.wait(self._channel.wait_until_drawn, take_again=True)
        if depth:
            raise ValueError("a renderer returns no depth: set renderers = 0 in [resident]")
        return self._channel.picture(0, width, height).copy()
