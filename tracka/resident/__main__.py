"""One evaluation: python -m tracka.resident, with lerobot-eval's flags and `--resident.NAME` beside them.

Writes into --output_dir what lerobot-eval writes, and episodes.jsonl, actions/ and timings.json. Exit code 2 for flags
that this engine does not obey, 1 for an evaluation that failed.
"""

import logging
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

START = time.perf_counter()


def main() -> None:
    from lerobot.utils.import_utils import register_third_party_plugins
    from lerobot.utils.utils import init_logging

    init_logging()
    register_third_party_plugins()
    from lerobot.configs import parser

    from .settings import ResidentConfig

    def run(cfg: ResidentConfig) -> None:
        if problems := cfg.problems():
            for problem in problems:
                print(f"error: {problem}", file=sys.stderr)
            sys.exit(2)
        evaluate(cfg)

    parser.wrap()(run)()


def evaluate(cfg: Any) -> None:
    """The whole of it: processes, policy, episodes, videos, files."""
    import_module("lerobot.envs.libero")  # before the fork, so that no worker needs to
    imported = time.perf_counter()
    from . import episode, rollout
    from .crew import Crew
    from .simulation import Simulation

    simulation = Simulation(cfg)
    task_ids = simulation.task_ids
    todo = episode.episodes(cfg.env.task, task_ids, cfg.eval.n_episodes, cfg.eval.batch_size, cfg.seed)
    crew = Crew(cfg.n_workers, min(cfg.n_slots, len(todo)), simulation.cameras, simulation.make, simulation.filming)

    import torch
    from lerobot.utils.random_utils import set_seed

    from .player import Player
    from .record import Record

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    set_seed(cfg.seed)
    output = Path(cfg.output_dir)
    record = Record(output, len(todo))
    player = Player(cfg, len({each.batch for each in todo}))
    for reason in player.fallbacks:
        logging.warning("fallback: %s", reason)
    loaded = time.perf_counter()
    playing = rollout.Rollout(crew, player, todo, record)
    playing.run()
    played = time.perf_counter()
    films = _films(record.ordered(), cfg.resident.videos, output / "videos")
    filmed = playing.film(films)
    spent = crew.stop()
    ended = time.perf_counter()
    _close(record, filmed, films, output, spent, playing, (START, imported, loaded, played, ended), player)


def _films(played: Any, count: int, folder: Path) -> list[Any]:
    return [
        (episode, outcome, folder / f"{episode.suite}_{episode.task_id}" / f"eval_episode_{episode.number}.mp4")
        for episode, outcome in played
        if episode.number < count
    ]


def _close(
    record: Any, filmed: Any, films: Any, output: Path, spent: Any, playing: Any, marks: tuple[float, ...], player: Any
) -> None:
    from .. import files

    if wrong := [film for film in filmed if film.difference]:
        raise RuntimeError(f"a replay is not the episode: {wrong[0].path}: {wrong[0].difference}")
    videos: dict[int, list[str]] = {}
    for episode, _, path in films:
        videos.setdefault(episode.task_id, []).append(str(path))
    start, imported, loaded, played, ended = marks
    workers: dict[str, float] = {}
    for each in spent:
        for key, seconds in each.seconds.items():
            workers[key] = workers.get(key, 0.0) + seconds
    fallbacks = list(dict.fromkeys([*player.fallbacks, *(reason for each in spent for reason in each.fallbacks)]))
    for reason in fallbacks:
        logging.warning("fallback: %s", reason)
    stages = {
        "import": imported - start,
        "load": loaded - imported,
        "policy_load": player.seconds,
        "rollout": played - loaded,
        "film": ended - played,
        "total": ended - start,
    }
    files.write_json(
        output / "timings.json",
        {
            "stages": {key: round(value, 3) for key, value in stages.items()},
            "main": {key: round(value, 3) for key, value in playing.seconds.items()},
            "workers": {key: round(value, 3) for key, value in workers.items()},
            "policy_calls": playing.calls,
            "looks": playing.asked,
            "slots": len(playing.crew),
            "processes": len(playing.crew.processes),
            "fallbacks": fallbacks,
        },
    )
    info = record.close(videos)
    logging.info("Overall Aggregated Metrics:")
    logging.info(info["overall"])
    logging.info("End of eval")


if __name__ == "__main__":
    main()
