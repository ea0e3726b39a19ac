"""lerobot-eval's own command line, and the resident engine's flags beside it."""

import os
from dataclasses import dataclass, field
from typing import Any

from lerobot.configs.eval import EvalPipelineConfig

from ...campaign.campaign import OBEYED, slots
from ...execution.environment import ROWS_AT_ONCE

NOISE = ("episode", "reference")


@dataclass
class ResidentSettings:
    """Flags `--resident.NAME`.

    `noise`: `episode` draws a policy's noise from (seed, init state, chunk) of each episode, so that no episode depends
    on its neighbours; `reference` plays lerobot-eval's batches one after the other and lets the policy draw as there.
    """

    workers: int = 0  # environment processes; 0 is one a core
    slots: int = 0  # environments alive at once; 0 is one a worker, or two batches
    noise: str = "episode"
    videos: int = 1  # of each task, its first episodes
    video_stride: int = 4  # every so many steps make a frame; the film plays as fast as lerobot-eval's
    lazy_rendering: bool = True
    fast_step: bool = True
    fast_reset: bool = True
    fast_load: bool = True  # weights straight to the device, without a random initialisation
    standby: bool = True  # the harness's: whether a process that stands by may play it
    compile: bool = False  # torch.compile, which may change outcomes
    hash_looks: bool = False  # episodes.jsonl has a hash of each observation: for the parity gate
    cudnn_benchmark: bool = True  # convolutions by their speed here, as in lerobot-eval; not in the gate

    def __post_init__(self) -> None:
        if self.noise not in NOISE:
            raise ValueError(f"resident.noise is {self.noise!r}: give one of {', '.join(NOISE)}")
        if min(self.workers, self.slots, self.videos) < 0:
            raise ValueError("resident.workers, resident.slots and resident.videos must not be negative")


def _given(cfg: Any, flag: str) -> object:
    """What a flag like env.hard_reset says; another kind of environment may not have it."""
    group, name = flag.split(".")
    return getattr(getattr(cfg, group), name, OBEYED[flag])


@dataclass
class ResidentConfig(EvalPipelineConfig):  # type: ignore[misc]
    """What one evaluation is told: lerobot-eval's flags with their defaults, and ours."""

    resident: ResidentSettings = field(default_factory=ResidentSettings)

    def problems(self) -> list[str]:
        """Flags of lerobot-eval that this engine does not obey, each with what to do."""
        env = self.env
        checks = {
            "env.type must be libero: this engine knows no other": env.type != "libero",
            "env.task must name one suite: give each its own row": "," in str(getattr(env, "task", "")),
            "eval.use_async_envs=false with a batch skips init states in lerobot-eval: leave it out": (
                self.eval.batch_size > 1 and not self.eval.use_async_envs
            ),
            "policy.path is missing": self.policy is None,
            "seed is missing: episodes without a seed cannot be repeated": self.seed is None,
        }
        checks |= {f"{flag} must be {only}: leave it out": _given(self, flag) != only for flag, only in OBEYED.items()}
        return [text for text, wrong in checks.items() if wrong]

    @property
    def n_workers(self) -> int:
        return self.resident.workers or max(1, len(os.sched_getaffinity(0)) // int(os.environ.get(ROWS_AT_ONCE, "1")))

    @property
    def n_slots(self) -> int:
        """At least a batch of lerobot-eval must fit."""
        batch_size = int(self.eval.batch_size)
        return max(self.resident.slots or slots(self.n_workers, batch_size), batch_size)
