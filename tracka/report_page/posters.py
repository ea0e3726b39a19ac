"""Makes posters: small pictures of how an episode ended, which stand for its video until somebody plays it.

A poster is named by its video's hash, so that it is made once, however often the page is written.
"""

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core import damaged, files
from ..engines import video
from ..execution.lanes import Lanes

SIDE = 160  # pixels; a frame of LIBERO is 256 or 360 pixels wide
QUALITY = 60
NAME_LENGTH = 32  # digits of the hash


def make(videos: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Returns sha256 of a video -> its poster in `folder`, which is made where it is missing.

    `videos` maps the sha256 of each video to its path. A video that cannot be decoded has no poster.
    """
    places = {sha256: folder / f"{sha256[:NAME_LENGTH]}.webp" for sha256 in videos}
    missing = [sha256 for sha256, place in places.items() if not place.is_file()]
    if missing:
        files.make_folder(folder)
        with Lanes(os.cpu_count() or 1) as pool:
            list(pool.map(lambda sha256: _write(videos[sha256], places[sha256]), missing))
    return {sha256: place for sha256, place in places.items() if place.is_file()}


def _write(film: Path, place: Path) -> None:
    """Writes the last frame of a video as a picture; nothing where no frame can be decoded."""
    import av

    with contextlib.suppress(OSError, av.FFmpegError, IndexError), video.opened(film) as container:
        frame = last_frame(container)
        if frame is not None:
            picture = frame.to_image()
            picture.thumbnail((SIDE, SIDE))
            temporary = place.with_name(f".{place.name}.{os.getpid()}")
            picture.save(temporary, "WEBP", quality=QUALITY)
            damaged.make_way(place)
            os.replace(temporary, place)


def last_frame(container: Any) -> Any:
    """Returns the last frame of an open video, decoded from the last key frame on; None where there is no frame.

    Where the video cannot be searched, or has nothing behind its last key frame, all of it is decoded.
    """
    import av

    if container.duration:
        with contextlib.suppress(av.FFmpegError):
            container.seek(container.duration)
            if (frame := _last(container)) is not None:
                return frame
            container.seek(0)
    return _last(container)


def _last(container: Any) -> Any:
    """Returns the last frame from where the video stands, or the last that is decoded within `video.MOST_SECS`."""
    last, deadline = None, time.monotonic() + video.MOST_SECS
    for frame in container.decode(video=0):
        last = frame
        if time.monotonic() > deadline:
            break
    return last
