"""What pi0 and pi0.5 make of the time of a denoising step: the same numbers in each call, so they are made once."""

from collections.abc import Iterable
from typing import Any

import torch
from lerobot.policies.common.vla_utils import create_sinusoidal_pos_embedding
from torch import Tensor
from torch.nn import functional

from .fast_layers import Scaling


class DenoisingTimes:
    """Holds the numbers of each denoising step: how noisy actions become tokens, and the scaling of each norm.

    `scalings` has for each step and each layer of the expert those of its two norms, `last` that of the last norm.
    """

    def __init__(self, model: Any, expert: Any) -> None:
        self.model, self.expert = model, expert
        self.count = int(model.config.num_inference_steps)
        self.step = -1.0 / self.count
        with torch.no_grad():
            embeddings = [self._embedding(1.0 + number * self.step) for number in range(self.count)]
            self._actions = [self._of_actions(embedding) for embedding in embeddings]
            conditions = [self._condition(embedding) for embedding in embeddings]
            self.scalings = [layer_scalings(expert.layers, condition) for condition in conditions]
            self.last = [scaling(expert.norm, condition) for condition in conditions]

    @property
    def is_adaptive(self) -> bool:
        """Returns whether the time scales the norms, as in pi0.5; in pi0 it is added to the actions' tokens."""
        return hasattr(self.model, "time_mlp_in")

    def embedded(self, actions: Tensor, number: int) -> Tensor:
        """Returns the tokens of noisy actions in a denoising step."""
        weight, bias = self._actions[number]
        tokens = functional.linear(actions.to(weight.dtype), weight, bias)
        if self.is_adaptive:
            return tokens
        mixed: Tensor = self.model.action_time_mlp_out(functional.silu(tokens))
        return mixed

    def _embedding(self, time: float) -> Tensor:
        weight, config = self.model.action_in_proj.weight, self.model.config
        periods = {"min_period": config.min_period, "max_period": config.max_period, "device": weight.device}
        now = torch.tensor([time], dtype=torch.float32, device=weight.device)
        return create_sinusoidal_pos_embedding(now, weight.shape[0], **periods).to(now.dtype)

    def _of_actions(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the matrix and the bias that make tokens of actions.

        pi0 multiplies the actions by a matrix, and the result together with the time by another one. The product of
        both matrices and the time's share of the bias are computed here, in float64.
        """
        into = self.model.action_in_proj
        weight, bias = into.weight.detach(), into.bias.detach()
        if self.is_adaptive:
            return weight, bias
        mixing = self.model.action_time_mlp_in
        of_actions, of_time = mixing.weight.detach().double().chunk(2, dim=1)
        moved = of_actions @ bias.double() + of_time @ embedding[0].double() + mixing.bias.detach().double()
        return (of_actions @ weight.double()).to(weight.dtype), moved.to(weight.dtype)

    def _condition(self, embedding: Tensor) -> Tensor | None:
        if not self.is_adaptive:
            return None
        hidden = functional.silu(self.model.time_mlp_in(embedding))
        return functional.silu(self.model.time_mlp_out(hidden))


def layer_scalings(layers: Iterable[Any], condition: Tensor | None = None) -> list[tuple[Scaling, Scaling]]:
    """Returns the scalings of each layer's two norms."""
    return [
        (scaling(layer.input_layernorm, condition), scaling(layer.post_attention_layernorm, condition))
        for layer in layers
    ]


def scaling(norm: Any, condition: Tensor | None = None) -> Scaling:
    """Returns what a norm multiplies by and adds, given the condition of a norm that is adaptive."""
    if condition is None or norm.dense is None:
        return Scaling(1.0 + norm.weight.detach().float())
    factor, shift, gate = (part.float().contiguous() for part in norm.dense(condition)[0].chunk(3))
    return Scaling(1.0 + factor, shift, gate)
