"""Compares the makespan of a sweep under the gates' scheduling and under xdist's: python -m benchmarks.schedule.

Sixteen rows only sleep, 38 s together, on four workers: no schedule ends them in less than 9.5 s. All sessions run the
same test. The mode `ours` has the real plug-in and a campaign whose matrix gives the lengths; the others have plain
xdist. The makespan lasts from the first row's start to the last row's end, as the rows themselves record them. The
session's seconds also include the start of pytest and its workers, and the collection. The exit status is 1 if the
makespan of `ours` is above the limit, 1.03 of the lower bound. That is 0.3 s, which another program can take: `ours`
runs up to three times, and its shortest makespan counts.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tracka.campaign.layout import Layout
from tracka.campaign.matrix import COLUMNS
from tracka.core import files

REPOSITORY = Path(__file__).resolve().parent.parent
# Seconds of sleep of each row, in the matrix's order: the longest row is in the middle.
SECONDS = (1, 4, 2, 0.5, 3, 2.5, 1.5, 8, 1, 4, 2, 0.5, 3, 2.5, 1.5, 1)
WORKERS = 4
TRIES = 3
MODES = ("ours", "load", "worksteal", "loadgroup")
CONFTEST = f"""
def pytest_generate_tests(metafunc):
    metafunc.parametrize("row", {[f"row{place}" for place in range(len(SECONDS))]})
"""
MODULE = """
import time
from pathlib import Path

def test_row(row):
    start = time.time()
    time.sleep(SECONDS[int(getattr(row, "run_id", row).removeprefix("row"))])
    with Path(__file__).with_name("journal").open("a") as journal:
        journal.write(f"{start} {time.time()}\\n")
"""
SETTINGS = """
schema_version = 1
baseline = "row0"
expected_gpus = 0
[lerobot_eval]
task_ids = [0]
"""


@dataclass(frozen=True)
class SessionTimes:
    """The seconds of one session: from the first row's start to the last row's end, and of the whole session."""

    makespan: float
    session: float


def main() -> int:
    """Runs the rows under each way of dealing, prints the times, and returns the exit status."""
    options = arguments()
    seconds = tuple(options.scale * length for length in SECONDS)
    bound = max(sum(seconds) / WORKERS, *seconds)
    print(f"{len(seconds)} rows, {sum(seconds):g} s of sleep, {WORKERS} workers: lower bound {bound:g} s")
    print("dealing    makespan   of the bound   session", flush=True)
    ratios: dict[str, float] = {}
    for mode in options.modes:
        for _ in range(TRIES if mode == "ours" else 1):
            with tempfile.TemporaryDirectory() as folder:
                times = measure(mode, Path(folder), seconds)
            ratio = times.makespan / bound
            ratios[mode] = min(ratio, ratios.get(mode, ratio))
            print(f"{mode:<9} {times.makespan:7.2f} s {ratio:10.3f} {times.session:11.2f} s", flush=True)
            if ratio <= options.limit:
                break
    return 0 if ratios["ours"] <= options.limit else 1


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedule", description=__doc__)
    parser.add_argument(
        "--modes", nargs="+", choices=MODES, default=MODES, help="the ways to deal rows to workers; only ours is judged"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="a factor for the rows' seconds of sleep")
    parser.add_argument(
        "--limit", type=float, default=1.03, help="the largest makespan of ours, as a multiple of the lower bound"
    )
    return parser.parse_args()


def measure(mode: str, folder: Path, seconds: tuple[float, ...]) -> SessionTimes:
    """Runs the rows once and returns the times. Raises CalledProcessError where a row fails."""
    files.write_text(folder / "test_phase4_sleep.py", f"SECONDS = {seconds}\n{MODULE}")
    words = ours(folder) if mode == "ours" else stock(folder, mode)
    plain = ["-p", "no:anyio", "-p", "no:hydra_pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TRACKA_"))}
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"-n{WORKERS}", *plain, *words, "test_phase4_sleep.py"],
        cwd=folder,
        env=environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    session = time.monotonic() - start
    lines = [line.split() for line in (folder / "journal").read_text().splitlines()]
    assert len(lines) == len(SECONDS), "each row runs once"
    return SessionTimes(max(float(end) for _, end in lines) - min(float(begin) for begin, _ in lines), session)


def ours(folder: Path) -> list[str]:
    """Makes a campaign whose matrix has ten episodes a second of sleep.

    Returns pytest's words for the real plug-in on that campaign.
    """
    layout = Layout(folder / "campaign")
    rows = [f"row{place},libero_object,1,{round(10 * s)},cpu,7,egl,none,1" for place, s in enumerate(SECONDS)]
    files.write_text(layout.matrix, "\n".join([",".join(COLUMNS), *rows, ""]))
    files.write_text(layout.settings, SETTINGS)
    return ["-p", "tracka.plugin", "--campaign", "campaign"]


def stock(folder: Path, mode: str) -> list[str]:
    """Writes a conftest.py for xdist as it is. Returns pytest's words for its way of dealing."""
    files.write_text(folder / "conftest.py", CONFTEST)
    return ["--dist", mode]


if __name__ == "__main__":
    sys.exit(main())
