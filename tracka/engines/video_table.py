"""Counts the frames of an MP4 by its own tables (ISO 14496-12), where no decoder is installed.

A table says how many frames there are, not whether each can be decoded.
"""

from collections.abc import Iterator
from pathlib import Path

from ..core import reading

_HOLDERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}  # boxes that are looked into
_HEAD = 8  # bytes of a box's size and kind


def frame_count(path: Path) -> int:
    """Returns the number of frames of the first video track; 0 where the file is missing, or no whole MP4."""
    try:
        data = reading.content(path, reading.OUTPUT)
        return next((count for is_video, count in _tracks(data) if is_video), 0)
    except (OSError, ValueError):
        return 0


def _tracks(data: bytes) -> Iterator[tuple[bool, int]]:
    """Yields of each track whether it is video, and its number of frames. Raises ValueError for a broken file."""
    for kind, begin, end in _boxes(data, 0, len(data)):
        if kind == b"moov":
            for inner, first, last in _boxes(data, begin, end):
                if inner == b"trak":
                    yield _track(data, first, last)


def _track(data: bytes, begin: int, end: int) -> tuple[bool, int]:
    is_video, count = False, 0
    for kind, first, last in _boxes(data, begin, end):
        if kind in _HOLDERS:
            inner_video, inner_count = _track(data, first, last)
            is_video, count = is_video or inner_video, count or inner_count
        elif kind == b"hdlr":
            is_video = data[first + 8 : first + 12] == b"vide"
        elif kind == b"stsz":
            count = int.from_bytes(data[first + 8 : first + 12])
    return is_video, count


def _boxes(data: bytes, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields kind, begin and end of each box's content. Raises ValueError where a box reaches beyond its holder."""
    while begin + _HEAD <= end:
        size, kind, head = int.from_bytes(data[begin : begin + 4]), data[begin + 4 : begin + _HEAD], _HEAD
        if size == 1:
            size, head = int.from_bytes(data[begin + _HEAD : begin + 16]), 16
        elif size == 0:
            size = end - begin
        if size < head or begin + size > end:
            raise ValueError("a box reaches beyond the file")
        yield kind, begin + head, begin + size
        begin += size
