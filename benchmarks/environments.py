"""Times the building of environment slots, to the first picture of each: python -m benchmarks.environments.

Builds `--slots` slots over `--tasks` tasks of a suite with `--workers` worker processes at a time and `--renderers`
renderers, without a policy, and prints the seconds until the first and until the last slot has its first picture. Then
every slot gets another task, as in the next row of a warm process. Last come the processes that have a GL context,
the memory of the processes by kind, and a hash of all pictures. `--ahead 20` lets 20 s pass before the next
row, in which its tasks are built ahead, as while a row is played.

`--pools N` measures N such pools at once, as N GPUs of a host would have them. `--tree` names another clone of the
project, of any version, which is measured before this one; the exit status is 1 if its pictures differ.
"""

import argparse
import hashlib
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

OWN_TREE = Path(__file__).resolve().parents[1]
# Parts of the names of the libraries that Mesa loads when a process makes its first GL context.
MESA = ("libgallium", "swrast_dri", "libOSMesa")
Result = dict[str, Any]


def main() -> int:
    """Measures each tree and prints its figures; returns 1 where their pictures differ."""
    args = arguments()
    if args.measure:
        print(json.dumps(measure(args)))
        return 0
    trees = [*(Path(tree).resolve() for tree in args.tree), OWN_TREE]
    results = {tree: measure_tree(tree, args) for tree in trees}
    for tree, pools in results.items():
        print_tree(tree, pools)
    own = results[OWN_TREE]
    for tree in trees[:-1]:
        print(f"{tree}: {slowest(results[tree], 'last') / slowest(own, 'last'):.2f} times as long for the first row")
        print(f"{tree}: {slowest(results[tree], 'next_last') / slowest(own, 'next_last'):.2f} times for the next row")
    hashes = {pool["pictures"] for pools in results.values() for pool in pools}
    print(f"pictures: {'all the same' if len(hashes) == 1 else 'THEY DIFFER'} ({', '.join(sorted(hashes))})")
    return 0 if len(hashes) == 1 else 1


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.environments", description=__doc__)
    parser.add_argument("--suite", default="libero_object")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=2, help="of ten: the next row has the tasks that follow")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="of each pool")
    parser.add_argument("--renderers", type=int, default=0, help="of each pool; 0: the worker processes draw")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--pools", type=int, default=1, help="so many at once, pool k on the EGL device k")
    parser.add_argument("--ahead", type=float, default=0, help="seconds for which the next row's tasks are built ahead")
    parser.add_argument("--tree", action="append", default=[], help="a clone of another version")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure_tree(tree: Path, args: argparse.Namespace) -> list[Result]:
    """Measures pools of the project in the folder `tree`, all at once, and returns what each has measured."""
    numbers = ("slots", "tasks", "workers", "renderers", "pixels", "ahead")
    words = [f"--{name}={getattr(args, name)}" for name in (*numbers, "suite")]
    paths = os.pathsep.join(filter(None, (str(tree), os.environ.get("PYTHONPATH"))))
    environ = os.environ | {"PYTHONPATH": paths, "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")}
    environ.setdefault("LIBERO_CONFIG_PATH", str(Path(sys.prefix) / "etc" / "libero"))
    command = [sys.executable, "-P", __file__, "--measure", *words]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tree, env=environ | device(pool, args.pools))
        for pool in range(args.pools)
    ]
    outputs = [process.communicate()[0] for process in started]
    if failed := [process.returncode for process in started if process.returncode]:
        sys.exit(f"error: measuring {tree} ended with exit code {failed[0]}")
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def device(pool: int, pools: int) -> dict[str, str]:
    """Returns the variables that give each of several pools an EGL device of its own."""
    return {"MUJOCO_EGL_DEVICE_ID": str(pool), "CUDA_VISIBLE_DEVICES": str(pool)} if pools > 1 else {}


def measure(args: argparse.Namespace) -> Result:
    """Measures one pool of the project that this process imports."""
    from lerobot.envs.configs import LiberoEnv

    from tracka.engines.resident import episode
    from tracka.engines.resident.settings import ResidentSettings
    from tracka.engines.resident.simulation import Simulation
    from tracka.engines.resident.worker_pool import WorkerPool

    size = {"observation_height": args.pixels, "observation_width": args.pixels}
    cfg: Any = SimpleNamespace(env=LiberoEnv(task=args.suite, **size), resident=ResidentSettings())
    simulation = Simulation(cfg)
    rows = [
        [episode.Episode(args.suite, (first + slot) % 10, slot, 7 + slot, args.slots) for slot in range(args.slots)]
        for first in (0, args.tasks)
    ]
    rows = [[_of_task(each, row[0].task_id, args.tasks) for each in row] for row in rows]
    has_renderers = "n_renderers" in inspect.signature(WorkerPool).parameters  # older versions have none
    own = {"n_renderers": args.renderers} if has_renderers else {}
    start = time.perf_counter()
    pool = WorkerPool(args.workers, args.slots, simulation.cameras, simulation.make, simulation.video_config, **own)
    pool.build(rows[0])
    result = begin(pool, rows[0], start)
    if args.ahead and hasattr(pool, "build_ahead"):
        pool.build_ahead(rows[1])
        time.sleep(args.ahead)
    result |= {f"next_{name}": value for name, value in begin(pool, rows[1], time.perf_counter()).items()}
    result["pictures"] += result.pop("next_pictures")
    result |= processes(pool)
    timings = pool.collect_timings()
    result["seconds"] = {
        name: round(sum(each.seconds.get(name, 0) for each in timings), 2) for name in ("build", "reset")
    }
    pool.stop()
    return result


def _of_task(each: Any, first: int, tasks: int) -> Any:
    """Returns the episode with one of `tasks` tasks from `first` on."""
    task_id = (first + (each.task_id - first) % 10 % tasks) % 10
    return type(each)(each.suite, task_id, each.number, each.seed, each.batch_size)


def begin(pool: Any, row: Sequence[Any], start: float) -> Result:
    """Begins an episode in each slot, and returns the seconds from `start` to the first and the last picture."""
    from tracka.engines.resident.slot import BeginEpisode

    for slot, each in enumerate(row):
        pool.send(slot, BeginEpisode(slot, each))
    times: dict[int, float] = {}
    while len(times) < len(row):
        times |= {reply.slot: time.perf_counter() - start for reply in pool.replies()}
    shown = hashlib.sha256()
    for slot in range(len(row)):
        for picture in pool.pictures[slot].values():
            shown.update(picture)
    return {"first": min(times.values()), "last": max(times.values()), "pictures": shown.hexdigest()[:12]}


def processes(pool: Any) -> Result:
    """Returns, of the processes below this one, how many have a GL context, and by kind their number and memory."""
    kinds = {each.process.pid: "builder" for each in getattr(pool, "builders", ())}
    kinds |= {each.process.pid: "renderer" for each in getattr(pool, "renderers", ())}
    below = psutil.Process().children(recursive=True)
    memory: dict[str, list[Any]] = {}
    for each in below:
        memory.setdefault(kinds.get(each.pid, "worker"), []).append(each.memory_full_info())
    return {
        "contexts": sum(map(has_context, below)),
        "kinds": {
            kind: f"{len(each)} of {sum(one.uss for one in each) / len(each) / 1e6:.0f} MB"
            for kind, each in sorted(memory.items())
        },
        "pss_mb": round(sum(one.pss for each in memory.values() for one in each) / 1e6),
    }


def has_context(process: psutil.Process) -> bool:
    """Returns whether a process has a GL context: on NVIDIA's driver, an open GPU; on Mesa, the driver loaded."""
    folder = Path("/proc", str(process.pid))
    if Path("/dev/nvidiactl").exists():
        return any(str(link.readlink()).startswith("/dev/nvidia") for link in (folder / "fd").iterdir())
    return any(part in (folder / "maps").read_text() for part in MESA)


def slowest(pools: Sequence[Result], name: str) -> float:
    """Returns the largest value among the pools."""
    return max(float(pool[name]) for pool in pools)


def print_tree(tree: Path, pools: Sequence[Result]) -> None:
    """Prints the figures of one tree."""
    print(f"{tree}{'' if len(pools) == 1 else f', {len(pools)} pools at once'}")
    for kind, names in (("first row", ("first", "last")), ("next row", ("next_first", "next_last"))):
        first, last = (slowest(pools, name) for name in names)
        print(f"  {kind}: the first picture after {first:.2f} s, the last slot's after {last:.2f} s")
    for pool in pools:
        seconds = ", ".join(f"{name} {value}" for name, value in pool["seconds"].items())
        kinds = ", ".join(f"{kind} {text}" for kind, text in pool["kinds"].items())
        print(f"  processes of so much memory of their own: {kinds}; {pool['pss_mb']} MB in all")
        print(f"  {pool['contexts']} processes with a GL context; worker seconds: {seconds}")


if __name__ == "__main__":
    sys.exit(main())
