"""Times resets, control steps and a whole rollout of environment slots, without a policy: python -m benchmarks.slots.

First all slots reset (as newly forked processes), reset once more, and play a chunk of actions: seconds until the last
slot is ready, and for each reset or step the CPU time and the page faults of the slots' processes and of the renderers.
Then a rollout plays `--episodes` episodes of `--steps` steps at `--batch` with a pretended policy, whose call takes
`--call` seconds: asleep, or with `--gpu` computing on the GPU that the renderers draw on. A line says what the cores
did, and what the slots' processes count themselves: CPU time has `_cpu` in its name, all else is time on the clock.

`--tree` names another clone of the project, which is measured before this one. The exit status is 1 if the pictures or
the final states of both differ.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil

OWN_TREE = Path(__file__).resolve().parents[1]
CHUNK = 50  # actions for each look
TICKS = os.sysconf("SC_CLK_TCK")
Result = dict[str, Any]
Usage = Counter[str]  # of all processes by kind: seconds of CPU time ("worker_cpu") and page faults ("worker_faults")


def main() -> int:
    """Measures each tree and prints its figures; returns 1 where their pictures or final states differ."""
    args = arguments()
    if args.measure:
        print(json.dumps(measure(args)))
        return 0
    results = {tree: measure_tree(Path(tree).resolve()) for tree in (*args.tree, OWN_TREE)}
    for tree, result in results.items():
        print(tree, *(f"  {name}: {told}" for name, told in result.items()), sep="\n")
    hashes = {result["hashes"] for result in results.values()}
    print(f"pictures and final states: {'all the same' if len(hashes) == 1 else 'THEY DIFFER'}")
    return 0 if len(hashes) == 1 else 1


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slots", description=__doc__)
    parser.add_argument("--suite", default="libero_10")
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--slots", type=int, default=40)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--renderers", type=int, default=4, help="0: the slots' processes draw")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--call", type=float, default=0.28, help="seconds of a call of the pretended policy")
    parser.add_argument("--gpu", action="store_true", help="the pretended policy computes on the GPU, else it sleeps")
    parser.add_argument("--episodes", type=int, default=120)
    parser.add_argument("--steps", type=int, default=250, help="of each episode")
    parser.add_argument("--tree", action="append", default=[], help="a clone of another version")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure_tree(tree: Path) -> Result:
    """Measures the project in the folder `tree` in a process of its own, and returns what that has measured."""
    paths = os.pathsep.join(filter(None, (str(tree), os.environ.get("PYTHONPATH"))))
    environ = os.environ | {"PYTHONPATH": paths, "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")}
    environ.setdefault("LIBERO_CONFIG_PATH", str(Path(sys.prefix) / "etc" / "libero"))
    command = [sys.executable, "-P", __file__, "--measure", *sys.argv[1:]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=tree, env=environ)
    if done.returncode:
        sys.exit(f"error: measuring {tree} ended with exit code {done.returncode}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(args: argparse.Namespace) -> Result:
    """Measures the project that this process imports."""
    from lerobot.envs.configs import LiberoEnv

    from tracka.engines.resident import episode
    from tracka.engines.resident.settings import ResidentSettings
    from tracka.engines.resident.simulation import Simulation
    from tracka.engines.resident.slot import BeginEpisode, PlayActions
    from tracka.engines.resident.worker_pool import WorkerPool

    size = {"observation_height": args.pixels, "observation_width": args.pixels, "episode_length": args.steps}
    cfg: Any = SimpleNamespace(env=LiberoEnv(task=args.suite, **size), resident=ResidentSettings())
    simulation = Simulation(cfg)
    environments = simulation.cameras, simulation.make, simulation.video_config
    pool = WorkerPool(args.workers, args.slots, *environments, n_renderers=args.renderers)
    first = [episode.Episode(args.suite, slot % args.tasks, slot, 7 + slot, args.batch) for slot in range(args.slots)]
    pool.build(first)
    shown = hashlib.sha256()
    result = {}
    for name, make, each in (
        ("build and first reset", lambda slot: BeginEpisode(slot, first[slot]), 1),
        ("one more reset", lambda slot: BeginEpisode(slot, first[slot]), 1),
        (f"{CHUNK} steps", lambda slot: PlayActions(slot, actions(first[slot], 0)), CHUNK),
    ):
        result[name] = play_all(pool, make, each)
        for slot in range(args.slots):
            for picture in pool.pictures[slot].values():
                shown.update(picture)
        result[f"the slots count in {name}"] = counted(pool)
    result["rollout"], final_states = roll_out(pool, args)
    result["the slots count in the rollout"] = counted(pool)
    pool.stop()
    return result | {"hashes": shown.hexdigest()[:12] + hashlib.sha256(final_states.encode()).hexdigest()[:12]}


def actions(each: Any, chunk: int) -> Any:
    """Returns the actions that the pretended policy gives an episode, of shape (CHUNK, 7)."""
    generator = np.random.RandomState(1000 * each.number + 50 * each.task_id + chunk)
    return generator.uniform(-1, 1, (CHUNK, 7)).astype(np.float32)


def play_all(pool: Any, command: Callable[[int], Any], count: int) -> str:
    """Sends each slot a command and returns what that took; `count` is the number of resets or steps of a command."""
    before, start = usage(pool), time.perf_counter()
    for slot in range(len(pool)):
        pool.send(slot, command(slot))
    replies = 0
    while replies < len(pool):
        replies += len(pool.replies())
    seconds = time.perf_counter() - start
    used, total = usage(pool) - before, count * len(pool)
    each = ", ".join(
        f"{kind} {1000 * used[f'{kind}_cpu'] / total:.2f} ms CPU and {used[f'{kind}_faults'] / total:.1f} page faults"
        for kind in ("worker", "renderer")
    )
    return f"{seconds:.2f} s for {total}; each: {each}"


class PretendedPolicy:
    """Stands for a PolicyRunner that mixes episodes: its call takes a given time and returns random actions."""

    mode = SimpleNamespace(mixing=True, concurrent=True, lazy=True)
    answered = "exact"  # the mode of its last call
    chunk = CHUNK

    def __init__(self, batch_size: int, seconds: float, on_gpu: bool) -> None:
        self.batch_size, self._seconds, self._matrix = batch_size, seconds, None
        self.asked = 0
        if on_gpu:
            import torch

            self._matrix = torch.randn(4096, 4096, dtype=torch.bfloat16, device="cuda")

    def call_shapes(self, _: Any) -> tuple[()]:
        """Returns nothing: all requests may share a call."""
        return ()

    def has_free_places(self, _: Any) -> bool:
        """Returns that each episode has its own place in a call."""
        return False

    def mixed_actions(self, requests: Sequence[Any], _: Any = None) -> list[Any]:
        """Returns random actions for each request, after the time of a call."""
        self.asked += len(requests)
        end = time.perf_counter() + self._seconds
        if self._matrix is None:
            time.sleep(self._seconds)
        else:
            self._compute_until(end)
        return [actions(request.episode, request.chunk) for request in requests]

    def _compute_until(self, end: float) -> None:
        import torch

        while time.perf_counter() < end:
            for _ in range(20):
                self._matrix @ self._matrix
            torch.cuda.synchronize()


def roll_out(pool: Any, args: argparse.Namespace) -> tuple[str, str]:
    """Plays the episodes with a pretended policy; returns what that took, and all final states."""
    from tracka.engines.resident import episode
    from tracka.engines.resident.rollout import Rollout

    runner: Any = PretendedPolicy(args.batch, args.call, args.gpu)
    count = max(1, args.episodes // args.tasks)
    rows = episode.episodes(args.suite, range(args.tasks), count, args.batch, 7)
    states: dict[str, str] = {}
    rollout = Rollout(pool, runner, rows, lambda each, outcome, *_: states.update({str(each): outcome.final_state}))
    before, start = usage(pool), time.perf_counter()
    rollout.run()
    seconds = time.perf_counter() - start
    used = usage(pool) - before
    steps = len(rows) * args.steps
    cores = ", ".join(f"{kind} {used[f'{kind}_cpu'] / seconds:.2f}" for kind in ("worker", "renderer", "main"))
    return (
        f"{seconds:.1f} s for {len(rows)} episodes, {steps / seconds:.0f} steps/s; {rollout.calls} calls of "
        f"{runner.asked / rollout.calls:.1f} on average, {rollout.seconds['policy'] / seconds:.0%} of the time; cores "
        f"used: {cores}"
    ), json.dumps(states, sort_keys=True)


def counted(pool: Any) -> str:
    """Returns the seconds that the slots' processes have counted since the last call, summed by kind of work."""
    seconds: Counter[str] = Counter()
    for each in pool.collect_timings():
        seconds.update(each.seconds)
    return ", ".join(f"{kind} {value:.2f}" for kind, value in seconds.items()) + " s"


def usage(pool: Any) -> Usage:
    """Returns what this process and those below it have used, as far as they live."""
    kinds = {each.process.pid: "builder" for each in pool.builders}
    kinds |= {each.process.pid: "renderer" for each in pool.renderers} | {os.getpid(): "main"}
    used: Usage = Counter()
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        kind = kinds.get(process.pid, "worker")
        values = Path("/proc", str(process.pid), "stat").read_text().rsplit(")", 1)[1].split()
        used[f"{kind}_faults"] += int(values[7])
        used[f"{kind}_cpu"] += (int(values[11]) + int(values[12])) / TICKS
    return used


if __name__ == "__main__":
    sys.exit(main())
