"""Measures what a cluster adds to one row: python -m benchmarks.slurm_overhead, as root.

A real Slurm is started in namespaces of its own. `tracka run` plays a stand-in's row in turn on this host and on the
cluster, in many pairs whose order alternates (`benchmarks.slurm_pairs`): first as steps of one allocation, whose own
start does not count, then as jobs from a login node. The median of the paired differences counts, and the stages that
only the cluster's way has are named with what each takes. The exit status is 1 if a step adds more than the limit. A
machine that is busy with other programs is allowed more, by the time of a process that has nothing to do with Slurm. A
job a row has no limit: Slurm's queue decides it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import campaigns
import slurm_cluster
from campaigns import REPOSITORY, SETTINGS, Made

from benchmarks.matrix import IMPORT_SECS, Cost
from benchmarks.slurm_pairs import CLUSTER, LOCAL, YARDSTICK

ON_SLURM = f"{SETTINGS}\n[slurm]\ncpus = 1\nmemory_mib = 200\n"
ALLOCATION = ("-N1", "-n2", "--mem=1000")
Costs = Mapping[str, Sequence[Cost]]


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
        step = measured(made, options.pairs, ALLOCATION)
        job = measured(made, -(-options.pairs // 3), ())
    is_within = judge(step, options.most)
    print(f"a job of its own adds {added(job):.2f} s on an empty cluster (median of {len(job[LOCAL])} pairs)")
    return 0 if is_within else 1


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slurm_overhead", description=__doc__)
    parser.add_argument("--pairs", type=int, default=15, help="how often the row runs each way (default: %(default)s)")
    parser.add_argument("--most", type=float, default=1.0, help="seconds that a step may add (default: %(default)s)")
    return parser.parse_args()


def measured(made: Made, pairs: int, allocation: tuple[str, ...]) -> Costs:
    """Returns what the pairs took, measured inside an allocation where its options are given."""
    output = made.root / "pairs.json"
    words = [sys.executable, "-m", "benchmarks.slurm_pairs", str(made.root), str(pairs), str(output)]
    command = slurm_cluster.in_allocation(words, *allocation) if allocation else words
    if subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL).returncode:
        raise SystemExit("error: the pairs could not be measured")
    return {name: [Cost(**each) for each in costs] for name, costs in json.loads(output.read_text()).items()}


def judge(costs: Costs, most: float) -> bool:
    """Prints what a step adds and what its stages take; returns whether it adds at most `most` seconds."""
    slowness = max(1.0, seconds(costs[YARDSTICK]) / IMPORT_SECS)
    allowed = most * slowness
    differences = paired_differences(costs)
    spread = f"{min(differences):.2f} to {max(differences):.2f}"
    is_within = added(costs) <= allowed
    for name, stage in costs.items():
        print(f"{name:36}{seconds(stage):6.2f} s ({statistics.median(each.busy for each in stage):.2f} s of a core)")
    print(
        f"a step of an allocation adds {added(costs):.2f} s to a row (median of {len(differences)} pairs, {spread}),"
        f" {added(costs) / slowness:.2f} s on a quiet machine, at most {most:g} s there:"
        f" {'holds' if is_within else 'BROKEN'} (this machine is {slowness:.1f} times as slow now)"
    )
    return is_within


def paired_differences(costs: Costs) -> list[float]:
    """Returns by how many seconds the row took longer on the cluster than on this host, pair by pair."""
    return [there.seconds - here.seconds for here, there in zip(costs[LOCAL], costs[CLUSTER], strict=True)]


def added(costs: Costs) -> float:
    """Returns the median of the paired differences, in seconds."""
    return statistics.median(paired_differences(costs))


def seconds(costs: Sequence[Cost]) -> float:
    """Returns the median time of a stage."""
    return statistics.median(each.seconds for each in costs)


if __name__ == "__main__":
    sys.exit(main())
