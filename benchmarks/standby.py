"""What the rows of a session gain by a process that stands by: python -m benchmarks.standby.

The same rows of the resident engine, one after the other, a small random ACT on the CPU, some in another suite than the
one before: first each in a process of its own, then handed to one that stays. Prints the seconds of each and the
ratio. Exit status 1 if an episode came out otherwise, or if what stays does not make the later rows quicker.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fixtures import parity as program
from fixtures.parity import Case
from tracka.engines import comparison
from tracka.execution import warm_process

ROWS = (
    Case(program.RANDOM, "libero_object", (0,), 7, 2),
    Case(program.RANDOM, "libero_object", (0,), 11, 2),
    Case(program.RANDOM, "libero_goal", (0,), 7, 2),
    Case(program.RANDOM, "libero_spatial", (0,), 7, 2),
    Case(program.RANDOM, "libero_object", (0,), 23, 2),
)


@dataclass(frozen=True)
class Row:
    """How long a row took, and its episodes."""

    seconds: float  # the whole process
    load: float  # loading its policy
    episodes: comparison.PlayedEpisodes


def main() -> int:
    """Plays the rows in processes of their own, then in a warm worker process, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.standby", description=__doc__)
    parser.add_argument("--rows", type=int, default=len(ROWS), help="how many rows to play, at least two")
    cases = ROWS[: parser.parse_args().rows]
    program.checkpoint(program.RANDOM)
    with tempfile.TemporaryDirectory(prefix="tracka-bench-") as folder:
        alone = [played(case, Path(folder, f"alone-{number}"), {}) for number, case in enumerate(cases)]
        with warm_process.session():
            told = warm_process.ensure_worker("cpu-0", "bench", Path(folder), program.environ())
            shared = [played(case, Path(folder, f"shared-{number}"), told) for number, case in enumerate(cases)]
    print(f"{'row':70} {'alone':>8} {'load':>7} {'shared':>8} {'load':>7}")
    for case, one, other in zip(cases, alone, shared, strict=True):
        print(f"{case!s:70} {one.seconds:6.1f} s {one.load:5.2f} s {other.seconds:6.1f} s {other.load:5.2f} s")
    sums = [sum(row.seconds for row in rows) for rows in (alone, shared)]
    later = [sum(row.seconds for row in rows[1:]) for rows in (alone, shared)]
    print(f"all {sums[0] / sums[1]:.2f}x, all but the first {later[0] / later[1]:.2f}x")
    same = all(comparison.compare(one.episodes, other.episodes).exact for one, other in zip(alone, shared, strict=True))
    return 0 if same and later[0] > later[1] else 1


def played(case: Case, folder: Path, told: Mapping[str, str]) -> Row:
    """Plays a row with the resident engine and returns its times and episodes.

    `told` has the environment variable that names the warm worker process; an empty `told` gives the row its own
    process.
    """
    program.play(case, "resident", folder, told)
    stages = json.loads((folder / "eval" / "timings.json").read_text())["stages"]
    episodes = comparison.read(folder / "eval")
    return Row(json.loads((folder / "seconds.json").read_text()), stages["policy_load"], episodes)


if __name__ == "__main__":
    sys.exit(main())
