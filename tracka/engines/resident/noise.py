"""The noise of flow-matching policies, drawn so that an episode's depends on nothing but the episode."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from .episode import Look


def of_looks(looks: Sequence[Look], shape: tuple[int, int]) -> Tensor:
    """Standard normal float32 noise of shape (looks, *shape), by each look's seed, init state and chunk.

    On the CPU, so that a GPU's kind changes nothing.
    """
    return torch.stack([_draw(look, shape) for look in looks])


def _draw(look: Look, shape: tuple[int, int]) -> Tensor:
    episode = look.episode
    key = f"{episode.suite}/{episode.task_id}/{episode.seed}/{episode.init_state}/{look.chunk}"
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Reference:
    """What lerobot-eval would draw, a batch at each chunk, from torch's own generator as set_seed left it."""

    def __init__(self) -> None:
        self.drawn: list[Tensor] = []

    def of_looks(self, looks: Sequence[Look], shape: tuple[int, int, int], device: str) -> Tensor:
        """The row of each look in the draw of its chunk, `shape` in all; the looks stand in lerobot-eval's order."""
        while len(self.drawn) <= max(look.chunk for look in looks):
            self.drawn.append(torch.normal(mean=0.0, std=1.0, size=shape, dtype=torch.float32, device=device))
        return torch.stack([self.drawn[look.chunk][position] for position, look in enumerate(looks)])
