"""Whether a video plays, and whether there is anything to be seen on it."""

import contextlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PLAIN = 2.0  # deviation of a frame's brightness, of 255, below which it shows one colour; LIBERO's frames have 40 to 60


@dataclass(frozen=True)
class Video:
    """What can be decoded of a file: the number of its frames, and whether each of them shows one colour."""

    frames: int = 0
    plain: bool = False


def frame_count(path: Path) -> int:
    """The frames that can be decoded from the first stream of `path`; 0 where it is missing or broken."""
    return look(path).frames


def look(path: Path) -> Video:
    """What can be decoded from the first stream of `path`; nothing where it is missing or broken."""
    try:
        status = path.stat()
    except OSError:
        return Video()
    return _decoded(path, status.st_size, status.st_mtime_ns)


@cache
def _decoded(path: Path, size: int, changed: int) -> Video:
    """The same for one state of the file: handoff and verdict ask again in the same process."""
    import av
    import numpy as np

    count, plain = 0, True
    with contextlib.suppress(OSError, av.FFmpegError, IndexError), av.open(str(path)) as container:
        for frame in container.decode(video=0):
            count += 1
            if plain:  # one frame with a picture settles it, so most frames are only counted
                plain = float(np.std(frame.to_ndarray(format="gray"))) < PLAIN
    return Video(count, plain and count > 0)
