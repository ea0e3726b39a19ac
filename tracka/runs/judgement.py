"""Judges a passed attempt again: compares the files that it left with what its manifest and its result say.

An edited number is found in whichever file it stands, unless all files that state the number are edited alike.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..campaign.layout import Layout, RunFolder
from ..core import files
from ..core.artifacts import Manifest, Result, RowMarker
from ..core.errors import Finding, TrackaError, UsageError, shortened
from ..engines import failure, recorded_arrays, video
from ..engines.failure import Failure
from ..engines.lerobot_eval import Metrics
from ..execution import gpu
from ..execution.process import Exit
from . import row_state
from .row_state import SLACK_SECS

RECORDS = ("run_manifest.json", "result.json")  # these two record what is true of the other files
HASHING_SECS = 600.0  # for all files of an attempt, which the largest that are allowed take a minute for
VIDEOS_SECS = 60.0  # for the first frames of all videos, a hundred of which take a second


class TakesTooLong(TrackaError):
    """Raised where the files of an attempt take longer to read than judging may take."""


def run_again(layout: Layout) -> str:
    """Returns the remedy for a row whose evidence does not hold."""
    return (
        f"Run the row again: {commands.gates(layout)}, or tracka sweep --resume; the old attempt is kept in its folder"
    )


def file_hashes(folder: RunFolder) -> dict[str, str]:
    """Returns the sha256 of each file that an attempt left, except RECORDS, by its path in the attempt's folder.

    Raises TakesTooLong after HASHING_SECS.
    """
    deadline = time.monotonic() + HASHING_SECS
    hashes: dict[str, str] = {}
    for path in folder.files():
        if time.monotonic() > deadline:
            what = f"the files of the attempt took longer than {HASHING_SECS:.0f} s to read"
            raise TakesTooLong(Finding(str(folder.path), what, "Look at the disk, and at what the evaluation leaves"))
        name = path.relative_to(folder.path).as_posix()
        hashes |= {} if name in RECORDS else {name: files.sha256_file(path)}
    return hashes


def unsound_output(folder: RunFolder) -> Failure | None:
    """Returns the failure of an evaluation that left what must not be read, such as a named pipe; None without one."""
    faults = folder.faults()
    if not faults:
        return None
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    where = shortened(faults[0].path.relative_to(folder.path))
    return Failure("invalid_result", f"exit code 0, but of what the evaluation left, {where}: {faults[0].what}{more}")


def unplayable_video(folder: RunFolder) -> Failure | None:
    """Returns the failure of an evaluation that left a video of which nothing can be decoded; None without one.

    Such a video stays what it is, so the row has to run again. Videos that take longer than VIDEOS_SECS are one, too.
    """
    deadline = time.monotonic() + VIDEOS_SECS
    for path in folder.videos():
        where = shortened(path.relative_to(folder.path))
        if time.monotonic() > deadline:
            what = f"exit code 0, but its videos take longer than {VIDEOS_SECS:.0f} s to open, up to {where}"
            return Failure("invalid_result", what)
        if not video.plays(path):
            return Failure("invalid_result", f"exit code 0, but the video {where} does not play")
    return None


def changed_files(layout: Layout, folder: RunFolder, result: Result) -> Iterator[Finding]:
    """Yields a finding for each file of an attempt that is not as it was when the attempt's result was written."""
    hashes = file_hashes(folder)
    for name in sorted({**result["files"], **hashes}):
        before, now = result["files"].get(name), hashes.get(name)
        if before != now and not (now is None and layout.is_left_out(folder.path / name)):
            change = "removed" if now is None else "added" if before is None else "changed"
            yield Finding(str(folder.path / name), f"the file was {change} after the attempt ended", run_again(layout))


def failure_signs(
    layout: Layout, attempt: RunFolder, manifest: Manifest, result: Result, metrics: Metrics
) -> Iterator[Finding]:
    """Yields a finding if the attempt's logs and metrics are those of a failure.

    The attempt's manifest says which episodes to expect.
    """
    code = cast(int, result["exit_code"])  # null only in the result of a failure
    process_exit = Exit(code, "", result["duration_sec"])
    n_episodes: int = manifest["n_episodes"]
    expected = dict.fromkeys(manifest["task_ids"], n_episodes)
    logs = (attempt.stdout, attempt.stderr)
    device = gpu.torch_name(manifest["gpu_id"])
    if run_failure := failure.diagnose(process_exit, metrics, manifest["task_suite"], expected, logs, device):
        what = f"the result says pass, but the attempt's files show {run_failure.reason}: {run_failure.message}"
        yield Finding(str(attempt.path), what, run_again(layout))


def unsound_records(layout: Layout, attempt: RunFolder, manifest: Manifest, metrics: Metrics) -> Iterator[Finding]:
    """Yields a finding for each episode whose recorded actions or states are not those of its line.

    Of lerobot-eval with a listener an episode without a record is one, too.
    """
    played = {(task.task_id, episode) for task in metrics.tasks for episode in range(len(task.successes))}
    unrecorded = sorted(played - {name for name, line in metrics.lines.items() if "actions_sha" in line})
    if "listener" in manifest and unrecorded:
        task, episode = unrecorded[0]
        what = f"{len(unrecorded)} of {len(played)} episodes have no record, first episode {episode} of task {task}"
        yield Finding(str(attempt.output / "episodes.jsonl"), what, run_again(layout))
    for (task, episode), line in metrics.lines.items():
        for kind in recorded_arrays.KINDS:
            if sha256 := line.get(f"{kind}_sha"):
                path = recorded_arrays.path(attempt.output, kind, manifest["task_suite"], task, episode)
                yield from _unsound_array(layout, path, sha256)


def _unsound_array(layout: Layout, path: Path, sha256: str) -> Iterator[Finding]:
    try:
        recorded_arrays.require(path, sha256)
    except UsageError as error:
        yield from (Finding(str(path), finding.what, run_again(layout)) for finding in error.findings)


def impossible_times(
    layout: Layout, path: Path, manifest: Manifest, result: Result, marker: RowMarker | None
) -> Iterator[Finding]:
    """Yields a finding for each impossible time of a run.

    These are an end before the start or in the future, a duration that is longer than the time between start and end,
    and marker steps out of order.
    """
    start, end = files.timestamp(manifest["start_time_utc"]), files.timestamp(result["end_time_utc"])
    if end < start:
        yield Finding(str(path), f"the run ended at {result['end_time_utc']}, before it began", run_again(layout))
    elif result["duration_sec"] > end - start + SLACK_SECS:
        what = f"the run took {result['duration_sec']:.0f} s, but its start and end are {end - start:.0f} s apart"
        yield Finding(str(path), what, run_again(layout))
    if end > datetime.now(UTC).timestamp() + SLACK_SECS:
        what = f"the run ended at {result['end_time_utc']}, which is in the future"
        yield Finding(str(path), what, run_again(layout))
    if marker and (disordered := row_state.disordered_times(marker)):
        yield Finding(str(path), f"the row's marker has steps out of order, at {disordered[0]}", run_again(layout))


def pretended_gpus(campaign: Campaign, path: Path, manifest: Manifest) -> Iterator[Finding]:
    """Yields a finding if a run of lerobot-eval itself had a pretended GPU.

    Only tests pretend GPUs, for programs that stand in for lerobot-eval.
    """
    if str(manifest["gpu_uuid"]).startswith(gpu.PRETENDED) and not campaign.executable:
        what = f"the GPU {manifest['gpu_uuid']} is not real: {gpu.PRETEND} pretends it"
        yield Finding(str(path), what, f"Unset {gpu.PRETEND}, and run the row with --allow-overwrite")


def lost_attempts(numbers: Sequence[int], marker: RowMarker | None) -> int:
    """Returns how many attempts no longer have a folder.

    An attempt existed if the row's marker says that it ended, or if a later attempt exists. `numbers` are those of the
    attempts that have a folder.
    """
    history = marker["history"] if marker else ()
    ended_attempts = sum(step["status"] in ("pass", "fail") and step["attempt"] > 0 for step in history)
    return int(max(ended_attempts, *numbers, 0)) - len(numbers)
