"""Compares the resident engine's speed with lerobot-eval's on one row: python -m benchmarks.engines.

Both engines play the same episodes of one LIBERO task with a small random ACT, one after the other on this machine, at
full length. The program prints two ratios: of the seconds of the whole row, start-up included, and of the episodes per
minute once both are under way. It also prints the seconds of each stage of the resident engine. The exit status is 1 if
a ratio is below its limit or an action differs.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fixtures import parity as program
from fixtures.parity import Case
from tracka.core import user_cache
from tracka.engines import comparison


@dataclass(frozen=True)
class EngineRun:
    """One engine's run of the row."""

    seconds: float  # of the whole process
    per_minute: float  # episodes a minute, after the first batch has ended
    episodes: comparison.PlayedEpisodes


def main() -> int:
    """Plays the row with both engines, prints times and ratios, and returns the exit status."""
    options = arguments()
    case = Case(program.RANDOM, options.suite, (options.task,), options.seed, options.episodes, options.batch_size)
    with tempfile.TemporaryDirectory(prefix="tracka-bench-") as folder:
        reference = run_engine(case, "reference", Path(folder))
        resident = run_engine(case, "resident", Path(folder))
        stages = json.loads((Path(folder) / "resident" / "eval" / "timings.json").read_text())
        if options.keep:
            shutil.copytree(folder, options.keep, dirs_exist_ok=True)
    result = comparison.compare(reference.episodes, resident.episodes)
    whole, steady = reference.seconds / resident.seconds, resident.per_minute / reference.per_minute
    print(f"{case}, {os.cpu_count()} cores, {program.PIXELS} x {program.PIXELS} pixels, policy on the CPU")
    print(f"{'':12} {'whole row':>12} {'under way':>20}")
    for name, engine_run in (("reference", reference), ("resident", resident)):
        print(f"{name:12} {engine_run.seconds:10.1f} s {engine_run.per_minute:11.2f} a minute")
    print(f"{'ratio':12} {whole:11.1f}x {steady:19.1f}x    ({result.same} of {result.episodes} the same)")
    print("resident, seconds: " + ", ".join(f"{key} {value:.1f}" for key, value in stages["stages"].items()))
    print("of the main process: " + ", ".join(f"{key} {value:.1f}" for key, value in stages["main"].items()))
    print("of all workers: " + ", ".join(f"{key} {value:.1f}" for key, value in stages["workers"].items()))
    return 0 if whole >= options.whole and steady >= options.steady and result.exact else 1


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--suite", default="libero_object")
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--whole", type=float, default=6.0, help="the least ratio of whole rows")
    parser.add_argument("--steady", type=float, default=15.0, help="the least ratio once both are under way")
    parser.add_argument("--keep", type=Path, help="copy the files of both engines to this folder")
    return parser.parse_args()


def run_engine(case: Case, engine: str, folder: Path) -> EngineRun:
    """Plays the case with one engine, and returns its times and episodes."""
    program.play(case, engine, folder / engine)
    episodes = comparison.read(folder / engine / "eval")
    ends = sorted(episode.line["at_secs"] for episode in episodes.values())
    first = ends[case.batch_size - 1]  # the episodes of a batch end together
    rate = 60 * (len(ends) - case.batch_size) / (ends[-1] - first)
    return EngineRun(json.loads((folder / engine / "seconds.json").read_text()), rate, episodes)


if __name__ == "__main__":
    user_cache.folder().mkdir(parents=True, exist_ok=True)
    sys.exit(main())
