"""The vision tower of pi0 and pi0.5 as fast mode computes it: products in float16, everything else in float32.

A number of float16 has as many bits after the leading one as TF32, in which a GPU multiplies the float32 numbers of
lerobot's own tower (10). So products are rounded as they are in exact mode, and sums of layers, norms and the embedded
pictures stay in float32. Hidden states have the shape (pictures, tokens, width).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

TANH_GELU = "gelu_pytorch_tanh"  # the one activation that the layers of fast mode compute

Affine = tuple[Tensor, Tensor]  # weight and bias


class VisionWeights(NamedTuple):
    """Weights and biases of one layer, in the order of their use; `into` is for queries, keys and values together."""

    before: Affine
    into: Affine
    out: Affine
    after: Affine
    wide: Affine
    narrow: Affine
    heads: int
    epsilon: float


def product(hidden: Tensor, affine: Affine) -> Tensor:
    """Returns the product with float16 weights, in float16; a number beyond 65,504 becomes infinite."""
    return functional.linear(hidden.to(torch.float16), *affine)


def vision_layer(hidden: Tensor, weights: VisionWeights) -> Tensor:
    """Returns the output of a layer for float32 hidden states."""
    size = (hidden.shape[-1],)
    normed = functional.layer_norm(hidden, size, *weights.before, weights.epsilon)
    parts = product(normed, weights.into).chunk(3, dim=-1)
    queries, keys, values = (part.unflatten(-1, (weights.heads, -1)).transpose(1, 2) for part in parts)
    seen = functional.scaled_dot_product_attention(queries, keys, values)
    hidden = hidden + product(seen.transpose(1, 2).flatten(2), weights.out)
    normed = functional.layer_norm(hidden, size, *weights.after, weights.epsilon)
    wide = functional.gelu(product(normed, weights.wide).float(), approximate="tanh")
    return hidden + product(wide, weights.narrow)


class FastVision:
    """Embeds pictures with copies of the weights of a vision tower and its projector.

    The copies leave lerobot's own weights as they are, for lerobot's own calls. Raises ValueError for another tower.
    """

    def __init__(self, paligemma: Any, layer: Callable[..., Tensor]) -> None:
        self._tower = tower = getattr(paligemma.vision_tower, "vision_model", paligemma.vision_tower)
        if tower.config.hidden_act != TANH_GELU:
            raise ValueError(f"the activation of its vision tower is {tower.config.hidden_act}, not {TANH_GELU}")
        self._layer, self._projector = layer, paligemma.multi_modal_projector
        self._layers = [layer_weights(each) for each in tower.encoder.layers]

    def __call__(self, pictures: Tensor) -> Tensor:
        """Returns the float32 embeddings of pictures of shape (pictures, 3, height, width)."""
        hidden = self._tower.embeddings(pictures.float())
        for weights in self._layers:
            hidden = self._layer(hidden, weights)
        embedded: Tensor = self._projector(self._tower.post_layernorm(hidden))
        return embedded


def layer_weights(layer: Any) -> VisionWeights:
    """Returns copies of a layer's weights: those of products in float16, those of norms in float32."""
    attention = layer.self_attn
    into = [_affine(part, torch.float16) for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
    weight, bias = (torch.cat(parts) for parts in zip(*into, strict=True))
    return VisionWeights(
        _affine(layer.layer_norm1, torch.float32),
        (weight, bias),
        _affine(attention.out_proj, torch.float16),
        _affine(layer.layer_norm2, torch.float32),
        _affine(layer.mlp.fc1, torch.float16),
        _affine(layer.mlp.fc2, torch.float16),
        attention.num_heads,
        layer.layer_norm1.eps,
    )


def _affine(module: Any, dtype: torch.dtype) -> Affine:
    return module.weight.detach().to(dtype), module.bias.detach().to(dtype)
