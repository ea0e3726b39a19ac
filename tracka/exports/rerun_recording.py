"""Writes one episode as a recording for the Rerun viewer: video, instruction, actions and states over the steps.

rerun-sdk is no part of the locked environment, since it takes 400 MB; the extra `rerun` has the versions that lerobot
allows.
"""

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..campaign.campaign import Campaign
from ..core import files, reading
from ..core.errors import Finding, ToolMissing
from ..engines import recorded_arrays, video
from ..report_page import episodes
from ..report_page.episodes import Recorded, ShownEpisode
from ..report_page.traces import LIBERO_NAMES, STATE_NAMES
from ..reporting import results_page

VERSIONS = "rerun-sdk>=0.24,<0.34"  # those of lerobot 0.6.1 (its extra `viz`)
_STEP = "step"


def require_sdk() -> None:
    """Raises ToolMissing where rerun-sdk is not installed."""
    if find_spec("rerun") is None:
        raise ToolMissing(Finding("rerun-sdk", "the package is not installed", f"Install it: pip install '{VERSIONS}'"))


def faults(campaign: Campaign, run_id: str, task: int, number: int) -> Iterator[Finding]:
    """Yields why an episode cannot be exported."""
    where = f"{campaign.layout.run(run_id).episodes}, task {task}, episode {number}"
    episode = find(campaign, run_id, task, number)
    if run_id not in {row.run_id for row in campaign.enabled}:
        yield Finding("--row", f"the campaign has no enabled row {run_id!r}", "Name a row of its matrix")
    elif episode is None:
        yield Finding(where, "the row has played no such episode", "Name one that it has played, counted from 0")
    elif not episode.video and not episode.actions:
        what = "the episode has neither a video nor recorded actions"
        remedy = "Name one of the first episodes of its task, which are filmed, or see `tracka replay`"
        yield Finding(where, what, remedy)
    else:
        yield from _damaged(episode)


def _damaged(episode: ShownEpisode) -> Iterator[Finding]:
    remedy = "Run the row again"
    if episode.video and not video.frame_count(episode.video.path):
        yield Finding(str(episode.video.path), "the video does not play", remedy)
    for kind, (recorded, _) in _series(episode).items():
        if recorded is not None and recorded_arrays.shown(recorded.path) is None:
            yield Finding(str(recorded.path), f"the recorded {kind} cannot be read", remedy)


def find(campaign: Campaign, run_id: str, task: int, number: int) -> ShownEpisode | None:
    """Returns an episode of a row; None where there is none."""
    shown = episodes.of_row(campaign, run_id)
    return next((each for each in shown if (each.task, each.number) == (task, number)), None)


def write(campaign: Campaign, episode: ShownEpisode, output: Path) -> None:
    """Writes the recording of an episode, whole or not at all. The episode must have no faults."""
    import rerun

    files.make_folder(output.parent)
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    name = f"{campaign.layout.root.name}/{episode.name}"
    stream = rerun.RecordingStream("tracka", recording_id=files.sha256(name.encode())[:32], send_properties=False)
    try:
        stream.save(unfinished)
        stream.send_recording_name(name)
        _log(rerun, stream, episode)
        stream.flush()
        stream.disconnect()
        os.replace(unfinished, output)
    finally:
        unfinished.unlink(missing_ok=True)


def _log(rerun: Any, stream: Any, episode: ShownEpisode) -> None:
    ending = "success" if episode.success else "failure"
    steps = "" if episode.steps is None else f" after {episode.steps} steps"
    about = f"init state {episode.init_state}, seed {episode.seed}, {ending}{steps}"
    words = results_page.task_in_words(episode.suite, episode.task)
    for name, text in (("instruction", words), ("episode", about)):
        stream.log(name, rerun.TextDocument(files.redacted(text)), static=True)
    if episode.video:
        _log_video(rerun, stream, episode.video.path)
    for kind, (recorded, names) in _series(episode).items():
        if recorded is not None:
            _log_series(rerun, stream, kind, recorded_arrays.shown(recorded.path), names)


def _log_video(rerun: Any, stream: Any, path: Path) -> None:
    """Logs the video, one frame a step."""
    film = rerun.AssetVideo(contents=reading.content(path, reading.OUTPUT), media_type="video/mp4")
    times = film.read_frame_timestamps_nanos()
    stream.log("video", film, static=True)
    index = rerun.TimeColumn(_STEP, sequence=range(len(times)))
    stream.send_columns("video", indexes=[index], columns=rerun.VideoFrameReference.columns_nanos(times))


def _series(episode: ShownEpisode) -> dict[str, tuple[Recorded | None, Sequence[str]]]:
    """Returns what is recorded at each step: its kind -> its file, and the names that its numbers have in LIBERO."""
    return {"actions": (episode.actions, LIBERO_NAMES), "states": (episode.states, STATE_NAMES)}


def _log_series(rerun: Any, stream: Any, kind: str, values: Any, known_names: Sequence[str]) -> None:
    """Logs each number as a series over the steps."""
    size = values.shape[1]
    names = known_names if size == len(known_names) else [f"number {number}" for number in range(size)]
    index = rerun.TimeColumn(_STEP, sequence=range(len(values)))
    for number, name in enumerate(names):
        place = f"{kind}/{name.replace(' ', '_')}"
        stream.log(place, rerun.SeriesLines(names=name), static=True)
        stream.send_columns(place, indexes=[index], columns=rerun.Scalars.columns(scalars=values[:, number]))
