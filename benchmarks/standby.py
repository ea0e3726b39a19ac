"""Measures how much time a warm worker process saves the rows of a session: python -m benchmarks.standby.

The resident engine plays the same rows twice, one row after the other, with a small random ACT on the CPU: first each
row in its own process, then all rows in one warm worker process. Some rows have another suite than the row before. The
program prints the seconds of each row and the ratio. The exit status is 1 if an episode differs, or if the warm process
does not make the later rows faster.
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
from tracka.execution import harness_session, warm_process

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
        alone = [play_row(case, Path(folder, f"alone-{number}"), {}) for number, case in enumerate(cases)]
        with harness_session.hold():
            worker_variables = warm_process.ensure_worker("cpu-0", "bench", Path(folder), program.environ())
            shared = [
                play_row(case, Path(folder, f"shared-{number}"), worker_variables) for number, case in enumerate(cases)
            ]
    print(f"{'row':70} {'alone':>8} {'load':>7} {'shared':>8} {'load':>7}")
    for case, alone_row, shared_row in zip(cases, alone, shared, strict=True):
        alone_times = f"{alone_row.seconds:6.1f} s {alone_row.load:5.2f} s"
        print(f"{case!s:70} {alone_times} {shared_row.seconds:6.1f} s {shared_row.load:5.2f} s")
    sums = [sum(row.seconds for row in rows) for rows in (alone, shared)]
    later = [sum(row.seconds for row in rows[1:]) for rows in (alone, shared)]
    print(f"all {sums[0] / sums[1]:.2f}x, all but the first {later[0] / later[1]:.2f}x")
    same = all(
        comparison.compare(alone_row.episodes, shared_row.episodes).exact
        for alone_row, shared_row in zip(alone, shared, strict=True)
    )
    return 0 if same and later[0] > later[1] else 1


def play_row(case: Case, folder: Path, worker_variables: Mapping[str, str]) -> Row:
    """Plays a row with the resident engine and returns its times and episodes.

    `worker_variables` has the environment variable that names the warm worker process. If it is empty, the row gets a
    process of its own.
    """
    program.play(case, "resident", folder, worker_variables)
    stages = json.loads((folder / "eval" / "timings.json").read_text())["stages"]
    episodes = comparison.read(folder / "eval")
    return Row(json.loads((folder / "seconds.json").read_text()), stages["policy_load"], episodes)


if __name__ == "__main__":
    sys.exit(main())
