"""Times the stages of a call of pi0 or pi0.5 by CUDA graphs, in exact and in fast mode, and names its kernels."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lerobot.policies.common.vla_utils import make_att_2d_masks, prepare_attention_masks_4d
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor

from tracka.engines.resident.fast_calls import NOISE
from tracka.engines.resident.fast_pi0 import FastPi0
from tracka.engines.resident.graphs import ConstantTensors
from tracka.engines.resident.player import PolicyRunner

REPEATS = 7
KERNELS = 60


def milliseconds(calls: Sequence[Callable[[], object]]) -> float:
    """Returns the median time of these calls."""
    seconds = []
    for call in calls:
        _wait()
        start = time.perf_counter()
        call()
        _wait()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def stages(
    player: PolicyRunner, batch: Mapping[str, Any], noise: Mapping[str, Tensor], is_fast: bool
) -> dict[str, float]:
    """Returns the milliseconds of each stage on the GPU, each by a graph of its own; empty for other policies.

    A stage that cannot be timed is left out, with its reason on stdout.
    """
    if not hasattr(getattr(player.policy, "model", None), "paligemma_with_expert"):
        return {}
    tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    try:
        if not is_fast:
            return _exact_stages(player.policy, tensors, noise[NOISE])
        forward = player.fast._forward if player.fast else None
        return _fast_stages(forward, tensors, noise[NOISE]) if isinstance(forward, FastPi0) else {}
    except Exception as error:
        print(f"stages: {type(error).__name__}: {str(error)[:200]}", flush=True)
        return {}


def _fast_stages(forward: FastPi0, inputs: Mapping[str, Tensor], noise: Tensor) -> dict[str, float]:
    prepared = forward.prepared(inputs)
    pictures = forward.pictures(prepared)
    context = forward.read(prepared, pictures)
    return {
        "images": _graphed(lambda: forward.pictures(prepared)),
        "prefix": _graphed(lambda: forward.read(prepared, pictures)),
        "denoising": _graphed(lambda: forward.denoise(noise, context)),
    }


def _exact_stages(policy: Any, inputs: Mapping[str, Tensor], noise: Tensor) -> dict[str, float]:
    model = policy.model
    parts, has_state = model.paligemma_with_expert, hasattr(model, "state_proj")
    pictures, masks = policy._preprocess_images(dict(inputs))
    words = inputs[OBS_LANGUAGE_TOKENS], inputs[OBS_LANGUAGE_ATTENTION_MASK]
    with ConstantTensors():
        embedded, pads, kinds = model.embed_prefix(pictures, masks, *words)
        mask = prepare_attention_masks_4d(make_att_2d_masks(pads, kinds))
        parts.paligemma.model.language_model.config._attn_implementation = "eager"
        prefix = {
            "attention_mask": mask,
            "position_ids": torch.cumsum(pads, 1) - 1,
            "past_key_values": None,
            "inputs_embeds": [embedded, None],
            "use_cache": True,
        }
        kept = parts.forward(**prefix)[1]
        state = {"state": policy.prepare_state(inputs)} if has_state else {}
        now = torch.full((len(noise),), 0.5, device=noise.device)
        step = {"prefix_pad_masks": pads, "past_key_values": kept, "x_t": noise, "timestep": now, **state}
        return {
            "images": _graphed(lambda: model.embed_prefix(pictures, masks, *words)),
            "prefix": _graphed(lambda: parts.forward(**prefix)),
            "denoising": model.config.num_inference_steps * _graphed(lambda: model.denoise_step(**step)),
        }


def _graphed(call: Callable[[], object]) -> float:
    """Returns the milliseconds that a graph of the call takes; on the CPU those of the call."""
    if not torch.cuda.is_available():
        return milliseconds([call] * 3)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        kept = call()
    taken = milliseconds([graph.replay] * REPEATS)
    del kept
    return taken


def kernels(call: Callable[[], object]) -> str:
    """Returns the kernels of a call that take longest, as a table."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    call()
    _wait()
    with profile(activities=activities) as profiled:
        call()
        _wait()
    order = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    return str(profiled.key_averages().table(sort_by=order, row_limit=KERNELS, max_name_column_width=100))
