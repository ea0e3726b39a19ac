"""A renderer: a process with one graphics context that draws the pictures of many slots, beside the policy's process.

A driver makes a few graphics contexts a second on a whole host, and each context of a task holds its textures anew. A
renderer holds each of its tasks once, and drawing takes it about a millisecond a picture.
"""

import os
import socket
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import mujoco
from robosuite.utils import binding_utils
from robosuite.utils.binding_utils import MjRenderContextOffscreen, MjSim

from . import channel
from .channel import Channel, DrawPictures, ForgetTask, LoadTask
from .episode import Task
from .scene import SharedScene
from .slot import WorkerFailed

GL_CONTEXT = binding_utils.GLContext  # robosuite's, of the backend that MUJOCO_GL names


def serve(requests: socket.socket, failures: Connection, channels: Mapping[int, Channel]) -> None:
    """Obeys the requests until this process is ended. Sends any error as WorkerFailed and raises it."""
    try:
        renderer = Renderer(channels)
        while True:
            request, descriptors = channel.receive(requests)
            if isinstance(request, LoadTask):
                renderer.load(request, descriptors[0])
            elif isinstance(request, DrawPictures):
                renderer.draw(request)
            else:
                renderer.forget(request)
    except BaseException:
        failures.send(WorkerFailed(traceback.format_exc()))
        raise


class SharedContext:
    """The one GL context of a process, for robosuite's graphics contexts, which would each make and free their own."""

    def __init__(self) -> None:
        self._context: Any = None

    def get(self, max_width: int, max_height: int, device_id: int) -> "SharedContext":
        """Returns this object, with a GL context like the one that robosuite would make."""
        if self._context is None:
            self._context = GL_CONTEXT(max_width, max_height, device_id=device_id)
            self._context.make_current()
        return self

    def make_current(self) -> None:
        """Does nothing: the context has been current since it was made."""

    def free(self) -> None:
        """Does nothing: the context lives as long as the process."""


@dataclass
class TaskGraphics:
    """A task's model and textures in the process's GL context, and the scenes of the slots that have the task."""

    sim: MjSim
    context: Any
    scenes: dict[int, SharedScene] = field(default_factory=dict)  # by slot

    def scene(self, slot: int, shared: Channel) -> SharedScene:
        """Returns the scene of a slot."""
        if slot not in self.scenes:
            self.scenes[slot] = SharedScene(self.sim.model._model, self.sim.data._data, shared.scene)
        return self.scenes[slot]


class Renderer:
    """Draws the pictures of the slots that `channels` belong to."""

    def __init__(self, channels: Mapping[int, Channel]) -> None:
        self._channels = channels
        self._tasks: dict[Task, TaskGraphics] = {}
        binding_utils.GLContext = SharedContext().get

    def load(self, request: LoadTask, file: int) -> None:
        """Makes a task's graphics from its compiled model in `file`, which is closed."""
        sim = MjSim(mujoco.MjModel.from_binary_path(f"/proc/self/fd/{file}"))
        os.close(file)
        self._tasks[request.task] = TaskGraphics(sim, MjRenderContextOffscreen(sim, request.device_id))

    def forget(self, request: ForgetTask) -> None:
        """Frees a task's graphics."""
        if graphics := self._tasks.pop(request.task, None):
            graphics.sim.free()

    def draw(self, request: DrawPictures) -> None:
        """Draws pictures of a slot's scene into the slot's memory and tells the slot."""
        graphics, shared = self._tasks[request.task], self._channels[request.slot]
        graphics.scene(request.slot, shared).load()
        context = graphics.context
        context.vopt.geomgroup[:] = request.geom_groups
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context.con)  # another task's may be in use
        for number, (camera_id, width, height) in enumerate(request.views):
            context.render(width, height, camera_id)
            shared.picture(number, width, height)[:] = context.read_pixels(width, height)
        shared.say_drawn()
