"""Chunks of actions of SmolVLA by lerobot's own call, with torch's fused attention in place of its eager one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

STEPS: Mapping[str, str] = {
    "attention": "torch's fused attention stands in for products and a softmax in float32",
}


class FastSmolVLA:
    """Computes a SmolVLA's chunks of actions. Raises ValueError where the policy is not built as expected."""

    is_plain = False

    def __init__(self, policy: Any, steps: frozenset[str], compiler: object = None) -> None:
        self.policy, self.steps = policy, steps
        self.parts = policy.model.vlm_with_expert
        self.dtype: torch.dtype = self.parts.lm_expert.layers[0].self_attn.q_proj.weight.dtype
        if not hasattr(self.parts, "eager_attention_forward"):
            raise ValueError("its attention is not that of lerobot 0.6.1")

    def prepared(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the inputs as they are: its tokenizer pads no further than the longest instruction of a call."""
        return dict(inputs)

    def __call__(self, inputs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        """Returns actions of shape (observations, chunk, numbers of an action)."""
        if "attention" in self.steps:
            self.parts.eager_attention_forward = self._attention
        try:
            actions: Tensor = self.policy.predict_action_chunk(dict(inputs), noise=noise)
            return actions
        finally:
            self.parts.__dict__.pop("eager_attention_forward", None)

    def _attention(
        self, mask: Tensor, batch_size: int, head: int, queries: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Returns attention of shape (batch, tokens, width); queries, keys and values are (batch, tokens, heads, head).

        Scores get a large negative number where the mask says so: a token that may attend to nothing attends to all
        alike, as in lerobot, and none becomes NaN.
        """
        kind = values.dtype
        queries, keys, values = (each.to(kind).transpose(1, 2) for each in (queries, keys, values))
        added = torch.zeros(mask.shape, dtype=kind, device=mask.device)
        added = added.masked_fill(~mask, torch.finfo(kind).min)[:, None]
        seen = functional.scaled_dot_product_attention(
            queries, keys, values, added, scale=head**-0.5, enable_gqa=queries.shape[1] != keys.shape[1]
        )
        return seen.transpose(1, 2).flatten(2)
