"""Defines the contract on a row's videos: they are there, play to their end, and show as many steps as were played."""

import time
from collections.abc import Iterator

from ..campaign import commands
from ..campaign.campaign import RESIDENT_NAMES, Campaign
from ..campaign.matrix import Row
from ..core.artifacts import Manifest, Result
from ..core.errors import Finding
from ..core.lerobot_facts import FILMED_EPISODES
from ..engines import lerobot_eval, video
from ..engines.lerobot_eval import Metrics
from ..reporting import collect

VIDEOS_SECS = 600.0  # for all videos of a run; the hundred that lerobot-eval films take some ten
RECORDING = "eval.recording"  # lerobot-eval's flag to record a dataset, and then no videos


def videos(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a finding where a passed row lacks videos, and for each that does not play or has other frames.

    Videos that take longer than VIDEOS_SECS together are one.
    """
    deadline = time.monotonic() + VIDEOS_SECS
    layout = campaign.layout
    path = layout.run(row.run_id).result
    result = collect.load_result(path)
    if result["status"] != "pass":
        return
    if not result["video_paths"]:
        yield Finding(str(path), "the run has no videos", "Look for video errors in its stderr.log")
        return
    manifest = collect.load_run_manifest(layout.run(row.run_id).manifest)
    frames = _frames(campaign, row, manifest, result)
    remedy = f"Move its run folder away, then run the row again: {commands.gates(layout)}"
    for name in sorted({*result["video_paths"], *frames}):
        film, expected = layout.root / name, frames.get(name)
        if layout.is_left_out(film):
            continue
        if time.monotonic() > deadline:
            what = f"the run's videos take longer than {VIDEOS_SECS:.0f} s to decode"
            yield Finding(str(film), what, "Look at the videos, and at what else this host does")
            return
        if not (shown := video.frame_count(film)):
            yield Finding(str(film), "the video does not play", remedy)
        elif expected and shown not in expected:
            what = f"the video has {shown} frames, but the episode {_words(expected)}"
            yield Finding(str(film), what, remedy)


def _words(expected: range) -> str:
    first, last = expected[0], expected[-1]
    return f"has {first}" if first == last else f"has {first} to {last}"


def _frames(campaign: Campaign, row: Row, manifest: Manifest, result: Result) -> dict[str, range]:
    """Returns the numbers of frames that the video of each filmed episode may have, by the video's name.

    Of a program of the campaign's own nobody knows which episodes it films, and how.
    """
    attempt = campaign.layout.run(row.run_id).attempt(result["attempt"])
    metrics = lerobot_eval.read_metrics(attempt.output, (attempt.stdout, attempt.stderr))
    frames = {}
    for task in metrics.tasks:
        for episode, success in enumerate(task.successes[: _filmed(campaign, row)]):
            film = lerobot_eval.video(attempt.output, task.suite, task.task_id, episode)
            name = campaign.layout.relative(film)
            expected = _expected(campaign, row, manifest, metrics, (task.task_id, episode), success)
            if expected and (name in result["video_paths"] or not campaign.executable):
                frames[name] = expected
    return frames


def _filmed(campaign: Campaign, row: Row) -> int:
    """Returns how many of the first episodes of each task the engine films."""
    if any(flag.startswith(RECORDING) for flag in campaign.settings(row).flags):
        return 0
    return int(campaign.resident.get("videos", 1)) if campaign.is_resident else FILMED_EPISODES


def _expected(
    campaign: Campaign, row: Row, manifest: Manifest, metrics: Metrics, key: tuple[int, int], success: bool
) -> range | None:
    """Returns how many frames the video of an episode has: one a step, or one before them and then one each stride."""
    steps, limit = metrics.lines.get(key, {}).get("steps"), campaign.steps(row)
    if manifest["engine"] in RESIDENT_NAMES:
        stride = max(1, int(campaign.resident.get("video_stride", 4)))
        return range(1 + steps // stride, 2 + steps // stride) if isinstance(steps, int) else None
    if isinstance(steps, int):
        return range(steps, steps + 1)
    if campaign.executable:
        return None
    return range(1, limit + 1) if success else range(limit, limit + 1)
