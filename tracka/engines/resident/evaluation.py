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
from .. import episode_lines
from . import late_imports

if TYPE_CHECKING:
    from .episode import Episode
    from .player import PolicyRunner
    from .record import PlayedEpisode
    from .rollout import Rollout, VideoTask
    from .settings import ResidentConfig
    from .simulation import Simulation
    from .slot import WorkerTimings
    from .worker_pool import WorkerPool


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
class EvaluationCache:
    """Holds what an evaluation may leave to the next one in this process: worker processes, environments and policy.

    The caller must make sure that the next evaluation differs in suite, tasks, episodes, seed and paths alone.
    """

    persistent: bool = False  # whether another evaluation may follow in this process
    output: int | None = None  # descriptor that worker processes print to: they outlive the files of one evaluation
    pool: "WorkerPool | None" = None
    # not kept if it draws from this process's generators: loading draws from them too
    runner: "PolicyRunner | None" = None
    evaluations: int = 0


def run(cache: EvaluationCache, stages: Stages) -> None:
    """Plays the evaluation that sys.argv asks for. Raises SystemExit(2) for flags that this engine does not obey."""
    late_imports.install(late_imports.policy_type(sys.argv[1:]))
    from lerobot.configs import parser
    from lerobot.utils.import_utils import register_third_party_plugins
    from lerobot.utils.utils import init_logging

    init_logging()
    if not cache.evaluations:  # it reads the metadata of all packages, a tenth of a second
        register_third_party_plugins()

    from .settings import ResidentConfig

    def play(cfg: ResidentConfig) -> None:
        if problems := cfg.problems():
            print("".join(f"error: {problem}\n" for problem in problems), end="", file=sys.stderr)
            sys.exit(2)
        evaluate(cfg, cache, stages)

    parser.wrap()(play)()


def evaluate(cfg: "ResidentConfig", cache: EvaluationCache, stages: Stages) -> None:
    """Starts the worker processes, loads the policy, plays all episodes, records the videos and writes the files.

    Keeps in `cache` what the next evaluation may use. Raises RuntimeError where an episode played again for its video
    does not end in the state of the recorded one.
    """
    from . import episode
    from .record import Record, played_before
    from .rollout import Rollout
    from .simulation import Simulation  # LIBERO is imported before the fork, so that no worker process needs to

    simulation = Simulation(cfg)
    counts = (cfg.eval.n_episodes, cfg.eval.batch_size, cfg.seed)
    all_episodes = episode.episodes(cfg.env.task, simulation.task_ids, *counts)
    output = Path(str(cfg.output_dir))
    before, units = played_before(output, all_episodes) if cfg.resident.resume else (None, set())
    left = _left(all_episodes, before or ())
    stages.end("import")
    pool = _worker_pool(cfg, simulation, cache, all_episodes, left)
    record = Record(output, len(all_episodes), before)
    runner = _policy_runner(cfg, cache, len({each.batch for each in all_episodes}))
    record.unit = _unit(runner)
    if units - {record.unit}:
        raise RuntimeError(f"the episodes in {output} were played by {', '.join(units)}, not by {record.unit}")
    stages.end("load")
    rollout = Rollout(pool, runner, left, record, cfg.resident.hash_looks, cfg.resident.share_calls)
    rollout.run()
    stages.end("rollout")
    videos = _video_tasks(record.ordered(), cfg.resident.videos, output / "videos")
    if failed := [video for video in rollout.record_videos(videos) if video.difference]:
        raise RuntimeError(f"the replay for {failed[0].path} differs from the recorded episode: {failed[0].difference}")
    timings = pool.collect_timings()
    if not cache.persistent:
        pool.stop()
    stages.end("film")
    cache.evaluations += 1
    cache.runner = runner if cache.persistent and runner.draws_nothing else None
    files.write_json(output / "timings.json", _timings(rollout, runner, timings, stages, cache, record.kept))
    info = record.close(_paths(videos))
    logging.info("Overall Aggregated Metrics:")
    logging.info(info["overall"])
    logging.info("End of eval")


def _left(all_episodes: Sequence["Episode"], before: Sequence["PlayedEpisode"]) -> list["Episode"]:
    """Returns the episodes that have not been played before, in their order."""
    played = {episode for episode, _ in before}
    return [episode for episode in all_episodes if episode not in played]


def _unit(runner: "PolicyRunner") -> str:
    """Returns what must be played as a whole: an episode, or all episodes whose numbers may depend on each other.

    These are lerobot-eval's batch where the policy remembers its episodes, and the row where one batch follows another
    or noise comes from this process's generator.
    """
    if runner.mode.concurrent and runner.draws_nothing:
        return episode_lines.EPISODE if runner.mode.mixing else episode_lines.BATCH
    return episode_lines.ROW


def _worker_pool(
    cfg: "ResidentConfig",
    simulation: "Simulation",
    cache: EvaluationCache,
    all_episodes: Sequence["Episode"],
    left: Sequence["Episode"],
) -> "WorkerPool":
    """Returns the worker processes. New ones begin to build the environments that they need first.

    These are those of the episodes in `left`, which are to be played.

    New processes get no more slots than there are episodes, unless the processes are kept, since the next evaluation
    may have more episodes.
    """
    from .worker_pool import WorkerPool

    if cache.pool is None:
        slots = cfg.n_slots if cache.persistent else min(cfg.n_slots, len(all_episodes))
        cache.pool = WorkerPool(
            cfg.n_workers,
            slots,
            *(simulation.cameras, simulation.make, simulation.video_config),
            output=cache.output,
            n_tasks=None if cache.persistent else len(simulation.task_ids),
            n_renderers=cfg.n_renderers,
        )
        cache.pool.build(expected_order(cfg, left)[:slots])
        if cache.persistent and cfg.n_renderers:
            cache.pool.build_ahead(simulation.one_episode_a_task())
    return cache.pool


def expected_order(cfg: "ResidentConfig", all_episodes: Sequence["Episode"]) -> list["Episode"]:
    """Returns the episodes in the order in which environment slots are likely to get them.

    The order is one episode of each task in turn where calls of the policy mix tasks, else that of lerobot-eval.
    """
    from .player import MIXING

    mixing = cfg.policy.type in MIXING and cfg.resident.noise == "episode"
    return sorted(all_episodes, key=lambda episode: episode.number) if mixing else list(all_episodes)


def _policy_runner(cfg: "ResidentConfig", cache: EvaluationCache, batches: int) -> "PolicyRunner":
    """Returns the policy, loaded or kept, after torch is set up and seeded as in lerobot-eval."""
    import torch
    from lerobot.utils.random_utils import set_seed

    from .player import PolicyRunner

    torch.backends.cudnn.benchmark = cfg.resident.cudnn_benchmark
    torch.backends.cuda.matmul.allow_tf32 = True
    set_seed(cfg.seed)
    if cache.runner is not None:
        cache.runner.reconfigure(cfg)
        return cache.runner
    late_imports.register_steps(Path(str(cfg.policy.pretrained_path)))
    runner = PolicyRunner(cfg, batches)
    for reason in runner.fallbacks:
        logging.warning("fallback: %s", reason)
    return runner


def _video_tasks(played: Sequence["PlayedEpisode"], count: int, folder: Path) -> list["VideoTask"]:
    """Returns the first `count` episodes of each task, each with the path that lerobot-eval gives its video."""
    return [
        (episode, outcome, folder / f"{episode.suite}_{episode.task_id}" / f"eval_episode_{episode.number}.mp4")
        for episode, outcome in played
        if episode.number < count
    ]


def _paths(video_tasks: Sequence["VideoTask"]) -> dict[int, list[str]]:
    videos: dict[int, list[str]] = {}
    for episode, _, path in video_tasks:
        videos.setdefault(episode.task_id, []).append(str(path))
    return videos


def _timings(
    rollout: "Rollout",
    runner: "PolicyRunner",
    timings: Sequence["WorkerTimings"],
    stages: Stages,
    cache: EvaluationCache,
    kept: int,
) -> dict[str, Any]:
    """Returns the content of timings.json: where the time went, and why parts ran in a slower way.

    Seconds are given by stage, for the main process's rollout, and summed over all worker processes. `kept` is the
    number of episodes that an earlier attempt has played.
    """
    workers = {key: sum(each.seconds.get(key, 0.0) for each in timings) for each in timings for key in each.seconds}
    fallbacks = [*runner.fallbacks, *(reason for worker in timings for reason in worker.fallbacks)]
    stage_seconds = stages.seconds | {"policy_load": runner.seconds, "total": sum(stages.seconds.values())}
    return {
        "stages": _rounded(stage_seconds),
        "main": _rounded(rollout.seconds),
        "workers": _rounded(workers),
        "manner": runner.mode.name,
        "policy_calls": rollout.calls,
        "cuda_graphs": runner.graphs_proven,  # so many answer calls
        "precision": episode_lines.answered(rollout.modes),  # the mode that answered calls
        "gpu_gib": runner.gpu_gib,  # most that torch has held
        "fast": runner.fast.figures() if runner.fast else None,
        "calls_of_several_tasks": rollout.mixed_calls,
        "looks": rollout.asked,
        "kept_episodes": kept,
        "slots": len(rollout.pool),
        "processes": rollout.pool.n_processes,
        "renderers": len(rollout.pool.renderers),
        "evaluation": cache.evaluations,  # its number in this process, from 1
        "fallbacks": list(dict.fromkeys(fallbacks)),
    }


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 3) for key, value in seconds.items()}
