"""Reads the episodes that a campaign's rows have played, each with its video and its recorded actions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..campaign.layout import RunFolder
from ..core import files
from ..core.artifacts import Result
from ..engines import lerobot_eval, recorded_arrays
from ..runs import replays, run
from ..runs.replays import RecordedEpisode

KEYS = frozenset(("suite", "task", "episode", "success", "init_state", "seed", "reset_ordinal"))


@dataclass(frozen=True)
class Recorded:
    """A file of an episode, with its sha256 as the result of its run has it."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class ShownEpisode:
    """One episode of a row's last attempt. `video`, `actions` and `states` are None where there are none.

    `film` is where the engine puts the episode's video, whether it filmed the episode or not.
    """

    run_id: str
    suite: str
    task: int
    number: int  # counted from 0 in its task
    success: bool
    init_state: int
    seed: int
    reset_ordinal: int
    steps: int | None
    film: Path
    video: Recorded | None
    actions: Recorded | None
    states: Recorded | None
    replay: str | None = None  # the command that plays the episode again; None without a record
    is_filmed_by_replay: bool = False

    @property
    def name(self) -> str:
        """The episode's name in the page, and in its address: `RUN_ID/TASK/EPISODE`."""
        return f"{self.run_id}/{self.task}/{self.number}"


def read(campaign: Campaign) -> list[ShownEpisode]:
    """Returns the episodes of all enabled rows, in the order of the matrix.

    A row without a result, or with an episodes.jsonl that cannot be read, has none.
    """
    return [episode for row in campaign.enabled for episode in of_row(campaign, row.run_id)]


def of_row(campaign: Campaign, run_id: str) -> Iterator[ShownEpisode]:
    """Yields the episodes of one row, in the order of its episodes.jsonl."""
    folder, result = campaign.layout.run(run_id), run.read_result(campaign.layout, run_id)
    if result is None or result["dry_run"]:
        return
    attempt = folder.attempt(result["attempt"])
    records = {record.key: record for record in replays.recorded(campaign.layout, run_id)}
    for line in files.read_lines_or_empty(folder.episodes):
        if line.keys() >= KEYS:
            episode = _episode(run_id, line, attempt, result)
            record = records.get((episode.task, episode.number))
            yield _with_replay(campaign, episode, record) if record else episode


def _with_replay(campaign: Campaign, episode: ShownEpisode, record: RecordedEpisode) -> ShownEpisode:
    """Returns a recorded episode with the command that plays it again, and with the replay's film if it has no own."""
    command = commands.replay(campaign.layout, episode.run_id, episode.task, episode.number)
    replay = None if episode.video else replays.filmed(record)
    video = Recorded(record.film, replay["film_sha256"]) if replay else episode.video
    return replace(episode, replay=command, video=video, is_filmed_by_replay=replay is not None)


def _episode(run_id: str, line: Mapping[str, Any], attempt: RunFolder, result: Result) -> ShownEpisode:
    suite, task, number = str(line["suite"]), line["task"], line["episode"]
    actions, states = (
        recorded_arrays.path(attempt.output, kind, suite, task, number) for kind in recorded_arrays.KINDS
    )
    film = lerobot_eval.video(attempt.output, suite, task, number)
    return ShownEpisode(
        run_id,
        suite,
        task,
        number,
        bool(line["success"]),
        line["init_state"],
        line["seed"],
        line["reset_ordinal"],
        line.get("steps"),
        film,
        _recorded(film, attempt, result),
        _recorded(actions, attempt, result),
        _recorded(states, attempt, result),
    )


def _recorded(path: Path, attempt: RunFolder, result: Result) -> Recorded | None:
    """Returns a file that the attempt left and that is still there; videos may have been pruned."""
    sha256 = result["files"].get(str(path.relative_to(attempt.path))) if path.is_relative_to(attempt.path) else None
    return Recorded(path, sha256) if sha256 and path.is_file() else None
