"""How slots and builder processes speak to a renderer: the messages, and the memory that a slot shares with it."""

import mmap
import os
import pickle
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


class View(NamedTuple):
    """A picture to be drawn: what is seen by a camera, or by the camera that was used last where that is None."""

    camera_id: int | None
    width: int
    height: int


@dataclass(frozen=True)
class DrawPictures:
    """Asks for pictures of the scene that slot `slot` has stored. `geom_groups` are the groups of geoms to be seen."""

    slot: int
    task: Task
    views: tuple[View, ...]
    geom_groups: tuple[int, ...]


Request = LoadTask | ForgetTask | DrawPictures


def send(renderer: socket.socket, request: Request, *descriptors: int) -> None:
    """Sends a request to a renderer, with descriptors that it gets copies of."""
    socket.send_fds(renderer, [pickle.dumps(request)], descriptors)


def receive(requests: socket.socket) -> tuple[Request, Sequence[int]]:
    """Waits for the next request and returns it with its descriptors."""
    message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 1)
    return pickle.loads(message), descriptors


class Channel:
    """What a slot and the renderers share: the slot's scene, its pictures, and the signal that they are drawn.

    Must be made before the processes are forked. `picture_bytes` is the size of the largest picture, and `n_pictures`
    the number of pictures that may be asked for at a time.
    """

    def __init__(self, picture_bytes: int, n_pictures: int) -> None:
        self.scene = mmap.mmap(-1, SCENE_BYTES)
        self._picture_bytes = picture_bytes
        self._pictures = mmap.mmap(-1, picture_bytes * n_pictures)
        self._drawn = os.eventfd(0, os.EFD_CLOEXEC)

    def picture(self, number: int, width: int, height: int) -> NDArray[np.uint8]:
        """Returns the shared memory of a picture as an array of shape (height, width, 3)."""
        start = number * self._picture_bytes
        return np.frombuffer(self._pictures, np.uint8, height * width * 3, start).reshape(height, width, 3)

    def say_drawn(self) -> None:
        """Tells the slot that its pictures are drawn."""
        os.eventfd_write(self._drawn, 1)

    def wait_until_drawn(self) -> None:
        """Waits for the pictures that were asked for last. If the renderer dies, the main process ends the waiting."""
        os.eventfd_read(self._drawn)
