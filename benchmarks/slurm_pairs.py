"""Plays a stand-in's row in turn on this host and on a cluster: python -m benchmarks.slurm_pairs CAMPAIGN PAIRS OUTPUT.

It runs inside an allocation, whose rows are steps, or outside of one, where each row is a job. Between two pairs it
times the stages that only the cluster's way has, and one process that has nothing to do with Slurm, by which a busy
machine is known. OUTPUT gets a JSON object: name -> the costs of each time, as `Cost` of `benchmarks.matrix`.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import campaigns
from campaigns import Made

from benchmarks.matrix import IMPORT, Cost, cost
from tracka.campaign.slurm_settings import SlurmSettings
from tracka.execution import process, slurm_launch
from tracka.execution.slurm_launch import Launch
from tracka.execution.slurm_step import StepRequest

LOCAL, CLUSTER, YARDSTICK = "this host", "the cluster", "a process of this host"
IMPORTS = "import sys; from tracka.execution import slurm, slurm_launch"
ASK = f"{IMPORTS}; slurm.find(sys.argv[1]); slurm_launch.seconds_left()"
NAME = "tracka-bench"


def main(root: Path, pairs: int, output: Path) -> None:
    """Measures `pairs` pairs and writes what they took."""
    made = Made(root, campaigns.environment(root))
    ways: dict[str, Callable[[], Cost]] = {
        LOCAL: lambda: _row(made, "local"),
        CLUSTER: lambda: _row(made, "slurm"),
        YARDSTICK: lambda: cost("-c", IMPORT),
        **_stages(root),
    }
    found: dict[str, list[Cost]] = {name: [] for name in ways}
    for number in range(pairs):
        for name in reversed(ways) if number % 2 else ways:
            found[name].append(ways[name]())
        _show(number + 1, found)
    output.write_text(json.dumps({name: [asdict(each) for each in costs] for name, costs in found.items()}))


def _row(made: Made, launcher: str) -> Cost:
    run = campaigns.run_words(made, "--allow-overwrite", "--launcher", launcher)
    return cost("-m", "tracka", *run, stdout=subprocess.DEVNULL)


def _stages(root: Path) -> dict[str, Callable[[], Cost]]:
    """Returns the stages of a row that only a cluster has, each alone."""
    step = StepRequest(("true",), "/", str(root / "bench-step.json"), str(root / "none"), 60.0, 1.0, 60.0)
    program = process.python("tracka.execution.slurm_step", step.to_text())
    options = slurm_launch.options(Launch(NAME, "benchmark", 1, 5, False), SlurmSettings(memory_mib=200))
    return {
        "three questions to Slurm": lambda: _less(cost("-c", ASK, NAME), cost("-c", IMPORTS)),
        "srun of a program that does nothing": lambda: cost(*options, "true", is_python=False),
        "Track A's process on the node": lambda: cost(*program, is_python=False, stdin=subprocess.PIPE),
    }


def _less(whole: Cost, part: Cost) -> Cost:
    return Cost(max(0.0, whole.seconds - part.seconds), max(0.0, whole.busy - part.busy), whole.megabytes)


def _show(number: int, found: dict[str, Sequence[Cost]]) -> None:
    local, cluster = found[LOCAL][-1], found[CLUSTER][-1]
    print(f"pair {number}: {LOCAL} {local.seconds:.2f} s, {CLUSTER} {cluster.seconds:.2f} s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
