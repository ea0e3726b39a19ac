"""Measures the time that the harness adds to one row: python -m benchmarks.overhead.

The overhead is the time of `tracka run` without the time of lerobot-eval in it. A stand-in takes lerobot-eval's place,
since lerobot-eval's own work costs the harness nothing. The overhead is compared with the shortest measured row of a
real policy: 63 s for one episode of 280 steps on two cores. With `--real` the real lerobot-eval runs the row of the
smoke campaign that has a single episode, and the overhead is compared with that row. The median counts. The exit status
is 1 if the overhead is above the limit.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import campaigns
from campaigns import REPOSITORY, SETTINGS, STANDIN, Made

from tracka.campaign import campaign
from tracka.campaign.layout import Layout
from tracka.engines import cli_capabilities
from tracka.runs import run

REAL_ROW = "object_t1_b1_s11"
CLOCK = [sys.executable, "-IS", str(Path(__file__).with_name("clock.py"))]


@dataclass(frozen=True)
class RunTimes:
    """The seconds of one `tracka run`: of the whole command, and of lerobot-eval in it."""

    whole: float
    evaluation: float

    @property
    def overhead(self) -> float:
        """The seconds that the harness adds."""
        return self.whole - self.evaluation


def main() -> int:
    """Times the runs, prints the median overhead, and returns the exit status."""
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="tracka-bench-") as folder:
        bench_campaign = (real if options.real else standin)(Path(folder) / "campaign", Path(folder) / "log")
        run_times = list(
            runs(bench_campaign, REAL_ROW if options.real else "long_b1_e6", Path(folder) / "log", options.runs)
        )
    row = statistics.median(times.whole for times in run_times) if options.real else options.row_seconds
    overhead = statistics.median(times.overhead for times in run_times)
    percent = 100 * overhead / row
    print(f"median overhead {overhead:.3f} s: {percent:.2f}% of a row of {row:.1f} s, at most {options.percent:g}%")
    return 0 if percent <= options.percent else 1


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--runs", type=int, help="how many times the row runs (default: 5, or 1 with --real)")
    parser.add_argument("--percent", type=float, default=3.0, help="the most per cent that the harness may add")
    parser.add_argument(
        "--row-seconds",
        type=float,
        default=63.0,
        help="the length of the row with which a stand-in's overhead is compared",
    )
    parser.add_argument(
        "--real", action="store_true", help="run the real lerobot-eval, a minute a run, after a preflight"
    )
    options = parser.parse_args()
    options.runs = options.runs or (1 if options.real else 5)
    return options


def standin(root: Path, log: Path) -> Made:
    """Returns a new campaign whose lerobot-eval is a stand-in that takes a second."""
    executable = [*CLOCK, str(log), sys.executable, str(STANDIN / "lerobot_eval.py")]
    lines = [line for line in SETTINGS.splitlines() if not line.startswith("executable")]
    bench_campaign = campaigns.make(root, settings="\n".join([f"executable = {json.dumps(executable)}", *lines, ""]))
    bench_campaign.behave(long_b1_e6=["slow:1"])
    os.environ.update(bench_campaign.environ)
    bench_campaign.pass_preflight()
    return bench_campaign


def real(root: Path, log: Path) -> Made:
    """Returns a copy of the smoke campaign, whose own lerobot-eval is timed."""
    shutil.copytree(REPOSITORY / "tasks" / "smoke-libero-object" / "configs", root / "configs")
    layout = Layout(root)
    own = cli_capabilities.executable(campaign.load(root)) or cli_capabilities.find((), Path(sys.executable))
    executable = json.dumps([*CLOCK, str(log), *own])
    layout.settings.write_text(f"executable = {executable}\n{layout.settings.read_text()}")
    bench_campaign = Made(root, {})
    bench_campaign.pass_preflight()
    return bench_campaign


def runs(bench_campaign: Made, run_id: str, log: Path, count: int) -> Iterator[RunTimes]:
    """Runs one row `count` times with `tracka run`, each as an attempt of its own, and yields the times of each.

    Raises SystemExit where a run fails.
    """
    words = command(bench_campaign, run_id)
    for number in range(1, count + 1):
        start = time.monotonic()
        completed = subprocess.run(words, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        whole = time.monotonic() - start
        if completed.returncode:
            raise SystemExit(f"error: tracka run failed: {completed.stdout}{completed.stderr}")
        times = RunTimes(whole, float(log.read_text().splitlines()[-1]))
        print(
            f"run {number}: {times.whole:.3f} s, lerobot-eval {times.evaluation:.3f} s, harness {times.overhead:.3f} s"
        )
        yield times


def command(bench_campaign: Made, run_id: str) -> list[str]:
    """Returns the command that runs the row with `tracka run`."""
    row, host = bench_campaign.spec.row(run_id), run.load_host(bench_campaign.layout)
    options = {
        "run-id": row.run_id,
        "policy-path": row.policy_path,
        "task-suite": row.task_suite,
        "batch-size": row.batch_size,
        "n-episodes": row.n_episodes,
        "gpu-id": "cpu",
        "mujoco-gl": host.backend,
        "seed": row.seed,
        "artifacts-root": bench_campaign.layout.runs,
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "tracka", "run", *words, "--allow-overwrite"]


if __name__ == "__main__":
    sys.exit(main())
