"""Times calls of the resident engine's policy on a GPU: its own ones beside those that CUDA graphs answer.

Usage: python -m benchmarks.policy_calls CHECKPOINT [--batches 1 10 20] [--calls 100] [--pixels 256]

Each call is asked for with other random pictures. The whole call goes from pictures on the CPU to actions on the CPU.
The exit code is 1 where a graph's actions differ from the policy's own in any bit, or where no graph answered.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.envs.configs import LiberoEnv

from tracka.engines.resident.episode import Episode, ObservationRequest
from tracka.engines.resident.player import PolicyRunner
from tracka.engines.resident.settings import ResidentConfig, ResidentSettings

TIMED = 10  # calls of each kind


@dataclass(frozen=True)
class Times:
    """Milliseconds of one call: the median of TIMED ones."""

    actions: float  # from the policy's inputs to its actions, on the GPU
    whole: float  # from pictures to actions on the CPU


def requests(batch_size: int, number: int, pixels: int) -> list[ObservationRequest]:
    """Returns the observation requests of call `number`, with random pictures and states."""
    random = np.random.RandomState(number)
    return [_request(random, batch_size, number, position, pixels) for position in range(batch_size)]


def _request(
    random: np.random.RandomState, batch_size: int, number: int, position: int, pixels: int
) -> ObservationRequest:
    pictures = {name: random.randint(0, 256, (pixels, pixels, 3)).astype(np.uint8) for name in ("image", "image2")}
    sizes = {"eef": {"pos": 3, "quat": 4, "mat": (3, 3)}, "gripper": {"qpos": 2, "qvel": 2}}
    state: dict[str, Any] = {
        part: {key: random.rand(*np.atleast_1d(size)) for key, size in values.items()} for part, values in sizes.items()
    }
    state["joints"] = {"pos": random.rand(7), "vel": random.rand(7)}
    episode = Episode("libero_object", 0, batch_size * number + position, number, batch_size)
    words = "pick up the milk and place it in the basket"
    return ObservationRequest(episode, 0, words, {"pixels": pictures, "robot_state": state})


def runner(checkpoint: Path, batch_size: int, pixels: int, device: str, cuda_graphs: bool) -> PolicyRunner:
    """Returns the policy as an evaluation of this batch size holds it."""
    policy = PreTrainedConfig.from_pretrained(checkpoint)
    policy.pretrained_path, policy.device = checkpoint, device
    cfg = SimpleNamespace(
        policy=policy,
        env=LiberoEnv(observation_height=pixels, observation_width=pixels),
        eval=SimpleNamespace(batch_size=batch_size),
        rename_map={},
        resident=ResidentSettings(cuda_graphs=cuda_graphs),
    )
    return PolicyRunner(cast(ResidentConfig, cfg), 1)


def own_and_graphed(player: PolicyRunner, batch_size: int, args: argparse.Namespace) -> tuple[int, Times, Times]:
    """Returns how many of the calls differ, and the times of the policy's own calls and of the graph's."""
    graphs, differing = player.graphs, 0
    for number in range(args.calls):
        asked = requests(batch_size, number, args.pixels)
        answers = np.stack(player.mixed_actions(asked))
        player.graphs = None
        differing += not np.array_equal(answers, np.stack(player.mixed_actions(asked)))
        player.graphs = graphs
    graphed = times(player, batch_size, args.pixels)
    player.graphs = None
    own = times(player, batch_size, args.pixels)
    player.graphs = graphs
    return differing, own, graphed


def times(player: PolicyRunner, batch_size: int, pixels: int) -> Times:
    """Returns the times of the runner's calls as they are made now."""
    asked = [requests(batch_size, number, pixels) for number in range(TIMED)]
    with torch.inference_mode():
        inputs = [(player.batches(each), player.given_noise(each)) for each in asked]
    return Times(
        _median([lambda each=each: _actions(player, *each) for each in inputs]),  # type: ignore[misc]
        _median([lambda each=each: player.mixed_actions(each) for each in asked]),  # type: ignore[misc]
    )


def _actions(player: PolicyRunner, batch: dict[str, Any], noise: dict[str, Any]) -> None:
    with torch.inference_mode():
        player.policy_actions(batch, noise)


def _median(calls: Sequence[Callable[[], object]]) -> float:
    seconds = []
    for call in calls:
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def main() -> int:
    """Prints a line for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 10, 20])
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--pixels", type=int, default=256)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("error: this benchmark needs a GPU", file=sys.stderr)
        return 2
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    player = runner(args.checkpoint, 1, args.pixels, "cuda", cuda_graphs=True)
    is_right = True
    print("batch  differing  own ms  graph ms  whole own ms  whole graph ms  GPU GiB")
    for batch_size in args.batches:
        player.batch_size = batch_size
        proven = player.graphs.proven if player.graphs else 0
        differing, own, graphed = own_and_graphed(player, batch_size, args)
        is_right &= differing == 0 and player.graphs is not None and player.graphs.proven == proven + 1
        memory = torch.cuda.max_memory_allocated() / 2**30
        counts = f"{batch_size:5}  {differing:4} of {args.calls}"
        print(
            f"{counts}  {own.actions:7.1f} {graphed.actions:7.1f} {own.whole:7.1f} {graphed.whole:7.1f} {memory:7.1f}"
        )
    print("\n".join(player.fallbacks) or "no fallback")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
