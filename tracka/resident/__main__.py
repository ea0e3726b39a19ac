"""One evaluation: python -m tracka.resident, with lerobot-eval's flags and `--resident.NAME` beside them.

Writes into --output_dir what lerobot-eval writes, and episodes.jsonl, actions/ and timings.json. Exit code 2 for flags
that this engine does not obey, 1 for an evaluation that failed.
"""

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files

if TYPE_CHECKING:
    from .player import Player
    from .record import Played
    from .rollout import Rollout, Take
    from .settings import ResidentConfig
    from .slot import Spent


class Stages:
    """Seconds by stage, from this module's import on."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self.last = now - self.last, now


STAGES = Stages()


def main() -> None:
    from lerobot.configs import parser
    from lerobot.utils.import_utils import register_third_party_plugins
    from lerobot.utils.utils import init_logging

    init_logging()
    register_third_party_plugins()

    from .settings import ResidentConfig

    def run(cfg: ResidentConfig) -> None:
        if problems := cfg.problems():
            print("".join(f"error: {problem}\n" for problem in problems), end="", file=sys.stderr)
            sys.exit(2)
        evaluate(cfg)

    parser.wrap()(run)()


def evaluate(cfg: "ResidentConfig") -> None:
    """Processes, policy, episodes, videos, files."""
    from . import episode
    from .crew import Crew
    from .record import Record
    from .rollout import Rollout
    from .simulation import Simulation  # LIBERO is imported before the fork, so that no worker needs to

    simulation = Simulation(cfg)
    counts = (cfg.eval.n_episodes, cfg.eval.batch_size, cfg.seed)
    todo = episode.episodes(cfg.env.task, simulation.task_ids, *counts)
    STAGES.end("import")
    slots = min(cfg.n_slots, len(todo))
    crew = Crew(cfg.n_workers, slots, simulation.cameras, simulation.make, simulation.filming)
    output = Path(str(cfg.output_dir))
    record = Record(output, len(todo))
    player = _loaded(cfg, len({each.batch for each in todo}))
    STAGES.end("load")
    playing = Rollout(crew, player, todo, record)
    playing.run()
    STAGES.end("rollout")
    films = _films(record.ordered(), cfg.resident.videos, output / "videos")
    if wrong := [film for film in playing.film(films) if film.difference]:
        raise RuntimeError(f"a replay is not the episode: {wrong[0].path}: {wrong[0].difference}")
    spent = crew.stop()
    STAGES.end("film")
    files.write_json(output / "timings.json", _timings(playing, player, spent))
    info = record.close(_paths(films))
    logging.info("Overall Aggregated Metrics:")
    logging.info(info["overall"])
    logging.info("End of eval")


def _loaded(cfg: "ResidentConfig", batches: int) -> "Player":
    """The policy, with torch set up and seeded as in lerobot-eval."""
    import torch
    from lerobot.utils.random_utils import set_seed

    from .player import Player

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    set_seed(cfg.seed)
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


def _timings(playing: "Rollout", player: "Player", spent: Sequence["Spent"]) -> dict[str, Any]:
    """Where the time went: by stage, in the main process's rollout, and over all workers; and what fell back."""
    workers = {key: sum(each.seconds.get(key, 0.0) for each in spent) for each in spent for key in each.seconds}
    fallbacks = [*player.fallbacks, *(reason for each in spent for reason in each.fallbacks)]
    stages = STAGES.seconds | {"policy_load": player.seconds, "total": sum(STAGES.seconds.values())}
    return {
        "stages": _rounded(stages),
        "main": _rounded(playing.seconds),
        "workers": _rounded(workers),
        "policy_calls": playing.calls,
        "looks": playing.asked,
        "slots": len(playing.crew),
        "processes": len(playing.crew.processes),
        "fallbacks": list(dict.fromkeys(fallbacks)),
    }


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 3) for key, value in seconds.items()}


if __name__ == "__main__":
    main()
