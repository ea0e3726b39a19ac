"""Measures how long whole suites take on one GPU or on several: python -m benchmarks.suites CHECKPOINT.

Each row plays tasks of one suite with the resident engine. The GPUs take the rows from one queue, the longest first.
Each GPU has a warm process that plays its rows one after the other, as in a sweep. The program prints a line for each
row as it ends and one for the whole: seconds, stages, and episodes an hour. The rate under way leaves out a row's first
round of slots. After `--seconds`, no row starts, those that play are cut off, and the time of all rows is extrapolated.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.suite_figures import Played, Row, line, played, whole
from tracka.core.lerobot_facts import EPISODE_STEPS
from tracka.execution import environment, harness_session, warm_process

SUITES = ("libero_object", "libero_goal", "libero_spatial", "libero_10")
TASKS = 10  # of each suite
ENDING_SECS = 10.0  # that a row's program may take to end


@dataclass
class Session:
    """The rows that wait, and what all GPUs share. `failure` is why a row has failed: then no further row starts."""

    options: argparse.Namespace
    folder: Path
    waiting: "queue.SimpleQueue[Row]"
    start: float = field(default_factory=time.time)
    failure: str = ""
    printing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def seconds(self) -> float:
        """Returns the seconds since the first row's start."""
        return time.time() - self.start

    @property
    def is_over(self) -> bool:
        """Returns whether no row may start, and those that play have to end."""
        return bool(self.failure) or self.seconds > self.options.seconds

    def next_row(self) -> Row | None:
        """Returns the next row to play, None where none may start."""
        try:
            return None if self.is_over else self.waiting.get_nowait()
        except queue.Empty:
            return None

    def print_row(self, row: Played) -> None:
        """Prints the line of a row that has ended."""
        with self.printing:
            print(line(row), flush=True)


def main() -> int:
    """Plays all rows, prints their times, and returns the exit status."""
    options = arguments()
    rows = sorted(rows_of(options), key=lambda row: -row.steps)
    waiting: queue.SimpleQueue[Row] = queue.SimpleQueue()
    for row in rows:
        waiting.put(row)
    with tempfile.TemporaryDirectory(prefix="tracka-bench-") as folder, harness_session.hold():
        session = Session(options, Path(folder), waiting)
        with ThreadPoolExecutor(options.gpus) as pool:
            gpus = range(options.first_gpu, options.first_gpu + options.gpus)
            futures = [pool.submit(play_all, gpu, session) for gpu in gpus]
            all_played = sorted((row for future in futures for row in future.result()), key=lambda row: row.began)
        seconds = session.seconds
    if session.failure:
        print(session.failure, file=sys.stderr)
        return 1
    print("\n".join(whole(rows, all_played, options.gpus, options.slots, seconds)))
    write(options, seconds, all_played)
    return 0


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suites", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--suites", nargs="+", default=SUITES, choices=EPISODE_STEPS)
    parser.add_argument("--tasks", type=int, default=TASKS, help="how many tasks of each suite")
    parser.add_argument("--tasks-a-row", type=int, default=TASKS)
    parser.add_argument("--episodes", type=int, default=50, help="episodes of each task")
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--slots", type=int, default=40)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--first-gpu", type=int, default=0, help="the number of the first of these GPUs")
    parser.add_argument("--device", default="cuda", help="cpu plays without GPUs, as many rows at once as --gpus")
    parser.add_argument("--flags", nargs="*", default=(), help="further flags, such as resident.cuda_graphs=false")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="cut the rows off after so many seconds")
    parser.add_argument("--output", type=Path, help="a JSON file of all figures")
    return parser.parse_args()


def rows_of(options: argparse.Namespace) -> Iterator[Row]:
    """Yields the rows: the tasks of each suite, `--tasks-a-row` in each."""
    for suite in options.suites:
        for first in range(0, options.tasks, options.tasks_a_row):
            tasks = tuple(range(first, min(first + options.tasks_a_row, options.tasks)))
            yield Row(suite, tasks, options.episodes)


def play_all(gpu: int, session: Session) -> list[Played]:
    """Plays rows on the GPU `gpu` until none waits or the session is over, and returns them."""
    environ = environ_of(gpu, session.options)
    environ |= warm_process.ensure_worker(f"gpu-{gpu}", "bench", session.folder, environ)
    all_played = []
    while row := session.next_row():
        output, began = session.folder / f"{row.suite}-{row.tasks[0]}", time.time()
        play_row(row, output, session, environ)
        seconds = time.time() - began
        all_played.append(played(gpu, row, output, session.options.slots, session.start, began, seconds))
        session.print_row(all_played[-1])
    return all_played


def environ_of(gpu: int, options: argparse.Namespace) -> dict[str, str]:
    """Returns the environment of the processes that play on the GPU `gpu`."""
    environ = environment.base() | {"MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")}
    environ |= {environment.ROWS_AT_ONCE: str(options.gpus)}
    if options.device == "cpu":
        return environ
    return environ | {"CUDA_VISIBLE_DEVICES": str(gpu), "MUJOCO_EGL_DEVICE_ID": str(gpu)}


def play_row(row: Row, output: Path, session: Session, environ: Mapping[str, str]) -> None:
    """Plays one row into the folder `output`, and ends it once the session is over.

    Where the engine fails, the session's failure is the end of the row's log.
    """
    log = output.with_suffix(".log")
    with log.open("w") as file:
        command = [sys.executable, "-m", "tracka.engines.resident", *words_of(row, output, session.options)]
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environ)
        while program.poll() is None and not session.is_over:
            time.sleep(0.05)
        cut_off = program.poll() is None
        if cut_off:
            program.terminate()  # its warm process ends with it
            program.wait(ENDING_SECS)
    if program.returncode and not cut_off:
        session.failure = f"error: {row} failed:\n" + "\n".join(log.read_text().splitlines()[-30:])


def words_of(row: Row, output: Path, options: argparse.Namespace) -> list[str]:
    """Returns the flags of a row's program."""
    values = {
        "policy.path": options.checkpoint,
        "policy.device": options.device,
        "env.type": "libero",
        "env.task": row.suite,
        "env.task_ids": json.dumps(row.tasks),
        "env.observation_height": options.pixels,
        "env.observation_width": options.pixels,
        "eval.batch_size": options.batch_size,
        "eval.n_episodes": row.episodes,
        "seed": 7,
        "output_dir": output,
        "resident.slots": options.slots,
    }
    return [*(f"--{name}={value}" for name, value in values.items()), *(f"--{flag}" for flag in options.flags)]


def write(options: argparse.Namespace, seconds: float, all_played: Sequence[Played]) -> None:
    """Writes all figures to the file that `--output` names, if it names one."""
    if options.output:
        content = {"gpus": options.gpus, "seconds": seconds, "rows": [asdict(row) for row in all_played]}
        options.output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
