"""The vision tower of pi0 and pi0.5 as fast mode computes it: in the language model's type, all cameras in one call."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .fast_layers import VisionWeights

TANH_GELU = "gelu_pytorch_tanh"  # the one activation that the layers of fast mode compute


class FastVision:
    """Embeds pictures with copies of the weights of a vision tower and its projector, in the type `dtype`.

    The copies leave lerobot's own weights as they are, for lerobot's own calls. Raises ValueError for another tower.
    """

    def __init__(
        self, paligemma: Any, dtype: torch.dtype, layer: Callable[..., Tensor], is_stacked: bool, is_fused: bool
    ) -> None:
        tower = getattr(paligemma.vision_tower, "vision_model", paligemma.vision_tower)
        if tower.config.hidden_act != TANH_GELU:
            raise ValueError(f"the activation of its vision tower is {tower.config.hidden_act}, not {TANH_GELU}")
        self.dtype, self.is_stacked, self.is_fused, self._layer = dtype, is_stacked, is_fused, layer
        self.stride = tower.embeddings.patch_size
        self.patch = self._typed(tower.embeddings.patch_embedding)
        self.position = tower.embeddings.position_embedding.weight.detach().to(dtype)
        self.layers = [self._layer_weights(each) for each in tower.encoder.layers]
        self.after, self.epsilon = self._typed(tower.post_layernorm), tower.post_layernorm.eps
        self.projector = self._typed(paligemma.multi_modal_projector.linear)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Returns the embeddings of pictures of shape (pictures, 3, height, width)."""
        patches = functional.conv2d(pictures.to(self.dtype), *self.patch, stride=self.stride)
        hidden = patches.flatten(2).transpose(1, 2).contiguous() + self.position
        for weights in self.layers:
            hidden = self._layer(hidden, weights, self.is_fused)
        last = functional.layer_norm(hidden, hidden.shape[-1:], *self.after, self.epsilon)
        return functional.linear(last, *self.projector)

    def _layer_weights(self, layer: Any) -> VisionWeights:
        attention = layer.self_attn
        into = [self._typed(part) for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
        if self.is_stacked:
            weight, bias = (torch.cat(parts) for parts in zip(*into, strict=True))
            into = [(weight, bias)]
        return VisionWeights(
            self._typed(layer.layer_norm1),
            tuple(into),
            self._typed(attention.out_proj),
            self._typed(layer.layer_norm2),
            self._typed(layer.mlp.fc1),
            self._typed(layer.mlp.fc2),
            attention.num_heads,
            layer.layer_norm1.eps,
        )

    def _typed(self, module: Any) -> tuple[Tensor, Tensor]:
        return module.weight.detach().to(self.dtype), module.bias.detach().to(self.dtype)
