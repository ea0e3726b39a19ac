"""One evaluation, from lerobot-eval's flags and the flags `--resident.NAME` beside them to the files of its results.

An evaluation writes into --output_dir what lerobot-eval writes, and also episodes.jsonl, actions/ and timings.json. Its
exit code is 2 for flags that this engine does not obey, and 1 if the evaluation failed.
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
    """Measures the seconds of each stage, the first one from the moment when this object was made."""

    last: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)

    def end(self, name: str) -> None:
        """Ends the current stage under `name`; the next stage begins at once."""
        now = time.perf_counter()
        self.seconds[name], self.last = now - self.last, now


@dataclass
class Kept:
    """Holds what an evaluation may leave to the next one in this process: worker processes, environments and policy.

    The caller must make sure that the next evaluation differs in suite, tasks, episodes, seed and paths alone.
    """

    lasting: bool = False  # whether another evaluation may follow in this process
    output: int | None = None  # descriptor that worker processes print to: they outlive the files of one evaluation
    crew: "Crew | None" = None
    player: "Player | None" = None  # not kept if it draws from this process's generators: loading draws from them too
    evaluations: int = 0


def run(kept: Kept, stages: Stages) -> None:
    """Plays the evaluation that sys.argv asks for. Raises SystemExit(2) for flags that this engine does not obey."""
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
    """Starts the worker processes, loads the policy, plays all episodes, records the videos and writes the files.

    Keeps in `kept` what the next evaluation may use. Raises RuntimeError where an episode played again for its video
    does not end in the state of the recorded one.
    """
    from . import episode
    from .record import Record
    from .rollout import Rollout
    from .simulation import Simulation  # LIBERO is imported before the fork, so that no worker process needs to

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
    """Returns the worker processes. New ones begin to build the environments that they need first.

    New processes get no more slots than there are episodes, unless the processes are kept, since the next evaluation
    may have more episodes.
    """
    from .crew import Crew

    if kept.crew is None:
        slots = cfg.n_slots if kept.lasting else min(cfg.n_slots, len(todo))
        made = simulation.cameras, simulation.make, simulation.filming
        kept.crew = Crew(cfg.n_workers, slots, *made, output=kept.output)
        kept.crew.build(first(cfg, todo)[:slots])
    return kept.crew


def first(cfg: "ResidentConfig", todo: Sequence["Episode"]) -> list["Episode"]:
    """Returns the episodes in the order in which environment slots are likely to get them.

    The order is one episode of each task in turn where calls of the policy mix tasks, else that of lerobot-eval.
    """
    from .player import MIXING

    mixing = cfg.policy.type in MIXING and cfg.resident.noise == "episode"
    return sorted(todo, key=lambda episode: episode.number) if mixing else list(todo)


def _player(cfg: "ResidentConfig", kept: Kept, batches: int) -> "Player":
    """Returns the policy, loaded or kept, after torch is set up and seeded as in lerobot-eval."""
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
    """Returns the first `count` episodes of each task, each with the path that lerobot-eval gives its video."""
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
    """Returns the content of timings.json: where the time went, and why parts ran in a slower way.

    Seconds are given by stage, for the main process's rollout, and summed over all worker processes.
    """
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
        "evaluation": kept.evaluations,  # its number in this process, from 1
        "fallbacks": list(dict.fromkeys(fallbacks)),
    }


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 3) for key, value in seconds.items()}
