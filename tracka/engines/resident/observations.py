"""Makes a policy's inputs from observations, as lerobot-eval does, with pictures that travel to the GPU as bytes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lerobot.envs.utils import preprocess_observation
from lerobot.utils.constants import OBS_IMAGES

from .episode import Observation, ObservationRequest

Batch = dict[str, Any]
Processor = Callable[[Batch], Batch]


class ObservationBatches:
    """Makes the inputs of a policy's call from observation requests, by lerobot's processors.

    lerobot turns pictures into floats on the CPU. With `bytes_travel` they become the same floats on the device, from a
    table that the CPU has made, if that gives the same bits in a first call. `reasons` says so where it does not.
    """

    def __init__(self, processors: Sequence[Processor], device: str, bytes_travel: bool) -> None:
        self.processors, self.device = tuple(processors), torch.device(device)
        self.reasons: list[str] = []
        self._bytes_travel = None if bytes_travel else False  # None: the first call will show it
        self._floats = _floats().to(self.device)

    def __call__(self, requests: Sequence[ObservationRequest]) -> Batch:
        """Returns the inputs for these requests, of which each is a row."""
        observation = stacked([request.observation for request in requests])
        tasks = [request.description for request in requests]
        if self._bytes_travel:
            return self._processed(self._on_device(observation), tasks)
        batch = self._processed(preprocess_observation(observation), tasks)
        if self._bytes_travel is None:
            self._find_out(batch, observation, tasks)
        return batch

    def _processed(self, batch: Batch, tasks: Sequence[str]) -> Batch:
        batch["task"] = list(tasks)
        for processor in self.processors:
            batch = dict(processor(batch))
        return batch

    def _on_device(self, observation: Observation) -> Batch:
        """Returns what lerobot's preprocess_observation does, with the pictures on the device."""
        pictures = {}
        for camera, pixels in observation["pixels"].items():
            content = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).contiguous()
            pictures[f"{OBS_IMAGES}.{camera}"] = self._floats[content.int()]
        rest = {name: value for name, value in observation.items() if name != "pixels"}
        return {**pictures, **preprocess_observation(rest)}

    def _find_out(self, batch: Batch, observation: Observation, tasks: Sequence[str]) -> None:
        try:
            difference = _difference(batch, self._processed(self._on_device(observation), tasks))
        except Exception as error:  # a processor that wants pictures on the CPU, for example
            difference = f"{type(error).__name__}: {error}"
        self._bytes_travel = not difference
        if difference:
            self.reasons.append(f"pictures become floats on the CPU: {difference}")


def stacked(observations: Sequence[Observation]) -> Observation:
    """Returns a batch of observations: arrays of equal shape stacked along a new first dimension."""
    first = observations[0]
    return {
        key: stacked([each[key] for each in observations])
        if isinstance(first[key], dict)
        else np.stack([each[key] for each in observations])
        for key in first
    }


def _floats() -> torch.Tensor:
    """Returns the float of each byte, as preprocess_observation makes it."""
    floats = torch.arange(256, dtype=torch.uint8).type(torch.float32)
    floats /= 255
    return floats


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Returns the first input that is not the same in both batches, or an empty string."""
    for name in [*one, *(name for name in other if name not in one)]:
        values = one.get(name), other.get(name)
        if isinstance(values[0], torch.Tensor) and isinstance(values[1], torch.Tensor):
            is_same = values[0].device == values[1].device and torch.equal(*values)
        else:
            is_same = values[0] == values[1]
        if not is_same:
            return f"{name} differs"
    return ""
