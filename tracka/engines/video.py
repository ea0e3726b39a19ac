"""Checks whether a video plays, and whether it shows a picture."""

import contextlib
import importlib.util
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..core import reading
from . import video_table

# A frame shows one colour if the standard deviation of its brightness, 0 to 255, is below this: LIBERO's have 40 to 60.
PLAIN = 2.0
MOST_SECS = 60  # for one video; LIBERO's take less than one


@dataclass(frozen=True)
class Video:
    """What can be decoded from a file: the number of its frames, and whether each of them shows one colour."""

    frames: int = 0
    plain: bool = False


def opened(path: Path) -> Any:  # av's container, which is dear to import
    """Opens a regular file as MP4, whatever it is: a playlist, which may name other files and hosts, is no video.

    Raises OSError, or the decoder's FFmpegError, where the file is none.
    """
    import av

    reading.require_regular(path, path.stat(), reading.OUTPUT)
    return av.open(str(path), format="mp4")


def can_decode() -> bool:
    """Returns whether a decoder is installed, without which nobody knows what a video shows."""
    return importlib.util.find_spec("av") is not None


def load_decoder() -> None:
    """Imports the decoder, if one is installed, so that the first film does not wait for it."""
    with contextlib.suppress(ImportError):
        import av  # noqa: F401


def frame_count(path: Path) -> int:
    """Returns the number of frames that can be decoded from the first video stream of `path`.

    The number is 0 where the file is missing or broken from its beginning.
    """
    return decode(path).frames


def plays(path: Path) -> bool:
    """Returns whether the first frame of `path` can be decoded; without a decoder, whether its tables have a frame."""
    if not can_decode():
        return video_table.frame_count(path) > 0
    import av

    with contextlib.suppress(OSError, av.FFmpegError, IndexError), opened(path) as container:
        return next(container.decode(video=0), None) is not None
    return False


def decode(path: Path) -> Video:
    """Returns what can be decoded from the first video stream of `path`.

    A file that is missing or broken from its beginning gives an empty Video.
    """
    try:
        status = path.stat()
        reading.require_regular(path, status, reading.OUTPUT)
    except OSError:
        return Video()
    return _decode_state(path, status.st_size, status.st_mtime_ns)


@cache
def _decode_state(path: Path, size: int, mtime_ns: int) -> Video:
    """Decodes one state of the file only once, since handoff and verdict ask again in the same process."""
    try:
        import av
        import numpy as np
    except ImportError:  # a small install, which verifies bundles
        return Video(video_table.frame_count(path))
    count, plain, deadline = 0, True, time.monotonic() + MOST_SECS
    with contextlib.suppress(OSError, av.FFmpegError, IndexError), opened(path) as container:
        for frame in container.decode(video=0):
            count += 1
            if time.monotonic() > deadline:
                return Video()
            if plain:  # one frame with a picture is enough, so most frames are only counted
                plain = float(np.std(frame.to_ndarray(format="gray"))) < PLAIN
    return Video(count, plain and count > 0)
