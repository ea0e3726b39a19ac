"""Times calls of the resident engine's policy on a GPU: exact, fast, and its own ones without CUDA graphs.

Usage: python -m benchmarks.policy_calls CHECKPOINT [--precision exact fast] [--batches 1 10 20] [--calls 1000]

Each call is asked for with other random pictures, states and noise. The whole call goes from pictures on the CPU to
actions on the CPU. Exact actions are held against the policy's own to the bit, fast ones against exact ones within the
tolerance of fast mode. The exit code is 1 where they differ by more, where no graph answered, or where the memory of
host and GPU grows while calls are compared. `--empty-cameras 1` adds a camera that is not there, as pi0 has it.
`--only` and `--without` choose the steps of fast mode. `--profile` names a folder for the kernels that take longest.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import psutil
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.envs.configs import LiberoEnv

from tracka.engines import tolerance
from tracka.engines.resident.episode import Array, Episode, ObservationRequest
from tracka.engines.resident.fast_calls import MAKERS
from tracka.engines.resident.player import PolicyRunner
from tracka.engines.resident.settings import PRECISIONS, ResidentConfig, ResidentSettings

from .policy_stages import kernels, milliseconds, stages

TIMED = 10  # calls of each kind
GROWN_MIB = 64  # the most that memory may grow by over the last three quarters of the compared calls
OWN, EXACT, FAST = "own", *PRECISIONS


@dataclass
class Figures:
    """The figures of one way to answer calls of one size; times are medians in milliseconds."""

    batch: int
    way: str  # own: exact and without graphs
    actions: float = 0.0  # from the policy's inputs to its actions, on the GPU
    whole: float = 0.0  # from pictures to actions on the CPU
    stages: dict[str, float] = field(default_factory=dict)
    differing: int = 0  # calls that differ in a bit, or by more than the tolerance
    mean: float = 0.0  # mean difference from exact actions, in units of their mean size
    largest: float = 0.0
    first_seconds: float = 0.0  # of the first two calls: recording, comparing, compiling
    gpu_gib: float = 0.0  # allocated by torch after these calls
    gpu_reserved_gib: float = 0.0
    host_gib: float = 0.0  # most that the process has held
    grown_mib: float = 0.0  # by how much the memory of host and GPU grew over the last three quarters of these calls


def held_mib() -> float:
    """Returns how much memory the process holds now, of the host and of the GPU together."""
    return float(psutil.Process().memory_info().rss + torch.cuda.memory_allocated()) / 2**20


def requests(batch_size: int, number: int, pixels: int) -> list[ObservationRequest]:
    """Returns the observation requests of call `number`, with random pictures and states."""
    random = np.random.RandomState(number)
    return [_request(random, batch_size, number, position, pixels) for position in range(batch_size)]


def _request(
    random: np.random.RandomState, batch_size: int, number: int, position: int, pixels: int
) -> ObservationRequest:
    pictures = {
        name: np.frombuffer(random.bytes(pixels * pixels * 3), np.uint8).reshape(pixels, pixels, 3)
        for name in ("image", "image2")
    }
    sizes = {"eef": {"pos": 3, "quat": 4, "mat": (3, 3)}, "gripper": {"qpos": 2, "qvel": 2}}
    state: dict[str, Any] = {
        part: {key: random.rand(*np.atleast_1d(size)) for key, size in values.items()} for part, values in sizes.items()
    }
    state["joints"] = {"pos": random.rand(7), "vel": random.rand(7)}
    episode = Episode("libero_object", 0, batch_size * number + position, number, batch_size)
    words = "pick up the milk and place it in the basket"
    return ObservationRequest(episode, 0, words, {"pixels": pictures, "robot_state": state})


def runner(
    checkpoint: Path, batch_size: int, pixels: int, device: str, precision: str, empty_cameras: int = 0
) -> PolicyRunner:
    """Returns the policy as an evaluation of this batch size holds it."""
    policy = PreTrainedConfig.from_pretrained(checkpoint)
    policy.pretrained_path, policy.device = checkpoint, device
    if empty_cameras:
        policy.empty_cameras = empty_cameras
    cfg = SimpleNamespace(
        policy=policy,
        env=LiberoEnv(observation_height=pixels, observation_width=pixels),
        eval=SimpleNamespace(batch_size=batch_size),
        rename_map={},
        resident=ResidentSettings(precision=precision),
    )
    return PolicyRunner(cast(ResidentConfig, cfg), 1)


class Benchmark:
    """Times one loaded policy in several ways."""

    def __init__(self, player: PolicyRunner, options: argparse.Namespace) -> None:
        self.player, self.options = player, options
        self.graphs, self.fast = player.graphs, player.fast

    def figures(self, batch_size: int) -> list[Figures]:
        """Returns the figures of each way to answer calls of this size, the policy's own first."""
        self.player.batch_size = batch_size
        ways = [OWN, *self.options.precision]
        lines = []
        for way in ways:
            line = Figures(batch_size, way)
            start = time.perf_counter()
            for number in (0, 1):
                self._ask(way, requests(batch_size, number, self.options.pixels))
            line.first_seconds = time.perf_counter() - start
            self._time(line)
            line.gpu_gib, line.gpu_reserved_gib = (
                size / 2**30 for size in (torch.cuda.memory_allocated(), torch.cuda.memory_reserved())
            )
            line.host_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            lines.append(line)
        self._hold_against(lines[1:], batch_size)
        return lines

    def _ask(self, way: str, asked: Sequence[ObservationRequest]) -> Array:
        with self._set(way):
            return np.stack(self.player.mixed_actions(asked))

    def _set(self, way: str) -> Any:
        self.player.graphs = None if way == OWN else self.graphs
        self.player.fast = self.fast if way == FAST else None
        return torch.inference_mode()

    def _time(self, line: Figures) -> None:
        asked = [requests(line.batch, number, self.options.pixels) for number in range(TIMED)]
        with self._set(line.way):
            inputs = [(self.player.batches(each), self.player.given_noise(each)) for each in asked]
            line.actions = milliseconds([lambda each=each: self.player.policy_actions(*each) for each in inputs])  # type: ignore[misc]
            line.whole = milliseconds([lambda each=each: self.player.mixed_actions(each) for each in asked])  # type: ignore[misc]
            line.stages["processors"] = milliseconds([lambda each=each: self.player.batches(each) for each in asked])  # type: ignore[misc]
            if line.way != OWN and self.options.stages:
                line.stages |= stages(self.player, *inputs[0], is_fast=line.way == FAST)
            if self.options.profile:
                path = self.options.profile / f"{line.way}-{line.batch}.txt"
                path.write_text(kernels(lambda: self.player.policy_actions(*inputs[0])))

    def _hold_against(self, lines: Sequence[Figures], batch_size: int) -> None:
        """Counts in how many calls exact actions differ from the policy's own, and fast ones from exact ones."""
        held = 0.0
        for number in range(self.options.calls):
            held = held_mib() if number == self.options.calls // 4 else held
            asked = requests(batch_size, number, self.options.pixels)
            earlier = None
            for line in lines:
                if earlier is None:
                    is_checked_by_own = line.way == EXACT or EXACT not in self.options.precision
                    earlier = self._ask(OWN if is_checked_by_own else EXACT, asked)
                answers = self._ask(line.way, asked)
                found = tolerance.difference(earlier, answers)
                line.mean = max(line.mean, found.mean / found.size)
                line.largest = max(line.largest, found.largest / found.size)
                line.differing += bool(found.excess(self.kind) if line.way == FAST else found.largest)
                earlier = answers
        for line in lines:
            line.grown_mib = max(0.0, held_mib() - held)

    @property
    def kind(self) -> str:
        """Returns the type that the policy computes in, by its name in the tolerance."""
        return "bfloat16" if torch.bfloat16 in {each.dtype for each in self.player.policy.parameters()} else "float32"


def main() -> int:
    """Prints a line for each batch size and way."""
    options = arguments()
    if not torch.cuda.is_available() and options.device != "cpu":
        print("error: this benchmark needs a GPU", file=sys.stderr)
        return 2
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    precision = FAST if FAST in options.precision else EXACT
    player = runner(options.checkpoint, 1, options.pixels, options.device, precision, options.empty_cameras)
    if player.fast is not None:
        player.fast.steps = chosen_steps(player.fast.steps, options)
    if options.profile:
        options.profile.mkdir(parents=True, exist_ok=True)
    benchmark = Benchmark(player, options)
    print(heading(options), flush=True)
    lines: list[Figures] = []
    for batch_size in options.batches:
        lines += benchmark.figures(batch_size)
        for line in lines[-1 - len(options.precision) :]:
            print(text(line, lines, options.calls), flush=True)
    player.graphs, player.fast = benchmark.graphs, benchmark.fast
    if benchmark.fast:
        print(f"steps of fast mode: {', '.join(benchmark.fast.steps)}; comparing took {benchmark.fast.seconds:.1f} s")
    print("\n".join(player.fallbacks) or "no fallback")
    if options.output:
        options.output.write_text(json.dumps([asdict(line) for line in lines], indent=1))
    return 0 if is_right(lines, player, options) else 1


def is_right(lines: Sequence[Figures], player: PolicyRunner, options: argparse.Namespace) -> bool:
    """Returns whether no call differs, and each size has a graph in each mode that was asked for."""
    graphs = {EXACT: player.graphs, FAST: player.fast.graphs if player.fast else None}
    sizes = len(set(options.batches))
    proven = [(calls.proven if (calls := graphs[way]) else 0) >= sizes for way in options.precision]
    has_grown = any(line.grown_mib > GROWN_MIB for line in lines)
    return not any(line.differing for line in lines) and not has_grown and (options.device == "cpu" or all(proven))


def every_step() -> list[str]:
    """Returns the names of the steps of fast mode, of all policies."""
    return sorted({step for _, steps in MAKERS.values() for step in steps})


def chosen_steps(steps: Sequence[str], options: argparse.Namespace) -> tuple[str, ...]:
    """Returns the steps that the command line leaves."""
    wanted = steps if options.only is None else [step for step in steps if step in options.only]
    return tuple(step for step in wanted if step not in options.without)


def heading(options: argparse.Namespace) -> str:
    """Returns the names of the columns, after the versions that decide the times."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return (
        f"{device}, torch {torch.__version__}, {options.pixels} x {options.pixels} pixels, "
        f"{options.empty_cameras} empty cameras, medians of {TIMED} calls in ms\n"
        "batch  way    actions  ratio    whole   differing   mean   largest  first s  GPU GiB (reserved)  host GiB  "
        "grown MiB  stages"
    )


def text(line: Figures, lines: Sequence[Figures], calls: int) -> str:
    """Returns a line of the table."""
    own = next(each for each in lines if each.batch == line.batch and each.way == OWN)
    parts = ", ".join(f"{name} {value:.1f}" for name, value in line.stages.items())
    differing = "" if line.way == OWN else f"{line.differing} of {calls}"
    return (
        f"{line.batch:5}  {line.way:5} {line.actions:8.1f} {own.actions / line.actions:6.2f} {line.whole:8.1f} "
        f"{differing:>11} {line.mean:7.3%} {line.largest:8.3%} {line.first_seconds:8.1f} {line.gpu_gib:8.1f} "
        f"({line.gpu_reserved_gib:8.1f}) {line.host_gib:9.1f} "
        f"{line.grown_mib:10.1f}  {parts}"
    )


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policy_calls", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 10, 20])
    parser.add_argument("--calls", type=int, default=100, help="how many calls, each with other inputs, are compared")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--empty-cameras", type=int, default=0, help="cameras that the policy has and LIBERO has not")
    parser.add_argument("--only", nargs="*", choices=every_step(), help="take these steps of fast mode alone")
    parser.add_argument("--without", nargs="*", choices=every_step(), default=(), help="leave these steps out")
    parser.add_argument("--no-stages", dest="stages", action="store_false", help="time no stages")
    parser.add_argument("--profile", type=Path, help="a folder for the kernels that take longest, a file each")
    parser.add_argument("--output", type=Path, help="a file for all figures, in JSON")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
