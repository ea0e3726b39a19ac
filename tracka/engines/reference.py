"""Runs lerobot-eval itself and records every episode; the resident engine is compared with this record.

Usage: python -m tracka.engines.reference FLAGS OF LEROBOT-EVAL [--resident.noise=episode]

The stock program runs unchanged around its own rollout(), to which `listener.py` listens. With
`--resident.noise=episode` a flow-matching policy gets, in place of torch's own noise, the noise that the resident
engine's documentation promises for each episode; lerobot's code around it is the same.

On a GPU, lerobot-eval lets each process choose its convolutions by timing them (`torch.backends.cudnn.benchmark`), so
two processes of lerobot-eval may round differently. A recording is made without this choice, and so are the plays that
are compared with the recording.
"""

import contextlib
import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from . import listener

NOISE = "--resident.noise="


def main() -> None:
    """Runs lerobot-eval with this process's arguments and records every episode, with hashes of its observations."""
    by_episode = f"{NOISE}episode" in sys.argv
    sys.argv = [word for word in sys.argv if not word.startswith(NOISE)]
    listener.main(lambda policy, keys: as_compared(policy, keys if by_episode else ()), hash_observations=True)


@contextlib.contextmanager
def as_compared(policy: Any, keys: Sequence[str]) -> Iterator[None]:
    """Lets the policy compute as in the plays that are compared, each episode with its own noise if there are keys."""
    import torch

    torch.backends.cudnn.benchmark = False  # lerobot-eval has switched it on by now
    with _noise_by_episode(policy, keys):
        yield


@contextlib.contextmanager
def _noise_by_episode(policy: Any, keys: Sequence[str]) -> Iterator[None]:
    """Lets a flow-matching policy draw an environment slot's noise by its episode's key and count of earlier chunks."""
    import torch

    model: Any = getattr(policy, "model", None)
    if not keys or not hasattr(model, "sample_noise"):
        yield
        return
    stock, chunks = model.sample_noise, Counter[str]()

    def draw(shape: Sequence[int], device: Any) -> Any:
        noises = []
        for key in keys:
            seed = int.from_bytes(hashlib.sha256(f"{key}/{chunks[key]}".encode()).digest()[:7], "big")
            noises.append(torch.randn(tuple(shape[1:]), generator=torch.Generator("cpu").manual_seed(seed)))
            chunks[key] += 1
        return torch.stack(noises).to(device)

    model.sample_noise = draw
    try:
        yield
    finally:
        model.sample_noise = stock


if __name__ == "__main__":
    main()
