"""Measures how long whole suites take on one GPU or on several: python -m benchmarks.suites CHECKPOINT.

Each row plays tasks of one suite with the resident engine. The GPUs take the rows from one queue, the longest first.
Each GPU has a warm process that plays its rows one after the other, as in a sweep. The program prints a line for each
row and one for the whole: seconds, stages, and episodes an hour. The rate under way leaves out a row's first round of
slots.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tracka.core.lerobot_facts import EPISODE_STEPS
from tracka.execution import environment, harness_session, warm_process

SUITES = ("libero_object", "libero_goal", "libero_spatial", "libero_10")
TASKS = 10  # of each suite
STAGES = ("import", "policy_load", "load", "rollout", "film")


@dataclass(frozen=True)
class Row:
    """Some tasks of one suite, and how many episodes of each to play."""

    suite: str
    tasks: tuple[int, ...]
    episodes: int

    @property
    def steps(self) -> int:
        """The control steps of the row if no episode succeeds."""
        return EPISODE_STEPS[self.suite] * len(self.tasks) * self.episodes


@dataclass(frozen=True)
class Played:
    """What one row took, in seconds, and its episodes an hour under way. `began` counts from the first row's start."""

    gpu: int
    suite: str
    tasks: tuple[int, ...]
    episodes: int
    began: float
    seconds: float
    first_episode: float
    stages: Mapping[str, float]
    policy_calls: int
    policy: float
    an_hour_under_way: float


def main() -> int:
    """Plays all rows, prints their times, and returns the exit status."""
    options = arguments()
    rows = sorted(rows_of(options), key=lambda row: -row.steps)
    waiting: queue.SimpleQueue[Row] = queue.SimpleQueue()
    for row in rows:
        waiting.put(row)
    with tempfile.TemporaryDirectory(prefix="tracka-bench-") as folder, harness_session.hold():
        start = time.monotonic()
        with ThreadPoolExecutor(options.gpus) as pool:
            gpus = range(options.first_gpu, options.first_gpu + options.gpus)
            futures = [pool.submit(play_all, gpu, waiting, options, Path(folder), start) for gpu in gpus]
            played = sorted((row for future in futures for row in future.result()), key=lambda row: row.began)
        seconds = time.monotonic() - start
    for row_played in played:
        print(line(row_played))
    episodes = sum(row_played.episodes for row_played in played)
    print(f"{options.gpus} GPU: {episodes} episodes in {seconds:.1f} s, {3600 * episodes / seconds:.0f} an hour")
    if options.output:
        whole = {"gpus": options.gpus, "seconds": seconds, "rows": [asdict(row_played) for row_played in played]}
        options.output.write_text(json.dumps(whole, indent=1) + "\n")
    return 0


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suites", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--suites", nargs="+", default=SUITES, choices=EPISODE_STEPS)
    parser.add_argument("--tasks", type=int, default=TASKS, help="how many tasks of each suite")
    parser.add_argument("--tasks-a-row", type=int, default=TASKS)
    parser.add_argument("--episodes", type=int, default=50, help="episodes of each task")
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--slots", type=int, default=40)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--first-gpu", type=int, default=0, help="the number of the first of these GPUs")
    parser.add_argument("--device", default="cuda", help="cpu plays one row at a time without a GPU")
    parser.add_argument("--flags", nargs="*", default=(), help="further flags, such as resident.cuda_graphs=false")
    parser.add_argument("--output", type=Path, help="a JSON file of all figures")
    return parser.parse_args()


def rows_of(options: argparse.Namespace) -> Iterator[Row]:
    """Yields the rows: the tasks of each suite, `--tasks-a-row` in each."""
    for suite in options.suites:
        for first in range(0, options.tasks, options.tasks_a_row):
            tasks = tuple(range(first, min(first + options.tasks_a_row, options.tasks)))
            yield Row(suite, tasks, options.episodes)


def play_all(
    gpu: int, waiting: "queue.SimpleQueue[Row]", options: argparse.Namespace, folder: Path, start: float
) -> list[Played]:
    """Plays rows on the GPU `gpu` until none waits, and returns them."""
    environ = environment.base() | {"MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")}
    if options.device != "cpu":
        device = {"CUDA_VISIBLE_DEVICES": str(gpu), "MUJOCO_EGL_DEVICE_ID": str(gpu)}
        environ |= device | {environment.ROWS_AT_ONCE: str(options.gpus)}
    environ |= warm_process.ensure_worker(f"gpu-{gpu}", "bench", folder, environ)
    played = []
    while True:
        try:
            row = waiting.get_nowait()
        except queue.Empty:
            return played
        output = folder / f"{row.suite}-{row.tasks[0]}"
        began = time.monotonic()
        play_row(row, output, options, environ)
        played.append(summary(gpu, row, output, options.slots, began - start, time.monotonic() - began))


def play_row(row: Row, output: Path, options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Plays one row into the folder `output`. Raises SystemExit with the end of its log where the engine fails."""
    values = {
        "policy.path": options.checkpoint,
        "policy.device": options.device,
        "env.type": "libero",
        "env.task": row.suite,
        "env.task_ids": json.dumps(row.tasks),
        "env.observation_height": options.pixels,
        "env.observation_width": options.pixels,
        "eval.batch_size": options.batch_size,
        "eval.n_episodes": row.episodes,
        "seed": 7,
        "output_dir": output,
        "resident.slots": options.slots,
    }
    words = [f"--{name}={value}" for name, value in values.items()] + [f"--{flag}" for flag in options.flags]
    log = output.with_suffix(".log")
    with log.open("w") as file:
        command = [sys.executable, "-m", "tracka.engines.resident", *words]
        completed = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environ)
    if completed.returncode:
        raise SystemExit(f"error: {row} failed:\n" + "\n".join(log.read_text().splitlines()[-30:]))


def summary(gpu: int, row: Row, output: Path, slots: int, began: float, seconds: float) -> Played:
    """Returns the figures of a row that has been played into the folder `output`."""
    ends = sorted(json.loads(text)["at_secs"] for text in (output / "episodes.jsonl").read_text().splitlines())
    timings = json.loads((output / "timings.json").read_text())
    first_round = max(1, min(slots, len(ends) // 2))
    return Played(
        gpu=gpu,
        suite=row.suite,
        tasks=row.tasks,
        episodes=len(ends),
        began=began,
        seconds=seconds,
        first_episode=ends[0],
        stages={name: timings["stages"].get(name, 0) for name in STAGES},
        policy_calls=timings["policy_calls"],
        policy=timings["main"]["policy"],
        an_hour_under_way=3600 * (len(ends) - first_round) / max(1e-9, ends[-1] - ends[first_round - 1]),
    )


def line(played: Played) -> str:
    """Returns the line that is printed for one row."""
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in played.stages.items())
    return (
        f"GPU {played.gpu} {played.suite} {len(played.tasks)} tasks, {played.episodes} episodes: began at "
        f"{played.began:.1f} s, took {played.seconds:.1f} s ({stages}; first episode after {played.first_episode:.1f}; "
        f"{played.policy_calls} calls {played.policy:.1f}), {played.an_hour_under_way:.0f} an hour under way"
    )


if __name__ == "__main__":
    sys.exit(main())
