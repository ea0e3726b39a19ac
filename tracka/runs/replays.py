"""Plays recorded episodes of a run again, judges each against its record, and keeps the film beside the judgement.

Guarantees: a run folder is only read. An episode's file below `replays/` is whole or absent, and says what its film is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..campaign import commands, path_safety
from ..campaign.campaign import Campaign
from ..campaign.layout import Layout, RunFolder
from ..core import damaged, files, held_folder, schema
from ..core.artifacts import Manifest
from ..core.errors import Finding, TrackaError, UsageError
from ..core.replayed import PlayedOutcome, Replay
from ..engines import recorded_arrays, software
from ..execution import environment, gpu, process
from ..execution.process import Bounds
from . import run

PROGRAM = "tracka.engines.replay"
ANSWERS = "answers.jsonl"
AGAIN = "Mend the cause, then play the episode again"
OUTCOME = ("success", "steps", "first_state_sha", "final_state_sha")
BEGINNING = ("suite", "task", "episode", "init_state", "seed", "reset_ordinal")
NEEDED = frozenset((*OUTCOME, *BEGINNING, "actions_sha"))
SOFT_RESETS = "--env.hard_reset=false"


@dataclass(frozen=True)
class RecordedEpisode:
    """An episode with its record: the line that the engine wrote, and the files of its actions and of its replay."""

    run_id: str
    attempt: int
    line: Mapping[str, Any]
    actions: Path
    film: Path

    @property
    def key(self) -> tuple[int, int]:
        """Returns the LIBERO task and the episode's number in it."""
        return self.line["task"], self.line["episode"]

    @property
    def judgement(self) -> Path:
        """Returns the file that says how the replay went."""
        return self.film.with_suffix(".json")

    @property
    def outcome(self) -> PlayedOutcome:
        """Returns how the episode went when it was recorded."""
        return cast(PlayedOutcome, {name: self.line[name] for name in OUTCOME})


def recorded(layout: Layout, run_id: str) -> list[RecordedEpisode]:
    """Returns the episodes of a run's last attempt that can be played again; empty for a run without records."""
    folder, result = layout.run(run_id), run.read_result(layout, run_id)
    if result is None or result["dry_run"]:
        return []
    attempt, manifest = folder.attempt(result["attempt"]), _manifest(layout, run_id)
    if _has_soft_resets(manifest):
        return []
    return [
        _episode(layout, run_id, result["attempt"], attempt, line)
        for line in files.read_lines_or_empty(attempt.output / "episodes.jsonl")
        if _is_record(line, manifest["task_suite"]) and _actions(attempt, line).is_file()
    ]


def _is_record(line: Mapping[str, Any], suite: str) -> bool:
    """Returns whether a line says enough to play its episode again; its names become part of paths."""
    numbers = [line.get(name) for name in ("task", "episode", "init_state", "seed", "reset_ordinal", "steps")]
    return line.keys() >= NEEDED and line["suite"] == suite and all(isinstance(number, int) for number in numbers)


def _actions(attempt: RunFolder, line: Mapping[str, Any]) -> Path:
    return recorded_arrays.path(attempt.output, recorded_arrays.ACTIONS, line["suite"], line["task"], line["episode"])


def _episode(layout: Layout, run_id: str, number: int, attempt: RunFolder, line: Mapping[str, Any]) -> RecordedEpisode:
    folder = layout.replayed_episodes / run_id / f"{line['suite']}_{line['task']}"
    film = folder / f"replay_of_episode_{line['episode']}.mp4"
    return RecordedEpisode(run_id, number, line, _actions(attempt, line), film)


def require(campaign: Campaign, run_id: str, task: int, number: int) -> RecordedEpisode:
    """Returns one recorded episode of a row. Raises UsageError, with the remedy, where there is none to be played."""
    row, layout = campaign.row(run_id), campaign.layout
    found = {episode.key: episode for episode in recorded(layout, run_id)}
    if (task, number) in found:
        return found[task, number]
    where, result = f"row {run_id}", run.read_result(layout, run_id)
    if task not in campaign.task_ids(row) or not 0 <= number < row.n_episodes:
        what = f"the row has no episode {number} of task {task}"
        tasks = ", ".join(map(str, campaign.task_ids(row)))
        raise UsageError(Finding(where, what, f"Name a task of {tasks}, and an episode from 0 to {row.n_episodes - 1}"))
    if result is None or result["dry_run"]:
        raise UsageError(Finding(where, "the row has not run", f"Run it: {commands.gates(layout)}"))
    if _has_soft_resets(_manifest(layout, run_id)):
        what = f"the row ran with {SOFT_RESETS}, so that each episode depends on those before it"
        raise UsageError(Finding(where, what, "Leave the flag out, and run the row again"))
    what = f"episode {number} of task {task} was not recorded, so it cannot be played again"
    remedy = (
        f"Set record_actions = true below [lerobot_eval] or [rows.{run_id}] in {layout.settings}, "
        "and run the row again with --allow-overwrite"
    )
    raise UsageError(Finding(where, what, remedy))


def _has_soft_resets(manifest: Manifest) -> bool:
    """Returns whether an episode depended on those before it, which are not played again."""
    return SOFT_RESETS in (manifest["command"] or ())


@dataclass(frozen=True)
class Start:
    """What starts a replay's process beside its request: flags of the environment, and a prefix of its command."""

    flags: tuple[str, ...]
    prefix: tuple[str, ...]


def own_start(campaign: Campaign, run_id: str) -> Start:
    """Returns how a run of this host is played again: with its own flags, behind the prefix that preflight found."""
    manifest = _manifest(campaign.layout, run_id)
    prefix = schema.read_or_empty("preflight", campaign.layout.preflight_report).get("render_prefix", ())
    return Start(tuple(word for word in manifest["command"] or () if word.startswith("--env.")), tuple(prefix))


def play(
    campaign: Campaign, episodes: Sequence[RecordedEpisode], seconds: float, start: Start | None = None
) -> Iterator[Replay]:
    """Plays recorded episodes of one run again in a child process, and yields how each went that was played in time.

    `start` is by default that of the run's own host. Raises UsageError where actions are not those of their line, and
    TrackaError where the child failed, once all that it had played before is yielded.
    """
    for episode in episodes:
        recorded_arrays.read(episode.actions, episode.line["actions_sha"])
    path_safety.require_folder(campaign.layout.replayed_episodes)
    files.make_folder(campaign.layout.replayed_episodes)
    with held_folder.make() as folder:
        failure = _run_child(campaign, episodes, folder, seconds, start or own_start(campaign, episodes[0].run_id))
        answers = _answers(folder)
        for episode in episodes:
            if episode.key in answers:
                yield _judge(campaign.layout, episode, answers[episode.key], folder)
        if failure and len(answers) < len(episodes):
            raise TrackaError(Finding(f"row {episodes[0].run_id}", failure, AGAIN))


def _run_child(
    campaign: Campaign, episodes: Sequence[RecordedEpisode], folder: Path, seconds: float, start: Start
) -> str:
    """Lets a child play the episodes into `folder`, and returns why it did not end well; empty where it did."""
    layout, run_id = campaign.layout, episodes[0].run_id
    manifest = _manifest(layout, run_id)
    request = folder / "request.json"
    asked = [
        {key: episode.line[key] for key in BEGINNING}
        | {"actions": str(episode.actions), "film": str(_film(folder, episode))}
        for episode in episodes
    ]
    files.write_json(request, {"flags": list(start.flags), "episodes": asked})
    out, err = folder / "replay.log", folder / "replay.err"
    ended = process.run(
        [*start.prefix, *process.python(PROGRAM, str(request), str(folder / ANSWERS))],
        cwd=folder,
        env=environment.for_row(campaign, gpu.CPU_DEVICE, manifest["mujoco_gl"]),  # a GPU would only draw the frames
        stdout=out,
        stderr=err,
        bounds=Bounds(seconds),
    )
    return "" if ended.code == 0 else f"the replay failed: {process.cause_of_end(ended, out, err)}"


def _answers(folder: Path) -> dict[tuple[int, int], Mapping[str, Any]]:
    """Returns (task, episode) -> how it went, of the episodes that the child has played."""
    lines = files.read_lines(folder / ANSWERS) if (folder / ANSWERS).is_file() else []
    return {(line["task"], line["episode"]): line for line in lines}


def _manifest(layout: Layout, run_id: str) -> Manifest:
    return schema.read("run_manifest", layout.run(run_id).manifest)


def _film(folder: Path, episode: RecordedEpisode) -> Path:
    return folder / f"{episode.line['task']}_{episode.line['episode']}.mp4"


def _judge(layout: Layout, episode: RecordedEpisode, answer: Mapping[str, Any], folder: Path) -> Replay:
    """Puts the film and its file in their place, and returns the file's content."""
    film = _film(folder, episode)
    played = cast(PlayedOutcome, {name: answer[name] for name in OUTCOME})
    replay: Replay = {
        "schema_version": schema.VERSION,
        "run_id": episode.run_id,
        "attempt": episode.attempt,
        "suite": episode.line["suite"],
        "task": episode.line["task"],
        "episode": episode.line["episode"],
        "actions_sha": episode.line["actions_sha"],
        "recorded": episode.outcome,
        "played": played,
        "same_outcome": played["success"] == episode.line["success"],
        "same_bits": played == episode.outcome,
        "film": layout.relative(episode.film),
        "film_sha256": files.sha256_file(film),
        "played_at_utc": files.utc_now(),
        "versions": software.versions(),
    }
    files.make_folder(episode.film.parent)
    damaged.remove(episode.judgement)  # so that no film stands beside the file of another
    files.copy_atomic(film, episode.film)
    files.write_json(episode.judgement, replay)
    return replay


def filmed(episode: RecordedEpisode) -> Replay | None:
    """Returns the replay of just this record, whose film is still there; None where there is none."""
    replay = cast(Replay | None, schema.read_or_empty("replay", episode.judgement) or None)
    is_of_record = replay is not None and replay["actions_sha"] == episode.line["actions_sha"]
    return replay if is_of_record and episode.film.is_file() else None


def sentence(replay: Replay, recorded_versions: Mapping[str, str]) -> str:
    """Returns in words how a replay went, beside its record, which was made with software of these versions."""
    played, before = replay["played"], replay["recorded"]
    name = f"{replay['run_id']}, {replay['suite']} task {replay['task']}, episode {replay['episode']}"
    told = f"{name}: {_words(played)}"
    if replay["same_bits"]:
        return f"{told}, as recorded, to the bit"
    others = [
        f"{package} {now} instead of {recorded_versions[package]}"
        for package, now in replay["versions"].items()
        if recorded_versions.get(package, now) != now
    ]
    why = (
        f"today's software differs ({', '.join(others[:3])})"
        if others
        else "another processor or another build may round otherwise"
    )
    if not replay["same_outcome"]:
        return f"{told}, but the record says that it {_words(before)}: {why}"
    steps = "" if played["steps"] == before["steps"] else f" after {before['steps']} steps"
    return f"{told}, the outcome that was recorded{steps}, but not the bits: {why}"


def _words(outcome: PlayedOutcome) -> str:
    return f"{'succeeded' if outcome['success'] else 'failed'} after {outcome['steps']} steps"
