"""How slots and builder processes speak to a renderer: the messages, and the memory that a slot shares with it."""

import mmap
import os
import pickle
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .episode import Task

MESSAGE_BYTES = 1 << 12
SCENE_BYTES = 1 << 22  # for one simulation; only what is used takes memory


@dataclass(frozen=True)
class LoadTask:
    """Brings the compiled model of a task, as a file. `device_id` is robosuite's number of the device that draws."""

    task: Task
    device_id: int


@dataclass(frozen=True)
class ForgetTask:
    """Asks to free the model of a task that no slot has."""

    task: Task


@dataclass(frozen=True)
class DrawPicture:
    """Asks for a picture of the scene that slot `slot` has stored. `geom_groups` are the groups of geoms to be seen."""

    slot: int
    task: Task
    camera_id: int | None
    width: int
    height: int
    geom_groups: tuple[int, ...]


Request = LoadTask | ForgetTask | DrawPicture


def send(renderer: socket.socket, request: Request, *descriptors: int) -> None:
    """Sends a request to a renderer, with descriptors that it gets copies of."""
    socket.send_fds(renderer, [pickle.dumps(request)], descriptors)


def receive(requests: socket.socket) -> tuple[Request, Sequence[int]]:
    """Waits for the next request and returns it with its descriptors."""
    message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 1)
    return pickle.loads(message), descriptors


class Channel:
    """What a slot and the renderers share: the slot's scene, its picture, and the signal that the picture is drawn.

    Must be made before the processes are forked. `picture_bytes` is the size of the largest picture.
    """

    def __init__(self, picture_bytes: int) -> None:
        self.scene = mmap.mmap(-1, SCENE_BYTES)
        self._picture = mmap.mmap(-1, picture_bytes)
        self._drawn = os.eventfd(0, os.EFD_CLOEXEC)

    def picture(self, width: int, height: int) -> NDArray[np.uint8]:
        """Returns the shared memory as a picture of shape (height, width, 3)."""
        return np.frombuffer(self._picture, np.uint8, height * width * 3).reshape(height, width, 3)

    def say_drawn(self) -> None:
        """Tells the slot that its picture is drawn."""
        os.eventfd_write(self._drawn, 1)

    def wait_until_drawn(self) -> None:
        """Waits for the picture that was asked for last. If the renderer dies, the main process ends the waiting."""
        os.eventfd_read(self._drawn)
