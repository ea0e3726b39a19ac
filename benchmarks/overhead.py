"""What the harness adds to one row: python -m benchmarks.overhead.

`tracka run` is timed from its start to its end, and in it lerobot-eval from its start to its end; the difference is the
harness's. A stand-in plays lerobot-eval, since what that does costs the harness nothing, and the difference is set
against the shortest row of a real policy that was measured: 63 s for one episode of 280 steps on two cores. With
`--real` it is the real one, on the row of the smoke campaign that has a single episode, and the difference is set
against that row. The median counts. Exit status 1 above the limit.
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
class Timed:
    """The seconds of one `tracka run`: of the whole command, and of lerobot-eval in it."""

    whole: float
    evaluation: float

    @property
    def overhead(self) -> float:
        """The seconds that the harness adds."""
        return self.whole - self.evaluation


def main() -> int:
    """Times the runs, prints the median overhead, and returns the exit status."""
    asked = arguments()
    with tempfile.TemporaryDirectory(prefix="tracka-bench-") as folder:
        made = (real if asked.real else standin)(Path(folder) / "campaign", Path(folder) / "log")
        timed = list(runs(made, REAL_ROW if asked.real else "long_b1_e6", Path(folder) / "log", asked.runs))
    row = statistics.median(each.whole for each in timed) if asked.real else asked.row_seconds
    overhead = statistics.median(each.overhead for each in timed)
    percent = 100 * overhead / row
    print(f"median overhead {overhead:.3f} s: {percent:.2f}% of a row of {row:.1f} s, at most {asked.percent:g}%")
    return 0 if percent <= asked.percent else 1


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
    asked = parser.parse_args()
    asked.runs = asked.runs or (1 if asked.real else 5)
    return asked


def standin(root: Path, log: Path) -> Made:
    """Returns a new campaign whose lerobot-eval is a stand-in that takes a second."""
    executable = [*CLOCK, str(log), sys.executable, str(STANDIN / "lerobot_eval.py")]
    lines = [line for line in SETTINGS.splitlines() if not line.startswith("executable")]
    made = campaigns.make(root, settings="\n".join([f"executable = {json.dumps(executable)}", *lines, ""]))
    made.behave(long_b1_e6=["slow:1"])
    os.environ.update(made.environ)
    made.pass_preflight()
    return made


def real(root: Path, log: Path) -> Made:
    """Returns a copy of the smoke campaign, whose own lerobot-eval is timed."""
    shutil.copytree(REPOSITORY / "tasks" / "smoke-libero-object" / "configs", root / "configs")
    layout = Layout(root)
    own = cli_capabilities.executable(campaign.load(root)) or cli_capabilities.find((), Path(sys.executable))
    executable = json.dumps([*CLOCK, str(log), *own])
    layout.settings.write_text(f"executable = {executable}\n{layout.settings.read_text()}")
    made = Made(root, {})
    made.pass_preflight()
    return made


def runs(made: Made, run_id: str, log: Path, count: int) -> Iterator[Timed]:
    """Runs one row `count` times with `tracka run`, each as an attempt of its own, and yields the times of each.

    Raises SystemExit where a run fails.
    """
    words = command(made, run_id)
    for number in range(1, count + 1):
        start = time.monotonic()
        ended = subprocess.run(words, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        whole = time.monotonic() - start
        if ended.returncode:
            raise SystemExit(f"error: tracka run failed: {ended.stdout}{ended.stderr}")
        timed = Timed(whole, float(log.read_text().splitlines()[-1]))
        print(
            f"run {number}: {timed.whole:.3f} s, lerobot-eval {timed.evaluation:.3f} s, harness {timed.overhead:.3f} s"
        )
        yield timed


def command(made: Made, run_id: str) -> list[str]:
    """Returns the command that runs the row with `tracka run`."""
    row, host = made.spec.row(run_id), run.load_host(made.layout)
    options = {
        "run-id": row.run_id,
        "policy-path": row.policy_path,
        "task-suite": row.task_suite,
        "batch-size": row.batch_size,
        "n-episodes": row.n_episodes,
        "gpu-id": "cpu",
        "mujoco-gl": host.backend,
        "seed": row.seed,
        "artifacts-root": made.layout.runs,
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "tracka", "run", *words, "--allow-overwrite"]


if __name__ == "__main__":
    sys.exit(main())
