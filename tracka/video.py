"""Whether a video plays."""

import contextlib
from functools import cache
from pathlib import Path


def frame_count(path: Path) -> int:
    """The frames that can be decoded from the first stream of `path`; 0 where it is missing or broken."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return _decoded(path, status.st_size, status.st_mtime_ns)


@cache
def _decoded(path: Path, size: int, changed: int) -> int:
    """The count for one state of the file: handoff and verdict ask again in the same process."""
    import av

    count = 0
    with contextlib.suppress(OSError, av.FFmpegError, IndexError), av.open(str(path)) as container:
        count = sum(1 for _ in container.decode(video=0))
    return count
