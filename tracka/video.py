"""Whether a video plays."""

import contextlib
from pathlib import Path


def frame_count(path: Path) -> int:
    """The frames that can be decoded from the first stream of `path`; 0 where it is missing or broken."""
    import av

    count = 0
    with contextlib.suppress(OSError, av.FFmpegError, IndexError), av.open(str(path)) as container:
        count = sum(1 for _ in container.decode(video=0))
    return count
