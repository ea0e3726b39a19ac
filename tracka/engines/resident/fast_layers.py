"""The layers of pi0's transformers as fast mode computes them: pure functions of tensors, which torch.compile can fuse.

Numbers are those of lerobot's layers but for rounding: sums are taken in another order, and attention keeps no float32
copy of what is in bfloat16. Hidden states have the shape (batch, tokens, width), keys and values (batch, tokens, head).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class Scaling(NamedTuple):
    """What a norm multiplies by and adds, and the gate of the sum after it; pi0.5 has the last two, pi0 has not."""

    factor: Tensor  # float32, since 1 + weight would lose the weight's last bits in bfloat16
    shift: Tensor | None = None
    gate: Tensor | None = None


class GemmaWeights(NamedTuple):
    """Weights of one layer of a language model or of an action expert.

    `into` is one matrix for queries, keys and values together, or one for each; `wide` likewise for gate and up.
    """

    into: tuple[Tensor, ...]
    out: Tensor
    wide: tuple[Tensor, ...]
    narrow: Tensor
    heads: int
    head: int  # numbers of a head
    epsilon: float


class Cache(NamedTuple):
    """Keys and values of one layer, and the tokens (from, to) that the layer's own input fills."""

    keys: Tensor
    values: Tensor
    first: int
    last: int


def norm(hidden: Tensor, scaling: Scaling, epsilon: float) -> Tensor:
    """Returns the root mean square norm of each token, computed in float32."""
    wide = hidden.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon) * scaling.factor
    return (normed if scaling.shift is None else normed + scaling.shift).to(hidden.dtype)


def added(hidden: Tensor, change: Tensor, scaling: Scaling) -> Tensor:
    """Returns the residual sum, gated where the scaling has a gate."""
    return hidden + change if scaling.gate is None else hidden + change * scaling.gate.to(hidden.dtype)


def rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Returns heads of shape (batch, tokens, heads, head), rotated by the tokens' positions."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos[:, :, None] + torch.cat((-second, first), dim=-1) * sin[:, :, None]


def projected(hidden: Tensor, matrices: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """Returns the products with several matrices, which may be stacked in one."""
    if len(matrices) == 1:
        return list(functional.linear(hidden, matrices[0]).split(list(sizes), dim=-1))
    return [functional.linear(hidden, matrix) for matrix in matrices]


def keys_and_values(
    hidden: Tensor, weights: GemmaWeights, scaling: Scaling, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the queries of shape (batch, tokens, heads, head), and the keys and values of a layer's input."""
    sizes = (weights.heads * weights.head, weights.head, weights.head)
    query, key, value = projected(norm(hidden, scaling, weights.epsilon), weights.into, sizes)
    queries = rotated(query.unflatten(-1, (weights.heads, weights.head)), cos, sin)
    return queries, rotated(key[:, :, None], cos, sin)[:, :, 0], value


def fill(cache: Cache, key: Tensor, value: Tensor) -> None:
    """Writes keys and values of a layer's input into their places."""
    cache.keys[:, cache.first : cache.last] = key
    cache.values[:, cache.first : cache.last] = value


def gemma_layer(
    hidden: Tensor,
    weights: GemmaWeights,
    scalings: tuple[Scaling, Scaling],
    rotation: tuple[Tensor, Tensor],
    cache: Cache,
    seen: int,
    mask: Tensor | None,
    attention: Attention,
    in_place: bool,
) -> Tensor:
    """Returns a layer's output; the input attends to the first `seen` tokens of the cache, itself among them.

    Where not `in_place`, the keys and values are joined with the cache's anew, and the cache stays as it is.
    """
    queries, key, value = keys_and_values(hidden, weights, scalings[0], *rotation)
    if in_place:
        fill(cache, key, value)
        keys, values = cache.keys[:, :seen], cache.values[:, :seen]
    else:
        keys, values = (
            torch.cat((kept[:, : cache.first], new, kept[:, cache.last : seen]), dim=1)
            for kept, new in ((cache.keys, key), (cache.values, value))
        )
    change = functional.linear(attention(queries, keys, values, mask), weights.out)
    hidden = added(hidden, change, scalings[0])
    wide_sizes = (weights.narrow.shape[1],) * 2
    gate, up = projected(norm(hidden, scalings[1], weights.epsilon), weights.wide, wide_sizes)
    change = functional.linear(functional.gelu(gate, approximate="tanh") * up, weights.narrow)
    return added(hidden, change, scalings[1])


def fused_attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Returns attention by torch's fused kernels.

    All heads share their keys and no query is told from another, so the heads of a token are queries like any other.
    """
    batch, tokens, heads, head = queries.shape
    seen = functional.scaled_dot_product_attention(
        queries.reshape(batch, 1, tokens * heads, head), keys[:, None], values[:, None], mask, scale=head**-0.5
    )
    return seen.reshape(batch, tokens, heads * head)


def plain_attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Returns attention by products and a softmax in float32, as lerobot computes it."""
    batch, tokens, heads, head = queries.shape
    scores = queries.reshape(batch, tokens * heads, head) @ keys.transpose(1, 2) * head**-0.5
    scores = scores if mask is None else scores + mask[:, 0]
    seen = functional.softmax(scores, dim=-1, dtype=torch.float32).to(queries.dtype) @ values
    return seen.reshape(batch, tokens, heads * head)
