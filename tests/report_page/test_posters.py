"""Posters: how an episode ended, as a small picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tracka.report_page import posters

FRAMES, KEY_FRAMES = 40, 12


def film(path: Path, frames: int) -> None:
    """Writes a video that gets brighter from frame to frame, with a key frame every so many frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=80)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = KEY_FRAMES
        for number in range(frames):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 6 * number, np.uint8), "rgb24"))
            )
        container.mux(stream.encode())


def brightness(picture: Path) -> float:
    with Image.open(picture) as image:
        return float(np.asarray(image.convert("L")).mean())


@pytest.mark.parametrize("frames", [1, KEY_FRAMES, KEY_FRAMES + 1, FRAMES])
def test_a_poster_is_the_last_frame(tmp_path: Path, frames: int) -> None:
    film(tmp_path / "video.mp4", frames)
    made = posters.make({"a" * 64: tmp_path / "video.mp4"}, tmp_path / "posters")
    assert brightness(made["a" * 64]) == pytest.approx(6 * (frames - 1), abs=3)


class Counted:
    """A video that counts the frames that are decoded from it."""

    def __init__(self, container: Any) -> None:
        self.container, self.duration, self.seek, self.decoded = container, container.duration, container.seek, 0

    def decode(self, **words: int) -> Iterator[Any]:
        for frame in self.container.decode(**words):
            self.decoded += 1
            yield frame


def test_of_a_long_video_no_more_is_decoded_than_from_the_last_key_frame_on(tmp_path: Path) -> None:
    film(tmp_path / "video.mp4", FRAMES)
    with av.open(str(tmp_path / "video.mp4")) as container:
        counted: Any = Counted(container)
        assert posters.last_frame(counted) is not None
        assert 0 < counted.decoded <= KEY_FRAMES


def test_a_file_that_is_no_video_has_no_poster(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_bytes(b"no video")
    assert posters.make({"a" * 64: tmp_path / "video.mp4"}, tmp_path / "posters") == {}
