"""Measures how the resident engine's speed grows with slots and batch size: python -m benchmarks.growth.

`measure FOLDER CSV` plays episodes of four LIBERO tasks with the checkpoint in FOLDER, once for each pair of slots and
batch size, and writes a line for each pair. `plot CSV PNG --sampling CSV` draws these lines, and beside them the rate
that the policy alone allows, by the milliseconds of a call at each batch size. A rate counts the episodes that end
after the first round of slots.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fixtures import parity as program

# environment slots, batch size, episodes a task
PAIRS = (
    (1, 1, 2),
    (2, 2, 4),
    (4, 4, 4),
    (8, 8, 8),
    (16, 16, 16),
    (32, 16, 32),
    (32, 32, 32),
)
TASKS = (0, 1, 2, 3)
CALLS = 6  # calls of the policy in an episode of 280 steps, at 50 actions a call
RATES = ("slots", "batch_size", "episodes", "per_minute")
COLUMNS = (*RATES, "rollout_s", "policy_s", "policy_calls", "total_s", "step_s")


def main() -> int:
    """Measures all pairs and writes their table, or draws a table, and returns the exit status."""
    options = arguments()
    if options.action == "plot":
        plot(options.source, options.sampling, options.target)
        return 0
    with options.target.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for slots, batch_size, n_episodes in options.pairs:
            writer.writerow(measure_pair(options.source, options.device, options.tasks, slots, batch_size, n_episodes))
            file.flush()
    return 0


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("action", choices=("measure", "plot"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument(
        "--sampling", type=Path, help="a CSV with the milliseconds of sample_actions at each batch size"
    )
    parser.add_argument("--device", default="cuda", help="the torch device on which the policy runs")
    parser.add_argument("--tasks", type=int, nargs="+", default=TASKS, help="tasks of libero_object")
    parser.add_argument(
        "--pairs", type=pair, nargs="+", default=PAIRS, help="pairs, each as SLOTS:BATCH_SIZE:EPISODES_PER_TASK"
    )
    return parser.parse_args()


def pair(words: str) -> tuple[int, int, int]:
    """Returns environment slots, batch size and episodes a task of a word such as 8:8:16."""
    slots, batch_size, n_episodes = map(int, words.split(":"))
    return slots, batch_size, n_episodes


def measure_pair(
    policy: Path, device: str, tasks: Sequence[int], slots: int, batch_size: int, n_episodes: int
) -> Sequence[float]:
    """Plays one pair's episodes and returns its line of the table."""
    values = {
        "policy.path": policy,
        "policy.device": device,
        "env.type": "libero",
        "env.task": "libero_object",
        "env.task_ids": json.dumps(tasks),
        "env.observation_height": 256,
        "env.observation_width": 256,
        "eval.batch_size": batch_size,
        "eval.n_episodes": n_episodes,
        "seed": 7,
        "resident.slots": slots,
        "resident.videos": 0,
    }
    with tempfile.TemporaryDirectory(prefix="tracka-bench-") as folder:
        words = [f"--{name}={value}" for name, value in (values | {"output_dir": Path(folder, "eval")}).items()]
        subprocess.run([sys.executable, "-m", "tracka.engines.resident", *words], check=True, env=program.environ())
        return line(Path(folder, "eval"), slots, batch_size)


def line(output: Path, slots: int, batch_size: int) -> Sequence[float]:
    """Returns a run's line of the table from its output folder.

    The rate leaves out the episodes of the first round of slots, and at most half of all episodes.
    """
    ends = sorted(json.loads(text)["at_secs"] for text in (output / "episodes.jsonl").read_text().splitlines())
    first = max(1, min(slots, len(ends) // 2))
    rate = 60 * (len(ends) - first) / (ends[-1] - ends[first - 1])
    timings = json.loads((output / "timings.json").read_text())
    stages = (
        timings["stages"]["rollout"],
        timings["main"]["policy"],
        timings["policy_calls"],
        timings["stages"]["total"],
    )
    return (slots, batch_size, len(ends), round(rate, 1), *stages, timings["workers"]["step"])


def plot(growth: Path, sampling: Path, target: Path) -> None:
    """Draws episodes a minute against environment slots and against batch size, into the file `target`.

    The first is drawn beside the first point's rate a slot, the second beside what the policy alone would allow.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = read(growth)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.4), layout="constrained", sharey=True)
    growing = sorted((row["slots"], row["per_minute"]) for row in rows if row["batch_size"] == min(row["slots"], 16))
    slots = [place for place, _ in growing]
    left.plot(slots, [place / slots[0] * growing[0][1] for place in slots], "--", color="0.6", label="linear")
    left.plot(slots, [rate for _, rate in growing], "o-", color="#1f5fa8", label="measured")
    policy_rates = [(row["batch_size"], row["batch_size"] / row["sample_actions_ms"]) for row in read(sampling)]
    right.plot(
        [size for size, _ in policy_rates],
        [60_000 * rate / CALLS for _, rate in policy_rates],
        "--",
        color="0.6",
        label="policy alone",
    )
    for row in rows:
        place = row["batch_size"], row["per_minute"]
        right.plot(*place, "o", color="#1f5fa8")
        right.annotate(f"{row['slots']:.0f}", place, (5, -9), textcoords="offset points")
    right.plot([], [], "o", color="#1f5fa8", label="measured, with its slots")
    for axis, name, places in ((left, "environment slots", slots), (right, "batch size", [1, 2, 4, 8, 16, 32])):
        axis.set(xscale="log", yscale="log", xlabel=name)
        axis.set_xticks(places, [f"{place:.0f}" for place in places])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    left.set(ylabel="episodes a minute")
    left.set_yticks([10, 30, 100, 300], ["10", "30", "100", "300"])
    figure.savefig(target, dpi=110)


def read(table: Path) -> list[dict[str, float]]:
    """Returns the lines of a table of numbers, column -> number."""
    with table.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


if __name__ == "__main__":
    sys.exit(main())
