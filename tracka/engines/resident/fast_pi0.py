"""Chunks of actions of pi0 and pi0.5, from the loaded policy's own weights, by fewer and larger operations.

lerobot 0.6.1 computes what nobody reads (tokens of cameras that are not there and of words that pad an instruction, the
last layer of the language model, the state's token in each denoising step), and copies the keys and values of the
observation in each of these steps. Here each is computed once or not at all. The numbers are lerobot's but for
rounding; `fast_calls.py` holds them against lerobot's own call.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor

from .fast_layers import (
    Cache,
    GemmaWeights,
    Scaling,
    fill,
    fused_attention,
    gemma_layer,
    keys_and_values,
    norm,
    plain_attention,
)
from .fast_times import DenoisingTimes, layer_scalings
from .fast_vision import TANH_GELU, FastVision, vision_layer

# The steps by which this call differs from lerobot's. Each can be left out.
STEPS: Mapping[str, str] = {
    "padding": "cameras that are not there, and words that only pad an instruction, are left out",
    "vision": "the vision tower multiplies in float16, which rounds as TF32 does",
    "cameras": "all cameras' pictures go through the vision tower in one call",
    "attention": "torch's fused attention stands in for products and a softmax in float32",
    "cache": "keys and values are written into their places, and not copied in each denoising step",
    "projections": "queries, keys and values come from one product, as do both halves of the expert's perceptrons",
    "compile": "torch.compile fuses the small operations of each layer",
}
WORDS = 32  # instructions are cut to a multiple of so many tokens, so that most of a suite's have one length
ALIGNED = 16  # fused attention wants a mask of such a multiple of numbers
ON_GPU = ("vision", "compile")  # on a CPU float32 is not rounded to TF32, and compiled code gains nothing
Compiler = Callable[[Callable[..., Tensor]], Callable[..., Tensor]]


class Context(NamedTuple):
    """What the denoising steps read of an observation: keys and values, their mask, and how many tokens are there."""

    caches: Sequence[Cache]
    mask: Tensor
    count: Tensor


class FastPi0:
    """Computes a pi0's or pi0.5's chunks of actions. Raises ValueError where the policy is not built as expected."""

    is_plain = True

    def __init__(self, policy: Any, steps: frozenset[str], compiler: Compiler) -> None:
        self.policy, self.model, self.steps = policy, policy.model, steps
        self.parts = self.model.paligemma_with_expert
        self.language, self.expert = self.parts.paligemma.model.language_model, self.parts.gemma_expert.model
        self.weight: Tensor = self.language.layers[0].self_attn.q_proj.weight
        self.dtype = self.weight.dtype
        self._refuse_other_models()
        compiler = compiler if "compile" in steps else lambda function: function
        self._layer = compiler(gemma_layer)
        self._attention = fused_attention if "attention" in steps else plain_attention
        is_stacked = "projections" in steps
        self.language_layers = [gemma_weights(layer, is_stacked, False) for layer in self.language.layers]
        self.expert_layers = [gemma_weights(layer, is_stacked, is_stacked) for layer in self.expert.layers]
        self.language_scalings = layer_scalings(self.language.layers)
        self.times = DenoisingTimes(self.model, self.expert)
        self.vision = FastVision(self.parts.paligemma.model, compiler(vision_layer)) if "vision" in steps else None

    def _refuse_other_models(self) -> None:
        for model in (self.language, self.expert):
            attention, activation = model.layers[0].self_attn, model.layers[0].mlp.act_fn
            if attention.q_proj.bias is not None or attention.k_proj.weight.shape[0] != attention.head_dim:
                raise ValueError("its attention has biases, or more than one head of keys")
            if "tanh" not in str(activation).lower():
                raise ValueError(f"its activation is {activation}, not {TANH_GELU}")
        if self.model.gradient_checkpointing_enabled or self.policy.config.rtc_config is not None:
            raise ValueError("it is set up for training or for real-time chunking")

    @property
    def has_state(self) -> bool:
        """Returns whether the state is a token of its own, as in pi0; in pi0.5 it is part of the instruction."""
        return hasattr(self.model, "state_proj")

    def prepared(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the inputs without the words that only pad, so that their shapes say how long the instruction is.

        An instruction of pi0 has the same length in each call. That of pi0.5 has not, since it contains the state, and
        is left as it is: an episode's numbers would else depend on its neighbours in a call.
        """
        prepared = dict(inputs)
        if "padding" in self.steps and self.has_state:
            length = words(inputs[OBS_LANGUAGE_ATTENTION_MASK])
            for name in (OBS_LANGUAGE_TOKENS, OBS_LANGUAGE_ATTENTION_MASK):
                prepared[name] = inputs[name][:, :length].contiguous()
        return prepared

    def __call__(self, inputs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        """Returns actions of shape (observations, chunk, numbers of an action), for prepared inputs."""
        actions = self.denoise(noise, self.read(inputs, self.pictures(inputs)))
        return actions[:, :, : self.policy.config.output_features[ACTION].shape[0]]

    def _cameras(self, inputs: Mapping[str, Tensor]) -> list[str]:
        return [name for name in self.policy.config.image_features if name in inputs]

    def pictures(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Returns the embeddings of each camera's pictures; lerobot puts cameras that are not there last."""
        pictures, _ = self.policy._preprocess_images(dict(inputs))
        if "padding" in self.steps:
            pictures = pictures[: len(self._cameras(inputs))]
        embed = self.vision or self.parts.embed_image
        if "cameras" in self.steps:
            embedded = embed(torch.cat(pictures)).chunk(len(pictures))
        else:
            embedded = [embed(picture) for picture in pictures]
        return [each.to(self.dtype) for each in embedded]

    def read(self, inputs: Mapping[str, Tensor], pictures: Sequence[Tensor]) -> Context:
        """Returns what the denoising steps read of an observation with these embeddings of its pictures."""
        tokens, token_mask = inputs[OBS_LANGUAGE_TOKENS], inputs[OBS_LANGUAGE_ATTENTION_MASK].bool()
        hidden = torch.cat([*pictures, self.parts.embed_language_tokens(tokens).to(self.dtype)], dim=1)
        there = self._there(pictures, len(self._cameras(inputs)), token_mask)
        caches = self._caches(*there.shape)
        context = Context(caches, self._mask(there, caches), there.sum(1, keepdim=True))
        self._observe(hidden, there, context)
        if self.has_state:
            self._read_state(self.policy.prepare_state(inputs), context)
        return context

    def _there(self, pictures: Sequence[Tensor], cameras: int, token_mask: Tensor) -> Tensor:
        """Returns which tokens of an observation stand for something, of shape (observations, tokens)."""
        seen = [
            torch.full(picture.shape[:2], number < cameras, dtype=torch.bool, device=picture.device)
            for number, picture in enumerate(pictures)
        ]
        return torch.cat([*seen, token_mask], dim=1)

    def _own_tokens(self) -> int:
        """Returns how many tokens of the action expert have keys."""
        return int(self.has_state) + int(self.policy.config.chunk_size)

    def _caches(self, observations: int, tokens: int) -> list[Cache]:
        """Returns room for each layer's keys and values: the observation's tokens, the state's, the actions', none's.

        The last ones fill up to a multiple of ALIGNED. They are never attended to, and are zeros since NaN would stay.
        """
        total = tokens + self._own_tokens()
        total += -total % ALIGNED
        head = self.language_layers[0].head
        shape = (len(self.language_layers), 2, observations, total, head)
        room = torch.zeros(shape, dtype=self.dtype, device=self.weight.device)
        return [Cache(keys, values, 0, tokens) for keys, values in room]

    def _mask(self, there: Tensor, caches: Sequence[Cache]) -> Tensor:
        """Returns what is added to the scores of each key, of shape (observations, 1, 1, keys)."""
        rest = caches[0].keys.shape[1] - there.shape[1]
        own = torch.arange(rest, device=there.device) < self._own_tokens()
        keys = torch.cat([there, own[None].expand(len(there), rest)], dim=1)
        mask = torch.zeros(keys.shape, dtype=self.dtype, device=there.device).masked_fill(~keys, float("-inf"))
        return mask[:, None, None]

    def _observe(self, hidden: Tensor, there: Tensor, context: Context) -> None:
        """Fills the caches with the keys and values of the observation's tokens, which all attend to each other."""
        rotation = self.language.rotary_emb(hidden, there.cumsum(1) - 1)
        self._through(hidden, self.language_layers, self.language_scalings, rotation, context)

    def _read_state(self, state: Tensor, context: Context) -> None:
        """Adds the keys and values of the state's token, which attends to no action and so is the same in each step."""
        hidden = self.model.state_proj(state.to(self.model.state_proj.weight.dtype))[:, None].to(self.dtype)
        rotation = self.expert.rotary_emb(hidden, context.count)
        tokens = context.caches[0].last
        own = context._replace(caches=[cache._replace(first=tokens, last=tokens + 1) for cache in context.caches])
        self._through(hidden, self.expert_layers, self.times.scalings[0], rotation, own)

    def _through(
        self,
        hidden: Tensor,
        layers: Sequence[GemmaWeights],
        scalings: Sequence[tuple[Scaling, Scaling]],
        rotation: tuple[Tensor, Tensor],
        context: Context,
    ) -> None:
        """Fills the caches layer by layer, from tokens that attend to all up to themselves.

        Of the last layer nobody reads more than its keys and values.
        """
        seen = context.caches[0].last
        mask = context.mask[..., :seen].contiguous()
        *firsts, last = zip(layers, scalings, context.caches, strict=True)
        for weights, both, cache in firsts:
            hidden = self._layer(hidden, weights, both, rotation, cache, seen, mask, self._attention, True)
        weights, both, cache = last
        _, key, value = keys_and_values(hidden, weights, both[0], *rotation)
        fill(cache, key, value)

    def denoise(self, noise: Tensor, context: Context) -> Tensor:
        """Returns the actions that Euler's method makes of the noise, in lerobot's steps of time."""
        caches, mask, count = context
        first, total = caches[0].last + int(self.has_state), caches[0].keys.shape[1]
        own = [cache._replace(first=first, last=first + noise.shape[1]) for cache in caches]
        places = torch.arange(noise.shape[1], device=noise.device) + int(self.has_state)
        rotation = self.expert.rotary_emb(self.expert_layers[0].out, count + places)
        is_in_place = "cache" in self.steps
        actions = noise
        for number in range(self.times.count):
            hidden = self.times.embedded(actions, number).to(self.dtype)
            scalings = self.times.scalings[number]
            for weights, both, cache in zip(self.expert_layers, scalings, own, strict=True):
                hidden = self._layer(hidden, weights, both, rotation, cache, total, mask, self._attention, is_in_place)
            last = norm(hidden, self.times.last[number], self.expert_layers[0].epsilon)
            velocity = self.model.action_out_proj(last.to(self.model.action_out_proj.weight.dtype))
            actions = actions + velocity * self.times.step
        return actions


def words(mask: Tensor) -> int:
    """Returns to how many tokens instructions with this attention mask can be cut, a multiple of WORDS at most."""
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    longest = int((mask.bool().any(0) * places).max())
    return min(int(mask.shape[1]), max(WORDS, -(-longest // WORDS) * WORDS))


def gemma_weights(layer: Any, is_into_stacked: bool, is_wide_stacked: bool) -> GemmaWeights:
    """Returns the weights of a layer, stacked where asked; stacked ones are copies and take memory of their own."""
    attention, perceptron = layer.self_attn, layer.mlp
    into = [part.weight.detach() for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
    wide = [part.weight.detach() for part in (perceptron.gate_proj, perceptron.up_proj)]
    return GemmaWeights(
        (torch.cat(into),) if is_into_stacked else tuple(into),
        attention.o_proj.weight.detach(),
        (torch.cat(wide),) if is_wide_stacked else tuple(wide),
        perceptron.down_proj.weight.detach(),
        into[0].shape[0] // attention.head_dim,
        attention.head_dim,
        layer.input_layernorm.eps,
    )
