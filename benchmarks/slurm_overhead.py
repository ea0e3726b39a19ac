"""Measures what a cluster adds to one row: python -m benchmarks.slurm_overhead, as root.

A real Slurm is started in namespaces of its own. Inside an allocation `tracka run` plays a stand-in's row in turn on
this host and as a step; the median of the paired differences counts. The exit status is 1 if it is above the limit. A
job a row, as from a login node, is measured too, and has no limit: Slurm's queue decides it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import campaigns
import slurm_cluster
from campaigns import REPOSITORY, SETTINGS, Made

ROW = "long_b1_e6"
ON_SLURM = f"{SETTINGS}\n[slurm]\ncpus = 1\nmemory_mib = 200\n"
ALLOCATION = ("-N1", "-n2", "--mem=1000")


def main() -> int:
    """Prints the paired differences and their medians, and returns the exit status."""
    options = arguments()
    if why := slurm_cluster.missing():
        print(f"not measured: {why}")
        return 0
    with (
        tempfile.TemporaryDirectory(prefix="tracka-bench-") as folder,
        slurm_cluster.started(Path(folder) / "cluster") as cluster,
        cluster.joined(),
    ):
        made = campaigns.make(Path(folder) / "campaign", settings=ON_SLURM)
        os.environ.update({**made.environ, **cluster.environ})
        made.pass_preflight()
        step = paired(made, options.pairs, ALLOCATION)
        job = paired(made, options.pairs, ())
    added = statistics.median(step)
    print(
        f"a step of an allocation adds {added:.2f} s to a row (median of {len(step)} pairs), at most {options.most:g} s"
    )
    print(f"a job of its own adds {statistics.median(job):.2f} s on an empty cluster")
    return 0 if added <= options.most else 1


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slurm_overhead", description=__doc__)
    parser.add_argument("--pairs", type=int, default=7, help="how often the row runs each way (default: %(default)s)")
    parser.add_argument("--most", type=float, default=1.0, help="seconds that a step may add (default: %(default)s)")
    return parser.parse_args()


def paired(made: Made, pairs: int, allocation: tuple[str, ...]) -> list[float]:
    """Returns how many seconds longer the row takes on the cluster than on this host, run in turn."""
    differences = []
    for number in range(pairs):
        order = ("local", "slurm") if number % 2 else ("slurm", "local")
        seconds = {launcher: timed(made, launcher, allocation) for launcher in order}
        differences.append(seconds["slurm"] - seconds["local"])
        print(f"pair {number + 1}: this host {seconds['local']:.2f} s, Slurm {seconds['slurm']:.2f} s")
    return differences


def timed(made: Made, launcher: str, allocation: tuple[str, ...]) -> float:
    """Returns the seconds of one `tracka run`, timed inside the allocation, whose own start does not count."""
    run = campaigns.run_words(made, "--allow-overwrite", "--launcher", launcher)
    log = made.root / "seconds"
    words = [sys.executable, str(Path(__file__).with_name("clock.py")), str(log), sys.executable, "-m", "tracka", *run]
    command = slurm_cluster.in_allocation(words, *allocation) if allocation else words
    ended = subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"error: tracka run failed: {ended.stdout}{ended.stderr}")
    return float(log.read_text().splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
