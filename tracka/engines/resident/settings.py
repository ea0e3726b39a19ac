"""The resident engine's command line: lerobot-eval's own flags, and the flags `--resident.NAME` beside them."""

import os
from dataclasses import dataclass, field
from typing import Any

from lerobot.configs.eval import EvalPipelineConfig

from ...campaign.campaign import SUPPORTED_VALUES, slots
from ...execution.environment import ROWS_AT_ONCE

NOISE = ("episode", "reference")
PRECISIONS = EXACT, FAST = ("exact", "fast")
MOST_RENDERERS = 4  # unless the flag says otherwise: more make contexts and load tasks no sooner


@dataclass
class ResidentSettings:
    """Holds the flags `--resident.NAME`. Raises ValueError for an unknown `noise` or a negative count.

    With `noise` set to `episode`, a policy's noise is drawn by (seed, init state, chunk) of each episode, so that no
    episode depends on its neighbours; `reference` plays lerobot-eval's batches one after the other and lets the policy
    draw as it does in lerobot-eval.
    """

    workers: int = 0  # worker processes that work at a time; 0 means one for each core of the row's share
    slots: int = 0  # environments alive at once; 0 means one for each worker, or two batches if that is more
    renderers: int | None = None  # processes that draw for all slots; None means some on a GPU, and none on the CPU
    noise: str = "episode"
    videos: int = 1  # how many of the first episodes of each task become videos
    video_stride: int = 4  # control steps for each frame; the video plays as fast as lerobot-eval's
    lazy_rendering: bool = True
    fast_step: bool = True
    fast_reset: bool = True
    fast_load: bool = True  # weights go straight to the device, without a random initialisation
    standby: bool = True  # read by the harness: whether a warm worker process may play this row
    precision: str = EXACT  # "fast" computes the policy by other kernels, whose actions differ by rounding
    fast_episodes: int = 0  # read by the harness: how many episodes the gate of fast mode plays, 0 for its default
    fast_margin: float = 0.05  # read by the harness: by how much the success rate of fast mode may be lower
    cuda_graphs: bool = True  # calls of a policy that mixes are answered by CUDA graphs, where these give the same bits
    compile: bool = False  # torch.compile, which may change outcomes
    hash_looks: bool = False  # episodes.jsonl gets a hash of each requested observation, for the parity gate
    share_calls: bool = False  # the first policy calls wait for looks of several tasks, in the parity gate
    resume: bool = False  # set by the harness: output_dir has episodes that are played already
    cudnn_benchmark: bool = True  # cuDNN takes the fastest convolutions, as in lerobot-eval; off in the parity gate

    def __post_init__(self) -> None:
        if self.noise not in NOISE:
            raise ValueError(f"resident.noise is {self.noise!r}: give one of {', '.join(NOISE)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"resident.precision is {self.precision!r}: give one of {', '.join(PRECISIONS)}")
        if min(self.workers, self.slots, self.videos, self.renderers or 0) < 0:
            raise ValueError("resident.workers, slots, renderers and videos must not be negative")


def _flag_value(cfg: Any, flag: str) -> object:
    """Returns the value of a flag like env.hard_reset, or the only value that the engine obeys where `cfg` lacks it.

    An environment of another type than LIBERO's may not have the flag.
    """
    group, name = flag.split(".")
    return getattr(getattr(cfg, group), name, SUPPORTED_VALUES[flag])


@dataclass
class ResidentConfig(EvalPipelineConfig):  # type: ignore[misc]
    """Holds the flags of one evaluation: lerobot-eval's with their defaults, and this engine's in `resident`."""

    resident: ResidentSettings = field(default_factory=ResidentSettings)

    def problems(self) -> list[str]:
        """Returns a sentence for each flag of lerobot-eval that this engine does not obey, with what to do about it."""
        env = self.env
        checks = {
            "env.type must be libero: this engine plays no other environment": env.type != "libero",
            "env.task must name one suite: give each suite its own row": "," in str(getattr(env, "task", "")),
            "eval.use_async_envs=false with a batch skips init states in lerobot-eval: leave the flag out": (
                self.eval.batch_size > 1 and not self.eval.use_async_envs
            ),
            "policy.path is missing": self.policy is None,
            "seed is missing: episodes without a seed cannot be repeated": self.seed is None,
        }
        checks |= {
            f"{flag} must be {only}: leave it out": _flag_value(self, flag) != only
            for flag, only in SUPPORTED_VALUES.items()
        }
        return [text for text, wrong in checks.items() if wrong]

    @property
    def n_workers(self) -> int:
        """Returns how many worker processes work at a time: the flag, or the row's share of the cores, at least one."""
        return self.resident.workers or max(1, len(os.sched_getaffinity(0)) // int(os.environ.get(ROWS_AT_ONCE, "1")))

    @property
    def n_slots(self) -> int:
        """Returns the number of environment slots, at least as many as one of lerobot-eval's batches has episodes."""
        batch_size = int(self.eval.batch_size)
        return max(self.resident.slots or slots(self.n_workers, batch_size), batch_size)

    @property
    def n_renderers(self) -> int:
        """Returns the number of renderers: the flag, or on a GPU one for every four cores, at least one, at most four.

        On the CPU drawing takes as much time as physics, so worker processes draw for themselves unless the flag is
        given. So they do with hard resets, each of which makes graphics anew.
        """
        if not self.resident.fast_reset:
            return 0
        on_gpu = str(self.policy.device).startswith("cuda")
        default = min(MOST_RENDERERS, max(1, self.n_workers // 4)) if on_gpu else 0
        return default if self.resident.renderers is None else self.resident.renderers
