"""Measures a campaign of 100,000 finished rows on 1,000 nodes, step by step: python -m benchmarks.scale.

Making the campaign (`benchmarks.nodes`) is not counted; it takes minutes and some 90 KB of disk a row, below --folder,
and is removed at the end. With --made, a campaign that was made before is measured instead, and stays. Each step is a
fresh process, whose seconds, seconds of a core and peak memory are printed. The contracts hold for every row, so
nothing is cheap because it fails: a step that does not succeed ends the benchmark.

The complete validations take longest. With --validated they are measured on a smaller campaign of so many rows, made
in the same way, and their seconds are stated multiplied by the rest, as extrapolated. The exit status is 1 if collect
or `validate --quick` takes more than allowed. Seconds are of a core there, so that other programs do not count, and a
slower machine, by the time of its imports, is allowed more.
"""

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.matrix import IMPORT, IMPORT_SECS, PARSE, TABLES, Cost, cost

VERDICT = (
    "import sys, pathlib; from tracka.campaign import campaign; from tracka.reporting import verdict_file;"
    " verdict_file.write(campaign.load(pathlib.Path(sys.argv[1])))"
)
Steps = Callable[[Path], dict[str, list[str]]]
COLLECT, QUICK = "collect", "validate --quick"


@dataclass(frozen=True)
class Limit:
    """The most that a step may take; None where nothing is asked."""

    seconds: float
    megabytes: float | None = None


LIMITS = {COLLECT: Limit(60, 1500), QUICK: Limit(600)}


def main() -> int:
    """Makes the campaigns, measures the steps and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--validated", type=int, default=5_000, help="rows of the complete validations; 0 for all")
    parser.add_argument("--folder", type=Path, help="where the campaigns are made; by default a temporary folder")
    parser.add_argument("--made", type=Path, help="a campaign of --rows rows that benchmarks.nodes has made")
    options = parser.parse_args()
    if options.made:
        find(options.made)
        return judge(measure(options.made, quick_steps), machine_slowness(), options.rows / 100_000)
    part = options.validated if 0 < options.validated < options.rows else options.rows
    slowness = machine_slowness()
    with tempfile.TemporaryDirectory(prefix="tracka-bench-", dir=options.folder) as folder:
        if part < options.rows:
            measure(make(Path(folder) / "part", part), complete_steps, options.rows / part)
            shutil.rmtree(Path(folder) / "part")
        root = make(Path(folder) / "campaign", options.rows)
        if part == options.rows:
            measure(root, complete_steps)
        return judge(measure(root, quick_steps), slowness, options.rows / 100_000)


def make(root: Path, rows: int) -> Path:
    """Makes a campaign of `rows` rows after its sweep, finds it from now on, and returns its folder."""
    making = cost("-m", "benchmarks.nodes", str(root), str(rows))
    find(root)
    print(f"{rows} rows on {os.cpu_count()} cores; {making.seconds:.0f} s to make them, not counted", flush=True)
    return root


def find(root: Path) -> None:
    """Sets the variables by which the stand-ins of the campaign in `root` are found."""
    os.environ |= json.loads((root / "environment.json").read_text())


def machine_slowness() -> float:
    """Returns by how much this machine is slower than the one for which the limits are meant, by its imports."""
    return max(1.0, cost("-c", IMPORT).busy / IMPORT_SECS)


def quick_steps(root: Path) -> dict[str, list[str]]:
    """Returns the steps whose cost is measured in full size: name -> words for Python."""
    tables = [f"--{name}={root / place}" for name, place in TABLES.items()]
    return {
        "parse": ["-c", PARSE, str(root)],
        COLLECT: ["-m", "tracka", "collect", f"--runs-root={root / 'artifacts' / 'runs'}", *tables],
        "verdict": ["-c", VERDICT, str(root)],
        QUICK: ["-m", "tracka", "validate", "--quick", "--phase=all", f"--root={root}"],
    }


def complete_steps(root: Path) -> dict[str, list[str]]:
    """Returns the steps that open every file of every run, and the page. The first hands phases 4 and 5 over."""
    command = ["-m", "tracka", "validate", f"--root={root}"]
    return {
        "close": ["-m", "tracka", "close", "--no-page", str(root)],
        "validate": [*command, "--phase=all"],
        "validate phase4": [*command, "--phase=phase4"],
        "validate phase5": [*command, "--phase=phase5"],
        "report": ["-m", "tracka", "report", str(root)],
    }


def measure(root: Path, steps: Steps, times: float = 1.0) -> dict[str, Cost]:
    """Runs the steps of the campaign in `root` one after the other, and prints and returns what each took.

    `times` says for how many such campaigns the seconds are stated besides.
    """
    costs = {}
    for name, words in steps(root).items():
        costs[name] = cost(*words)
        whole = f"; extrapolated to {times:g} times the rows: {times * costs[name].busy:.0f} s of a core"
        print(f"{name:17}{costs[name]}{whole if times != 1 else ''}", flush=True)
    return costs


def judge(costs: dict[str, Cost], slowness: float, share: float) -> int:
    """Prints whether each limit holds for `share` of the rows that it is meant for; returns 0 if all do, else 1."""
    broken = 0
    for name, limit in LIMITS.items():
        allowed = limit.seconds * share * slowness
        holds = costs[name].busy < allowed and costs[name].megabytes < (limit.megabytes or math.inf)
        most = f" and {limit.megabytes:g} MB" if limit.megabytes else ""
        print(f"{name}: {costs[name].busy:.1f} of {allowed:.3g} s of a core{most}: {'holds' if holds else 'BROKEN'}")
        broken += not holds
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
