"""One evaluation from lerobot-eval's flags and `--resident.NAME` beside them.

Writes into --output_dir what lerobot-eval writes, and episodes.jsonl, actions/ and timings.json. Exit code 2 for flags
that this engine does not obey, 1 for an evaluation that failed.
"""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core import files

if TYPE_CHECKING:
    from .crew import Crew
    from .episode import Episode
    from .player import Player
    from .record import Played
    from .rollout import Rollout, Take
    from .settings import ResidentConfig
    from .simulation import Simulation
    from .slot import Spent


@dataclass
class Stages:
    """Seconds by stage, from when it was made on."""

    last: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)

    def end(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self.last = now - self.last, now


@dataclass
class Kept:
    """What an evaluation may leave to the next one in this process: environments and policy.

    Whoever keeps it answers for the next evaluation differing in suite, tasks, episodes, seed and places alone.
    """

    lasting: bool = False  # whether there will be a next one
    output: int | None = None  # where environment processes print, since they outlive the files of one evaluation
    crew: "Crew | None" = None
    player: "Player | None" = None  # none that draws from this process's generators: loading draws from them too
    evaluations: int = 0


def run(kept: Kept, stages: Stages) -> None:
    """Plays what sys.argv asks for. Raises SystemExit(2) for flags that it does not obey."""
    from lerobot.configs import parser
    from lerobot.utils.import_utils import register_third_party_plugins
    from lerobot.utils.utils import init_logging

    init_logging()
    register_third_party_plugins()

    from .settings import ResidentConfig

    def told(cfg: ResidentConfig) -> None:
        if problems := cfg.problems():
            print("".join(f"error: {problem}\n" for problem in problems), end="", file=sys.stderr)
            sys.exit(2)
        evaluate(cfg, kept, stages)

    parser.wrap()(told)()


def evaluate(cfg: "ResidentConfig", kept: Kept, stages: Stages) -> None:
    """Processes, policy, episodes, videos, files."""
    from . import episode
    from .record import Record
    from .rollout import Rollout
    from .simulation import Simulation  # LIBERO is imported before the fork, so that no worker needs to

    simulation = Simulation(cfg)
    counts = (cfg.eval.n_episodes, cfg.eval.batch_size, cfg.seed)
    todo = episode.episodes(cfg.env.task, simulation.task_ids, *counts)
    stages.end("import")
    crew = _crew(cfg, simulation, kept, todo)
    output = Path(str(cfg.output_dir))
    record = Record(output, len(todo))
    player = _player(cfg, kept, len({each.batch for each in todo}))
    stages.end("load")
    playing = Rollout(crew, player, todo, record, cfg.resident.hash_looks)
    playing.run()
    stages.end("rollout")
    films = _films(record.ordered(), cfg.resident.videos, output / "videos")
    if wrong := [film for film in playing.film(films) if film.difference]:
        raise RuntimeError(f"a replay is not the episode: {wrong[0].path}: {wrong[0].difference}")
    spent = crew.spent()
    if not kept.lasting:
        crew.stop()
    stages.end("film")
    kept.evaluations += 1
    kept.player = player if kept.lasting and player.draws_nothing else None
    files.write_json(output / "timings.json", _timings(playing, player, spent, stages, kept))
    info = record.close(_paths(films))
    logging.info("Overall Aggregated Metrics:")
    logging.info(info["overall"])
    logging.info("End of eval")


def _crew(cfg: "ResidentConfig", simulation: "Simulation", kept: Kept, todo: Sequence["Episode"]) -> "Crew":
    """The environment processes, at work on what they need first; those that last may have more to play next."""
    from .crew import Crew

    if kept.crew is None:
        slots = cfg.n_slots if kept.lasting else min(cfg.n_slots, len(todo))
        made = simulation.cameras, simulation.make, simulation.filming
        kept.crew = Crew(cfg.n_workers, slots, *made, output=kept.output)
        kept.crew.build(first(cfg, todo)[:slots])
    return kept.crew


def first(cfg: "ResidentConfig", todo: Sequence["Episode"]) -> list["Episode"]:
    """The episodes in the order in which slots are likely to get them: where tasks mix, one of each task in turn."""
    from .player import MIXING

    mixing = cfg.policy.type in MIXING and cfg.resident.noise == "episode"
    return sorted(todo, key=lambda episode: episode.number) if mixing else list(todo)


def _player(cfg: "ResidentConfig", kept: Kept, batches: int) -> "Player":
    """The policy, with torch set up and seeded as in lerobot-eval."""
    import torch
    from lerobot.utils.random_utils import set_seed

    from .player import Player

    torch.backends.cudnn.benchmark = cfg.resident.cudnn_benchmark
    torch.backends.cuda.matmul.allow_tf32 = True
    set_seed(cfg.seed)
    if kept.player is not None:
        kept.player.turn_to(cfg)
        return kept.player
    player = Player(cfg, batches)
    for reason in player.fallbacks:
        logging.warning("fallback: %s", reason)
    return player


def _films(played: Sequence["Played"], count: int, folder: Path) -> list["Take"]:
    """The first `count` episodes of each task, and where lerobot-eval would put their videos."""
    return [
        (episode, outcome, folder / f"{episode.suite}_{episode.task_id}" / f"eval_episode_{episode.number}.mp4")
        for episode, outcome in played
        if episode.number < count
    ]


def _paths(films: Sequence["Take"]) -> dict[int, list[str]]:
    videos: dict[int, list[str]] = {}
    for episode, _, path in films:
        videos.setdefault(episode.task_id, []).append(str(path))
    return videos


def _timings(
    playing: "Rollout", player: "Player", spent: Sequence["Spent"], stages: Stages, kept: Kept
) -> dict[str, Any]:
    """Where the time went: by stage, in the main process's rollout, and over all workers; and what fell back."""
    workers = {key: sum(each.seconds.get(key, 0.0) for each in spent) for each in spent for key in each.seconds}
    fallbacks = [*player.fallbacks, *(reason for each in spent for reason in each.fallbacks)]
    whole = stages.seconds | {"policy_load": player.seconds, "total": sum(stages.seconds.values())}
    return {
        "stages": _rounded(whole),
        "main": _rounded(playing.seconds),
        "workers": _rounded(workers),
        "manner": player.manner.words,
        "policy_calls": playing.calls,
        "calls_of_several_tasks": playing.mixed_calls,
        "looks": playing.asked,
        "slots": len(playing.crew),
        "processes": len(playing.crew.processes),
        "evaluation": kept.evaluations,  # of this process, from 1
        "fallbacks": list(dict.fromkeys(fallbacks)),
    }


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 3) for key, value in seconds.items()}
