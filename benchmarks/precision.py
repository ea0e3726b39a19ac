"""Plays one row of the resident engine in exact mode and in fast mode, and compares: python -m benchmarks.precision.

Usage: python -m benchmarks.precision CHECKPOINT [--episodes 10] [--batch 10] [--slots 32] [--tasks 0 1 2 ...]

Each mode plays the row in a process of its own, exact first; with `--again` both do so once more, with what torch and
numba have compiled by then. The row's environment variables are this process's (MUJOCO_GL=egl on a GPU). The program
prints seconds, stages, memory and the episodes an hour once under way, and how far the first chunks of actions and the
outcomes differ. The exit status is 1 if the first chunks differ by more than the tolerance of fast mode.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracka.core.files import Json
from tracka.engines import comparison, tolerance
from tracka.engines.comparison import PlayedEpisodes

MODES = ("exact", "fast")


@dataclass(frozen=True)
class PlayedRow:
    """One mode's play of the row."""

    mode: str
    seconds: float  # the whole process
    rss_gib: float  # most that a process of it has held
    timings: Json
    episodes: PlayedEpisodes
    batch: int

    @property
    def an_hour(self) -> float:
        """Returns how many episodes end in an hour, after the first batch has ended."""
        ends = sorted(float(episode.line["at_secs"]) for episode in self.episodes.values())
        first = ends[min(self.batch, len(ends) - 1) - 1]
        return 3600 * (len(ends) - self.batch) / (ends[-1] - first) if ends[-1] > first else 0.0


def main() -> int:
    """Plays the row in each mode, prints the figures and returns the exit status."""
    options = arguments()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="tracka-precision-"))
    names = [*MODES, *(f"{mode}-again" for mode in MODES if options.again)]
    rows = [play(name, options, folder / name) for name in names]
    print(f"{os.cpu_count()} cores, {len(rows[0].episodes)} episodes, batch {options.batch}, slots {options.slots}")
    for row in rows:
        print("\n".join(in_words(row)))
    exact, fast = rows[0].episodes, rows[1].episodes
    chunk = options.chunk
    pairs = [(exact[name].actions[:chunk], fast[name].actions[:chunk]) for name in sorted(exact)]
    steps = [min(len(one), len(other)) for one, other in pairs]
    first = [np.concatenate([pair[k][:n] for pair, n in zip(pairs, steps, strict=True)]) for k in (0, 1)]
    found = tolerance.difference(*first)
    flips = [(bool(exact[name].line["success"]), bool(fast[name].line["success"])) for name in exact]
    print(f"first chunks: mean {found.mean:.5f}, largest {found.largest:.5f}, mean size {found.size:.5f}")
    print(f"successes {sum(a for a, _ in flips)} and {sum(b for _, b in flips)}; {sum(a != b for a, b in flips)} flips")
    print(f"ratio of whole rows {rows[0].seconds / rows[1].seconds:.2f}, files in {folder}")
    excess = found.excess(options.type)
    print(excess or "within the tolerance of fast mode")
    return 1 if excess else 0


def play(name: str, options: argparse.Namespace, folder: Path) -> PlayedRow:
    """Plays the row in the mode that `name` begins with, and returns its figures."""
    mode = name.partition("-")[0]
    folder.mkdir(parents=True)
    output = folder / "eval"
    command = [sys.executable, "-m", "tracka.engines.resident", *flags(options), f"--output_dir={output}"]
    command += [f"--resident.precision={mode}", *(f"--{flag}" for flag in options.flags)]
    start = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"error: {name} failed, see {folder / 'log.txt'}:\n{(folder / 'log.txt').read_text()[-2000:]}")
    timings = json.loads((output / "timings.json").read_text())
    episodes = comparison.read(output)
    return PlayedRow(name, seconds, usage.ru_maxrss / 2**20, timings, episodes, options.batch)


def flags(options: argparse.Namespace) -> list[str]:
    """Returns lerobot-eval's flags of the row, and the engine's own."""
    return [
        f"--policy.path={options.checkpoint}",
        f"--policy.device={options.device}",
        "--env.type=libero",
        f"--env.task={options.suite}",
        f"--env.task_ids={json.dumps(options.tasks)}",
        f"--env.observation_height={options.pixels}",
        f"--env.observation_width={options.pixels}",
        f"--eval.batch_size={options.batch}",
        f"--eval.n_episodes={options.episodes}",
        f"--seed={options.seed}",
        f"--resident.slots={options.slots}",
    ]


def in_words(row: PlayedRow) -> list[str]:
    """Returns the figures of a mode, line by line."""
    timings = row.timings
    stages = ", ".join(f"{name} {value:.1f}" for name, value in timings["stages"].items())
    main_process = ", ".join(f"{name} {value:.1f}" for name, value in timings["main"].items())
    return [
        f"{row.mode}: whole process {row.seconds:.1f} s, {row.an_hour:.0f} episodes an hour under way, "
        f"{timings['policy_calls']} calls, {timings['cuda_graphs']} graphs, answered {timings['precision']}, "
        f"{row.rss_gib:.1f} GiB of the host, {timings['gpu_gib']} GiB of the GPU",
        f"  stages, s: {stages}; main process: {main_process}",
        f"  fast: {timings['fast']}; fallbacks: {timings['fallbacks']}",
    ]


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--suite", default="libero_object")
    parser.add_argument("--tasks", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--episodes", type=int, default=10, help="of each task")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--chunk", type=int, default=50, help="actions of a first chunk to compare")
    parser.add_argument(
        "--type", default="bfloat16", choices=sorted(tolerance.MEAN), help="that the policy computes in"
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--again", action="store_true", help="play both once more")
    parser.add_argument("--keep", type=Path, help="a new folder for the files of both")
    parser.add_argument("--flags", nargs="*", default=[], help="further flags, such as env.episode_length=50")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
