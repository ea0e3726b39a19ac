"""Loading a large policy in seconds: no random initialisation, weights from the file straight to the device.

lerobot first fills a model with random float32 numbers on the CPU, converts it, and then copies the file over them:
150 s for a pi0 of 4 billion parameters. Here parameters have no storage until the file gives them one; buffers, which
are computed and not stored, are made on the CPU as in lerobot, so that every number is the same.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

# Policies whose loader reads one file with safetensors and hands it to load_state_dict.
LARGE = ("pi0", "pi05")


@contextlib.contextmanager
def without_storage() -> Iterator[None]:
    """Within this, a module's parameters have a shape and a type, and no storage; buffers are real."""
    with (
        patch.object(nn.Module, "register_parameter", _register_empty),
        patch.object(nn.Module, "to", _to_if_real),
    ):
        yield


@contextlib.contextmanager
def straight_to(device: str) -> Iterator[None]:
    """Within this, `from_pretrained` of a policy in LARGE makes a model whose weights are on `device`."""
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


def unloaded(policy: nn.Module) -> list[str]:
    """The parameters and buffers that no file gave a value."""
    named = (*policy.named_parameters(), *policy.named_buffers())
    return [name for name, tensor in named if tensor.is_meta]


_register, _load = nn.Module.register_parameter, nn.Module.load_state_dict


def _register_empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
    """A parameter without storage; what fills it later with random numbers does nothing then."""
    _register(module, name, parameter)
    if parameter is not None and not parameter.is_meta:
        empty = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        module._parameters[name] = empty


def _to_if_real(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """nn.Module.to that leaves what has no storage without it, and changes its type alone."""
    device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)

    def convert(tensor: torch.Tensor) -> torch.Tensor:
        kind = dtype if tensor.is_floating_point() else None
        return tensor.to(dtype=kind or tensor.dtype) if tensor.is_meta else tensor.to(device, kind or tensor.dtype)

    return module._apply(convert)


def _assign(module: nn.Module, state: dict[str, torch.Tensor], strict: bool = True, **_: Any) -> Any:
    """load_state_dict that takes the tensors themselves, in the type that the model has decided on."""
    kinds = {name: tensor.dtype for name, tensor in module.state_dict(keep_vars=True).items()}
    typed = {name: tensor.to(kinds.get(name, tensor.dtype)) for name, tensor in state.items()}
    with patch.object(nn.Module, "register_parameter", _register):
        return _load(module, typed, strict=strict, assign=True)
