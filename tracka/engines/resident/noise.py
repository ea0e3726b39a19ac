"""The noise of flow-matching policies: drawn for each episode by itself, or as lerobot-eval draws it."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from .episode import ObservationRequest


def noise_for_requests(requests: Sequence[ObservationRequest], shape: tuple[int, int]) -> Tensor:
    """Returns standard normal float32 noise of shape (requests, *shape) for these observation requests.

    Each request's noise depends on its suite, task, seed, init state and chunk alone, and so on no other episode. The
    noise is drawn on the CPU, so that the kind of GPU changes nothing.
    """
    return torch.stack([_draw(request, shape) for request in requests])


def _draw(request: ObservationRequest, shape: tuple[int, int]) -> Tensor:
    episode = request.episode
    key = f"{episode.suite}/{episode.task_id}/{episode.seed}/{episode.init_state}/{request.chunk}"
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class ReferenceNoise:
    """Draws the noise that lerobot-eval would draw: one batch for each chunk, from torch's own generator.

    The generator must be as set_seed left it.
    """

    def __init__(self) -> None:
        self.drawn: list[Tensor] = []

    def noise_for_requests(
        self, requests: Sequence[ObservationRequest], shape: tuple[int, int, int], device: str
    ) -> Tensor:
        """Returns noise of the shape `shape`: for each observation request its row in the draw of its chunk.

        The requests must be in the order of lerobot-eval's batch.
        """
        while len(self.drawn) <= max(request.chunk for request in requests):
            self.drawn.append(torch.normal(mean=0.0, std=1.0, size=shape, dtype=torch.float32, device=device))
        return torch.stack([self.drawn[request.chunk][position] for position, request in enumerate(requests)])
