"""The result files of an evaluation: episodes.jsonl as it goes, eval_info.json in lerobot-eval's form at its end.

Guarantees: an episode is on disk, whole, before the next one is recorded; eval_info.json appears whole or not at all.
An evaluation that resumes adds its episodes to those that are there, and changes none of them.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core import files, reading
from ...core.errors import Finding, UsageError
from .. import episode_lines, recorded_arrays
from .episode import Episode, EpisodeOutcome

PlayedEpisode = tuple[Episode, EpisodeOutcome]
# control step, from 0 -> SHA-256 of the observation that the policy got before it
ObservationHashes = Mapping[int, str]


def line(
    episode: Episode,
    outcome: EpisodeOutcome,
    seconds: float,
    observation_hashes: ObservationHashes,
    unit: str,
    precision: str | None,
) -> dict[str, Any]:
    """Returns the content of an episode's line in episodes.jsonl. `seconds` is the time since the evaluation's start.

    `unit` says what would have to be played again as a whole: the episode, its batch or the row. `precision` is the
    mode by which the policy answered the episode. The key `observations`, which is for the parity gate, is left out
    where no observation was hashed.
    """
    content = {
        "suite": episode.suite,
        "task": episode.task_id,
        "episode": episode.number,
        "init_state": episode.init_state,
        "seed": episode.seed,
        "reset_ordinal": episode.ordinal,
        "success": outcome.success,
        "steps": outcome.steps,
        "sum_reward": outcome.sum_reward,
        "max_reward": outcome.max_reward,
        "actions_sha": outcome.actions_sha,
        "first_state_sha": outcome.first_state,
        "final_state_sha": outcome.final_state,
        episode_lines.UNIT: unit,
        episode_lines.PRECISION: precision,
        "at_secs": round(seconds, 3),
    }
    return content | (
        {"observations": {str(step): sha for step, sha in observation_hashes.items()}} if observation_hashes else {}
    )


def played_before(folder: Path, episodes: Sequence[Episode]) -> tuple[list[PlayedEpisode], set[str]]:
    """Returns those of `episodes` that `folder` has already, with their outcomes, and the units of their lines.

    Raises UsageError where a line is damaged, or of another episode.
    """
    path = folder / episode_lines.NAME
    if not path.exists():
        return [], set()
    by_key = {(episode.task_id, episode.number): episode for episode in episodes}
    lines = files.read_lines(path)
    if len({episode_lines.key(each) for each in lines}) < len(lines):
        raise UsageError(Finding(str(path), "an episode has several lines", "Run without --resident.resume"))
    played = [(by_key.get(episode_lines.key(each) or (-1, -1)), each) for each in lines]
    for number, (episode, each) in enumerate(played, 1):
        if episode is None or not episode_lines.is_sound(folder, _row_of(episodes), each):
            what = "this is not a whole episode of these flags, with its actions"
            raise UsageError(Finding(f"{path}, line {number}", what, "Run without --resident.resume"))
    kept = [(episode, _outcome(folder, each)) for episode, each in played if episode is not None]
    return kept, {each[episode_lines.UNIT] for each in lines}


def _row_of(episodes: Sequence[Episode]) -> episode_lines.RowEpisodes:
    first, tasks = episodes[0], list(dict.fromkeys(episode.task_id for episode in episodes))
    return episode_lines.RowEpisodes(
        first.suite, tasks, len(episodes) // len(tasks), first.batch_size, first.seed - first.number
    )


def _outcome(folder: Path, content: Mapping[str, Any]) -> EpisodeOutcome:
    """Returns an outcome as it was recorded; the actions have the type that they were played with."""
    return EpisodeOutcome(
        content["success"],
        content["sum_reward"],
        content["max_reward"],
        reading.array(episode_lines.actions(folder, content)),
        content["first_state_sha"],
        content["final_state_sha"],
    )


class Record:
    """Writes the files of one evaluation in `folder`, and prints its progress on stdout.

    `before` has the episodes that `folder` holds already, where the evaluation resumes; it is None for a new one.
    `unit` is that of the lines, once it is known how the policy is asked. Raises FileExistsError where `folder` has an
    episodes.jsonl already and the evaluation is new.
    """

    unit = episode_lines.ROW

    def __init__(self, folder: Path, expected: int, before: Sequence[PlayedEpisode] | None = None) -> None:
        self.folder, self.expected = folder, expected
        self.played: list[PlayedEpisode] = list(before or ())
        self.kept = len(self.played)
        self.start = time.monotonic()
        self.first: float | None = None
        (folder / recorded_arrays.ACTIONS).mkdir(parents=True, exist_ok=True)
        mode = "x" if before is None else "a"
        self.log = (folder / episode_lines.NAME).open(mode, encoding="utf-8")

    def __call__(
        self,
        episode: Episode,
        outcome: EpisodeOutcome,
        observation_hashes: ObservationHashes,
        precision: str | None = None,
    ) -> None:
        """Writes the actions and the line of an episode that has ended, and prints the progress."""
        name = (episode.suite, episode.task_id, episode.number)
        np.save(recorded_arrays.path(self.folder, recorded_arrays.ACTIONS, *name), outcome.actions)
        now = time.monotonic() - self.start
        content = line(episode, outcome, now, observation_hashes, self.unit, precision)
        self.log.write(json.dumps(content) + "\n")
        self.log.flush()
        os.fsync(self.log.fileno())
        self.played.append((episode, outcome))
        print(self._progress(now), flush=True)

    def _progress(self, now: float) -> str:
        done, won = len(self.played), sum(outcome.success for _, outcome in self.played)
        if self.first is None:
            self.first = now
        rate = 60 * (done - self.kept - 1) / (now - self.first) if now > self.first else 0.0
        left = f", about {60 * (self.expected - done) / rate:.0f} s left" if rate else ""
        return f"{done} of {self.expected} episodes, {won} successes, {rate:.1f} episodes/min{left}"

    def ordered(self) -> list[PlayedEpisode]:
        """Returns the episodes by task and number, the order in which lerobot-eval lists them."""
        return sorted(self.played, key=lambda episode: (episode[0].task_id, episode[0].number))

    def close(self, videos: dict[int, list[str]]) -> dict[str, Any]:
        """Writes eval_info.json and returns its content; `videos` has the paths of each task's videos."""
        self.log.close()
        info = eval_info(self.ordered(), videos, time.monotonic() - self.start)
        files.write_json(self.folder / "eval_info.json", info)
        return info


def eval_info(played: Sequence[PlayedEpisode], videos: dict[int, list[str]], seconds: float) -> dict[str, Any]:
    """Returns the content of eval_info.json, with the keys and the arithmetic of lerobot-eval 0.6.1."""
    tasks = list(dict.fromkeys((episode.suite, episode.task_id) for episode, _ in played))
    per_task = [
        {
            "task_group": suite,
            "task_id": task_id,
            "metrics": _metrics(
                (outcome for episode, outcome in played if episode.task_id == task_id), videos.get(task_id, [])
            ),
        }
        for suite, task_id in tasks
    ]
    outcomes = [outcome for _, outcome in played]
    overall = _aggregate(outcomes, [path for paths in videos.values() for path in paths])
    return {
        "per_task": per_task,
        "per_group": dict.fromkeys(dict.fromkeys(suite for suite, _ in tasks), overall),
        "overall": overall | {"eval_s": seconds, "eval_ep_s": seconds / max(1, len(outcomes))},
    }


def _metrics(outcomes: Iterable[EpisodeOutcome], videos: Sequence[str]) -> dict[str, Any]:
    task_outcomes = list(outcomes)
    return {
        "sum_rewards": [outcome.sum_reward for outcome in task_outcomes],
        "max_rewards": [outcome.max_reward for outcome in task_outcomes],
        "successes": [outcome.success for outcome in task_outcomes],
        "video_paths": list(videos),
        "predicted_video_paths": [],
    }


def _aggregate(outcomes: Sequence[EpisodeOutcome], videos: Sequence[str]) -> dict[str, Any]:
    return {
        "avg_sum_reward": float(np.mean([outcome.sum_reward for outcome in outcomes])),
        "avg_max_reward": float(np.mean([outcome.max_reward for outcome in outcomes])),
        "pc_success": float(np.mean([outcome.success for outcome in outcomes]) * 100),
        "n_episodes": len(outcomes),
        "video_paths": list(videos),
        "predicted_video_paths": [],
    }
