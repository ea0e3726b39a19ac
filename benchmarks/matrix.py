"""Measures the time and memory to parse and collect a large campaign: python -m benchmarks.matrix.

Making the campaign, in a temporary folder, is not counted. Each step is a fresh process. `parse` reads and checks
matrix and settings. `collect` runs `tracka collect`, which also reads the run folders and writes the tables. Both steps
count Python's start and the imports; a third process, `import`, measures these alone. The files were written just
before, so the system's cache holds them. The exit status is 1 if both steps together take more time, or one of them
more memory, than allowed. Seconds are of a core, so other programs do not count. A slower machine, by the time of its
imports, is allowed more. All steps run five times in turn, and the median counts: on a shared machine the same work
takes up to 70% longer in some minutes than in others.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
IMPORT = "import tracka.cli"
IMPORT_SECS = 0.24  # seconds of a core on the machine for which the limit is meant
RUNS = 5
PARSE = "import sys, pathlib, tracka.cli; tracka.cli.campaign.load(pathlib.Path(sys.argv[1]))"


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    seconds: float
    busy: float  # seconds of a core: less than `seconds` where others use the machine
    megabytes: float  # resident memory at its peak

    def __str__(self) -> str:
        return f"{self.seconds:6.2f} s ({self.busy:.2f} s of a core) {self.megabytes:6.0f} MB"


def main() -> int:
    """Makes the campaign, measures the steps and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matrix", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="the most seconds of a core for parsing and collecting"
    )
    parser.add_argument("--megabytes", type=float, default=300.0, help="the most memory for parsing or collecting")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tracka-bench-") as folder:
        root = Path(folder) / "campaign"
        making = cost("-m", "benchmarks.large", str(root), str(options.rows))
        print(f"{options.rows} rows on {os.cpu_count()} cores; {making.seconds:.0f} s to make them, not counted")
        runs = sorted((measure(root) for _ in range(RUNS)), key=slowness)
        return judge(runs[RUNS // 2], options.seconds, options.megabytes)


def measure(root: Path) -> dict[str, Cost]:
    """Returns step -> cost on the campaign in `root`."""
    tables = [f"--{name}={root / place}" for name, place in TABLES.items()]
    return {
        "import": cost("-c", IMPORT),
        "parse": cost("-c", PARSE, str(root)),
        "collect": cost("-m", "tracka", "collect", f"--runs-root={root / 'artifacts' / 'runs'}", *tables),
    }


def slowness(costs: dict[str, Cost]) -> float:
    """Returns the time of parsing and collecting, as a multiple of the imports' time."""
    return (costs["parse"].busy + costs["collect"].busy) / costs["import"].busy


TABLES = {
    "summary-csv": "artifacts/summary/all_runs.csv",
    "summary-md": "artifacts/summary/all_runs.md",
    "failures-csv": "artifacts/summary/failures.csv",
}


def cost(*words: str, is_python: bool = True, stdin: int = subprocess.DEVNULL, stdout: int | None = None) -> Cost:
    """Runs Python on `words` and returns what the process took. Raises SystemExit where the process fails.

    Without `is_python`, `words` are the whole command.
    """
    start = time.monotonic()
    command = [sys.executable, *words] if is_python else words
    child = subprocess.Popen(command, cwd=REPOSITORY, stdin=stdin, stdout=stdout)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"error: {words} ended with exit status {child.returncode}")
    # ru_maxrss is in KiB, and is never less than this process had when it started the child. So nothing large is
    # imported in this module.
    return Cost(time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


def judge(costs: dict[str, Cost], seconds: float, megabytes: float) -> int:
    """Prints the costs, and returns 0 if parsing and collecting stay within the limits, else 1."""
    for name, step_cost in costs.items():
        print(f"{name:8}{step_cost}")
    parse, collect = costs["parse"], costs["collect"]
    both = Cost(parse.seconds + collect.seconds, parse.busy + collect.busy, max(parse.megabytes, collect.megabytes))
    allowed = seconds * max(1.0, costs["import"].busy / IMPORT_SECS)
    within_limits = both.busy < allowed and both.megabytes < megabytes
    verdict = "holds" if within_limits else "BROKEN"
    print(f"{'both':8}{both}  of {allowed:.3g} s of a core and {megabytes:g} MB: {verdict}")
    return 0 if within_limits else 1


if __name__ == "__main__":
    sys.exit(main())
