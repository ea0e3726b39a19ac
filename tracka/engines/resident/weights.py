"""Loads a large policy in seconds: without a random initialisation, and with weights from the file to the device.

lerobot first fills a model with random float32 numbers on the CPU, converts it, and then copies the file over it: 150 s
for a pi0 of 4 billion parameters. Here parameters have no storage until their values come from the file. Buffers, which
are computed and not stored in the file, are made on the CPU as in lerobot, so that every number is the same.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

# Policies whose loader reads one file with safetensors and passes its tensors to load_state_dict.
LARGE = ("pi0", "pi05")


@contextlib.contextmanager
def without_storage() -> Iterator[None]:
    """Gives the parameters of modules made within the block a shape and a type, but no storage; buffers are real."""
    with (
        patch.object(nn.Module, "register_parameter", _register_empty),
        patch.object(nn.Module, "to", _to_if_real),
    ):
        yield


@contextlib.contextmanager
def straight_to(device: str) -> Iterator[None]:
    """Makes `from_pretrained` of a policy in LARGE, within the block, return a model with its weights on `device`."""
    import safetensors.torch

    load_file = safetensors.torch.load_file

    def load(filename: Any, **_: Any) -> Any:
        return load_file(filename, device=device)

    with (
        without_storage(),
        patch.object(nn.Module, "load_state_dict", _assign),
        patch.object(safetensors.torch, "load_file", load),
    ):
        yield


def unloaded_names(policy: nn.Module) -> list[str]:
    """Returns the names of the parameters and buffers that got no value from a file."""
    named_tensors = (*policy.named_parameters(), *policy.named_buffers())
    return [name for name, tensor in named_tensors if tensor.is_meta]


_register, _load = nn.Module.register_parameter, nn.Module.load_state_dict


def _register_empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
    """Registers a parameter without storage, so that filling it with random numbers later does nothing."""
    _register(module, name, parameter)
    if parameter is not None and not parameter.is_meta:
        empty = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        module._parameters[name] = empty


def _to_if_real(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Does what nn.Module.to does, but of tensors without storage it changes the type alone, not the device."""
    device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)

    def convert(tensor: torch.Tensor) -> torch.Tensor:
        kind = dtype if tensor.is_floating_point() else None
        return tensor.to(dtype=kind or tensor.dtype) if tensor.is_meta else tensor.to(device, kind or tensor.dtype)

    return module._apply(convert)


def _assign(module: nn.Module, state: dict[str, torch.Tensor], strict: bool = True, **_: Any) -> Any:
    """Loads a state dict by taking its tensors themselves, not copies, in the types that the model has decided on."""
    kinds = {name: tensor.dtype for name, tensor in module.state_dict(keep_vars=True).items()}
    typed = {name: tensor.to(kinds.get(name, tensor.dtype)) for name, tensor in state.items()}
    with patch.object(nn.Module, "register_parameter", _register):
        return _load(module, typed, strict=strict, assign=True)
