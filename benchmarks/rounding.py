"""Measures how far exact and fast mode are from the same policy in float32: python -m benchmarks.rounding.

Usage: python -m benchmarks.rounding [CHECKPOINT] [--batches 1 10] [--calls 5] [--without compile]

Each call is asked for with other random pictures, states and noise. The policy is loaded twice, one after the other:
once with all its numbers as float32, without TF32, and once as rows have it. The program prints, in units of the mean
size of the float32 actions, how far exact mode is from float32, fast mode from float32, fast mode from exact mode, and
exact mode from itself where each number of the noise is moved by one step of bfloat16. The last column is how many
times farther from float32 fast mode is than exact mode. The exit status is 1 if fast mode did not answer, is beyond its
tolerance, or is more than FARTHER times as far from float32 as exact mode (docs/fast-mode.md). Without CHECKPOINT, a
reduced random pi0 in bfloat16 is made and measured.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fixtures import small_pi0
from tracka.engines import tolerance
from tracka.engines.resident import fast_calls
from tracka.engines.resident.episode import Array, ObservationRequest
from tracka.engines.resident.player import PolicyRunner
from tracka.engines.resident.settings import EXACT, FAST
from tracka.engines.tolerance import ActionDifference

from .policy_calls import chosen_steps, every_step, requests, runner

FLOAT32, MOVED = "float32", "moved"
FARTHER = 2.0  # one bit less of bfloat16's eight
STEP = 2**-8  # half of the distance of two numbers in bfloat16, in units of the lower one
Answers = Mapping[str, Array]  # way of answering -> actions of all calls, of shape (calls, observations, chunk, 7)


@dataclass(frozen=True)
class Errors:
    """The differences of one batch size, in units of the mean size of the float32 actions."""

    batch: int
    exact: ActionDifference  # of exact mode from float32
    fast: ActionDifference  # of fast mode from float32
    between: ActionDifference  # of fast mode from exact mode
    moved: ActionDifference  # of exact mode from itself, with noise moved by one step of bfloat16

    @property
    def ratio(self) -> float:
        """Returns how many times farther from float32 fast mode is than exact mode, in the mean."""
        return self.fast.mean / self.exact.mean if self.exact.mean else float("inf")


def main() -> int:
    """Prints the errors of each batch size, and returns the exit status."""
    options, start = arguments(), time.perf_counter()
    torch.backends.cudnn.benchmark = True
    _tf32(True)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="tracka-rounding-") as folder:
        if options.checkpoint is None:
            small_pi0.put(patch, sizes=small_pi0.REDUCED)
            small_pi0.build(Path(folder) / "pi0", "pi0", options.pixels, dtype="bfloat16")
        lines, player = measured(maker(options, options.checkpoint or Path(folder) / "pi0"), options)
    print(heading(options))
    print("\n".join(text(line) for line in lines))
    fast = player.fast
    print(f"steps of fast mode: {', '.join(fast.steps) if fast else 'none'}; {time.perf_counter() - start:.0f} s")
    print("\n".join(player.fallbacks) or "no fallback")
    if options.output:
        figures = [asdict(line) | {"ratio": line.ratio} for line in lines]
        options.output.write_text(json.dumps({"lines": figures}, indent=1))
    if not fast or player.precision != FAST:
        return 1
    findings = [finding for line in lines for finding in excesses(line, kind(player))]
    print("\n".join(findings) or "within the tolerance of fast mode")
    return 1 if findings else 0


def excesses(line: Errors, kind: str) -> Iterator[str]:
    """Yields in what fast mode is beyond the tolerance, or too far from float32."""
    if excess := line.between.excess(kind):
        yield f"batch {line.batch}: {excess}"
    if line.exact.mean and line.ratio > FARTHER:
        yield f"batch {line.batch}: fast mode is {line.ratio:.2f} times as far from float32 as exact mode"


def maker(options: argparse.Namespace, checkpoint: Path) -> Callable[[], PolicyRunner]:
    """Returns a function that loads the policy anew."""

    def make() -> PolicyRunner:
        player = runner(checkpoint, 1, options.pixels, options.device, FAST, options.empty_cameras)
        if player.fast is not None:
            player.fast.steps = chosen_steps(player.fast.steps, options)
        if options.checkpoint is None:
            small_pi0.sharpen(player.policy, 1.0)
        return player

    return make


def measured(make: Callable[[], PolicyRunner], options: argparse.Namespace) -> tuple[list[Errors], PolicyRunner]:
    """Returns the errors of each batch size, and the policy that answered in exact and in fast mode."""
    references = dict(_float32(make(), options))
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    player = make()
    lines = []
    for size in options.batches:
        answers = {way: _asked(player, way, size, options) for way in (EXACT, FAST, MOVED)}
        lines.append(errors(size, answers | {FLOAT32: references[size]}))
    return lines, player


def _float32(player: PolicyRunner, options: argparse.Namespace) -> Iterator[tuple[int, Array]]:
    """Yields each batch size and its actions by the policy with all numbers as float32."""
    player.policy.float()
    with without_tf32():
        yield from ((size, _asked(player, EXACT, size, options)) for size in options.batches)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Makes products of float32 keep all bits within the block; outside of it they are rounded as in rows."""
    _tf32(False)
    try:
        yield
    finally:
        _tf32(True)


def _tf32(is_allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_allowed


def _asked(player: PolicyRunner, way: str, size: int, options: argparse.Namespace) -> Array:
    """Returns the actions of all calls of `size` observations, as the policy makes them: no processor has been there.

    Shape (calls, observations, chunk, numbers of an action).
    """
    player.batch_size = size
    calls = [requests(size, number, options.pixels) for number in range(options.calls)]
    with torch.inference_mode():
        return np.stack([_answer(player, way, each) for each in calls])


def _answer(player: PolicyRunner, way: str, asked: Sequence[ObservationRequest]) -> Array:
    noise = player.given_noise(asked)
    if way == MOVED:
        noise = {name: moved(value) for name, value in noise.items()}
    fast, graphs = player.fast, player.graphs
    player.fast, player.graphs = fast if way == FAST else None, None  # a graph repeats the policy's own bits
    try:
        return player.policy_actions(player.batches(asked), noise).float().cpu().numpy()
    finally:
        player.fast, player.graphs = fast, graphs


def moved(noise: Tensor) -> Tensor:
    """Returns the noise with each number moved up or down, in turn, by one rounding of bfloat16."""
    signs = torch.arange(noise.numel(), device=noise.device).remainder(2).mul(2).sub(1).view(noise.shape)
    return noise * (1 + STEP * signs)


def errors(size: int, answers: Answers) -> Errors:
    """Returns the differences between the answers to the same calls."""
    scale = float(np.abs(answers[FLOAT32]).mean())

    def between(one: str, other: str) -> ActionDifference:
        found = tolerance.difference(answers[one], answers[other])
        return ActionDifference(found.mean / scale, found.largest / scale, 1.0)

    return Errors(size, between(FLOAT32, EXACT), between(FLOAT32, FAST), between(EXACT, FAST), between(EXACT, MOVED))


def kind(player: PolicyRunner) -> str:
    """Returns the type that the policy computes in, by its name in the tolerance."""
    forward = player.fast._forward if player.fast else None
    return fast_calls.kind_of(forward) if forward else FLOAT32


def heading(options: argparse.Namespace) -> str:
    """Returns the names of the columns, after what decides the figures."""
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    return (
        f"{device}, torch {torch.__version__}, {options.calls} calls of each size, mean (largest) difference in units "
        "of the actions' mean size\n"
        "batch     exact - float32      fast - float32        fast - exact       exact - moved  fast / exact"
    )


def text(line: Errors) -> str:
    """Returns a line of the table."""
    columns = (line.exact, line.fast, line.between, line.moved)
    figures = "  ".join(f"{each.mean:8.4%} ({each.largest:7.3%})" for each in columns)
    return f"{line.batch:5}  {figures}  {line.ratio:12.2f}"


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rounding", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, nargs="?", help="the reduced pi0 by default")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--empty-cameras", type=int, default=0, help="cameras that the policy has and LIBERO has not")
    parser.add_argument("--only", nargs="*", choices=every_step(), help="take these steps of fast mode alone")
    parser.add_argument("--without", nargs="*", choices=every_step(), default=(), help="leave these steps out")
    parser.add_argument("--output", type=Path, help="a file for all figures, in JSON")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
