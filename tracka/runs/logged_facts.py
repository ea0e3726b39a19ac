"""Holds the logs of a passed attempt against what it reports: they repeat its figures, its request and its times."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..campaign.campaign import RESIDENT_NAMES
from ..campaign.layout import RunFolder
from ..core import files, reading
from ..core.artifacts import Manifest, Result
from ..core.errors import UsageError
from ..engines import episode_lines, lerobot_eval
from ..engines.lerobot_eval import Metrics
from . import logged_rollouts
from .row_state import SLACK_SECS

_PROGRESS = re.compile(r"^(\d+) of (\d+) episodes, (\d+) successes,")  # what the resident engine prints
_SECONDS = re.compile(r"'eval_s': ([0-9.e+-]+)")
_SEED = re.compile(r"^ 'seed': (\d+)[,}]", re.MULTILINE)  # in the configuration that lerobot-eval prints
_OUTPUT = re.compile(r"^ 'output_dir': PosixPath\('([^']*)'\)", re.MULTILINE)
_TIME = re.compile(r"^(?:DEBUG|INFO|WARNING|ERROR) (\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) ", re.MULTILINE)
Facts = Iterator[tuple[str, str]]  # (file below the attempt, what is wrong)


def faults(
    attempt: RunFolder, manifest: Manifest, result: Result, metrics: Metrics, limit: int, is_own_program: bool
) -> Facts:
    """Yields where the logs of an evaluation that ended well do not repeat what its files say.

    Of a program of the campaign's own only the overall metrics are asked for.
    """
    logs = (attempt.stdout, attempt.stderr)
    if metrics.source == "eval_info.json" and not any(map(lerobot_eval.parse_log, logs)):
        yield attempt.stderr.name, "the log does not tell the overall metrics, which every evaluation prints at its end"
    if manifest["engine"] in RESIDENT_NAMES:
        yield from ((attempt.stdout.name, what) for what in _progress_faults(_progress(attempt), metrics))
    elif not is_own_program:
        slots = min(manifest["batch_size"], manifest["n_episodes"])
        yield from (
            (attempt.stderr.name, what) for what in logged_rollouts.faults(attempt.stderr, metrics, slots, limit)
        )
    if not is_own_program:
        yield from ((attempt.stderr.name, what) for what in _text_faults(attempt, manifest, result))


def _text_faults(attempt: RunFolder, manifest: Manifest, result: Result) -> Iterator[str]:
    """Yields where the words of the log are of another request, or of another time, than the attempt."""
    text = reading.text_or_empty(attempt.stderr, reading.LOG)
    for name, pattern, expected in (
        ("seed", _SEED, str(manifest["seed"])),
        ("output_dir", _OUTPUT, _flag(manifest, "output_dir")),
        ("eval_s", _SECONDS, _eval_seconds(attempt)),
    ):
        logged = set(pattern.findall(text))
        if logged and expected is not None and logged != {expected}:
            yield f"it tells of {name} {', '.join(sorted(logged))}, but other files of {expected}"
    if output := _flag(manifest, "output_dir"):
        expected_end = f"/{manifest['run_id']}/attempts/{manifest['attempt']}/eval"
        if not output.endswith(expected_end):
            yield f"the command's output_dir is {output}, which is not the attempt's"
    times = [f"{day}T{time}Z" for day, time in _TIME.findall(text)]  # rows run with TZ=UTC
    begin, end = files.timestamp(manifest["start_time_utc"]), files.timestamp(result["end_time_utc"])
    if times and not begin - SLACK_SECS <= _moment(min(times)) <= _moment(max(times)) <= end + SLACK_SECS:
        span = f"{manifest['start_time_utc']} to {result['end_time_utc']}"
        yield f"it was written from {min(times)} to {max(times)}, but the attempt lasted from {span}"


def _moment(utc: str) -> float:
    try:
        return files.timestamp(utc)
    except UsageError:
        return 0.0


def _flag(manifest: Manifest, name: str) -> str | None:
    start = f"--{name}="
    return next((word.removeprefix(start) for word in manifest["command"] or () if word.startswith(start)), None)


def _eval_seconds(attempt: RunFolder) -> str | None:
    """Returns how long the episodes took by eval_info.json, as Python prints it."""
    try:
        info: Mapping[str, Any] = files.read_json(attempt.output / "eval_info.json", reading.RESULTS, not_finite=True)
        return repr(info["overall"]["eval_s"])
    except (UsageError, KeyError, TypeError):
        return None


def _progress(attempt: RunFolder) -> list[tuple[int, int, int]]:
    """Returns what the resident engine printed after each episode: played, expected and succeeded episodes."""
    matches = (_PROGRESS.match(line) for line in reading.lines(attempt.stdout))
    return [(int(match[1]), int(match[2]), int(match[3])) for match in matches if match]


def _progress_faults(printed: Sequence[tuple[int, int, int]], metrics: Metrics) -> Iterator[str]:
    """Yields where what was printed after each episode is not what was played; kept episodes were printed before."""
    played = [line for line in metrics.lines.values() if episode_lines.ATTEMPT not in line]
    if len(printed) != len(played):
        yield f"the log tells of {len(printed)} episodes, but {len(played)} were played"
    elif printed and printed[-1][::2] != (len(metrics.lines), metrics.successes):
        count, _, successes = printed[-1]
        yield f"the log ends with {successes} of {count} successes, but other files have {metrics.successes} successes"
