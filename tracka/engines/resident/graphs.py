"""Answers a policy's calls on a GPU by CUDA graphs, which launch all kernels of a call at once.

A graph is recorded from the policy's own call, once for each set of input shapes, and replays the same kernels on the
same numbers. lerobot's policies make small tensors from Python numbers in each call, which cannot be recorded; they are
made once instead. The embedding of a camera that a policy lacks is the same in each call and is made once, too.

Guarantees: a graph answers only after it gave the bits of the policy's own call on inputs that it was not recorded
from; where a graph cannot be recorded, differs, or does not fit into memory, the policy's own call answers, and the
reason is kept.
"""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Inputs = Mapping[str, Tensor]
Call = Callable[[Inputs], Tensor]
Signature = tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
EMBEDDERS = ("paligemma_with_expert", "vlm_with_expert")  # parts of lerobot's models that embed pictures
MOST_GRAPHS = 8  # each holds memory for all that a call computes


@dataclass
class _Graph:
    """A recorded call. `proven` says whether it gave the bits of the policy's own call."""

    replay: Call
    proven: bool = False


class GraphedCalls:
    """Answers calls of a policy by graphs, which `record` makes where that is possible.

    `call` makes a policy's call from tensors alone, and `record` returns a call that replays it; `record` raises where
    the call cannot be recorded. `agrees` holds a graph's actions against the call's. `reasons` says for which inputs
    the policy's own call answers, and why.
    """

    def __init__(
        self,
        call: Call,
        record: Callable[[Call, Inputs], Call],
        agrees: Callable[[Tensor, Tensor], bool] = torch.equal,
    ) -> None:
        self.reasons: list[str] = []
        self._call, self._record, self._agrees = call, record, agrees
        self._graphs: dict[Signature, _Graph | None] = {}  # None where the policy's own call answers

    def __call__(self, inputs: Inputs, own_call: Callable[[], Tensor]) -> Tensor:
        """Returns what the policy answers to `inputs`; `own_call` is the policy's own way to do so."""
        signature = signature_of(inputs)
        graph = self._graphs.get(signature)
        if graph is not None and graph.proven:
            return graph.replay(inputs)
        actions = own_call()
        if graph is not None:
            self._prove(graph, signature, inputs, actions)
        elif signature not in self._graphs:
            self._add(signature, inputs)
        return actions

    @property
    def proven(self) -> int:
        """Returns the number of graphs that answer calls."""
        return sum(graph is not None and graph.proven for graph in self._graphs.values())

    def _add(self, signature: Signature, inputs: Inputs) -> None:
        if sum(graph is not None for graph in self._graphs.values()) == MOST_GRAPHS:
            self._refuse(signature, f"there are {MOST_GRAPHS} graphs already")
            return
        try:
            self._graphs[signature] = _Graph(self._record(self._call, inputs))
        except Exception as error:  # whatever stops a recording, the policy's own call answers
            self._refuse(signature, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")

    def _prove(self, graph: _Graph, signature: Signature, inputs: Inputs, actions: Tensor) -> None:
        graph.proven = self._agrees(graph.replay(inputs), actions)
        if not graph.proven:
            self._refuse(signature, "its actions differ from those of the policy's own call")

    def _refuse(self, signature: Signature, why: str) -> None:
        self._graphs[signature] = None
        observations = next((shape[0] for _, shape, _ in signature if shape), 1)
        self.reasons.append(f"cuda_graphs, {observations} observations a call: {why}")
        logging.warning("fallback: %s", self.reasons[-1])


def signature_of(inputs: Inputs) -> Signature:
    """Returns the names, shapes and types of inputs."""
    return tuple((name, tuple(value.shape), value.dtype) for name, value in sorted(inputs.items()))


class Recorder:
    """Records calls of one policy as CUDA graphs, which share their memory and live as long as this object.

    A call that is plain makes no tensor from Python numbers and embeds no camera that is lacking.
    """

    def __init__(self, policy: torch.nn.Module, device: str, is_plain: bool = False) -> None:
        self.policy, self.device, self.is_plain = policy, torch.device(device), is_plain
        self._constants = ConstantTensors()
        self._embeddings: list[ConstantEmbeddings] = []
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, call: Call, inputs: Inputs) -> Call:
        """Returns a call that replays `call`, which is recorded with the shapes of `inputs`.

        Raises ValueError for inputs on another device, and RuntimeError where CUDA cannot record the call.
        """
        if elsewhere := [name for name, value in inputs.items() if value.device.type != self.device.type]:
            raise ValueError(f"{', '.join(elsewhere)} is not on {self.device}")
        places = {name: value.clone() for name, value in inputs.items()}
        graph = torch.cuda.CUDAGraph()
        try:
            actions = self._recorded(graph, call, places)
        except Exception:
            torch.cuda.empty_cache()
            raise

        def replay(now: Inputs) -> Tensor:
            for name, place in places.items():
                place.copy_(now[name])
            graph.replay()
            return actions.clone()

        return replay

    def _recorded(self, graph: torch.cuda.CUDAGraph, call: Call, places: Inputs) -> Tensor:
        """Records `call`, after it was made once in the same way: then all that is made once is there."""
        with self._made_once(places):
            stream = torch.cuda.Stream(self.device)
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):
                call(places)
            torch.cuda.synchronize(self.device)
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                return call(places)

    @contextlib.contextmanager
    def _made_once(self, places: Inputs) -> Iterator[None]:
        """Lets calls within the block make once what cannot be recorded, or is the same in each call."""
        if self.is_plain:
            yield
            return
        embeddings = ConstantEmbeddings(self.policy, places)
        self._embeddings.append(embeddings)  # the graph reads their memory
        with self._constants, embeddings.in_use():
            yield


class ConstantTensors(TorchFunctionMode):  # type: ignore[misc]
    """Makes a tensor that comes from Python numbers, or from a tensor of the CPU, once for each value.

    A caller gets a copy, since it may change it. Within a recording the value must have been made before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[object, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Calls `func`, or returns a copy of the tensor that it made of the same value before."""
        options = dict(kwargs or {})
        if func not in (torch.tensor, torch.as_tensor, Tensor.to, Tensor.cuda) or not args or _is_on_device(args[0]):
            return func(*args, **options)
        key = (func, _content(args[0]), repr(args[1:]), repr(sorted(options.items())))
        if key not in self.made:
            self.made[key] = func(*args, **options)
        return self.made[key].clone()


def _is_on_device(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type != "cpu"


def _content(value: object) -> object:
    """Returns what tells a Python value, an array or a tensor of the CPU from others."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor):
        return repr(value)
    content = value.detach().contiguous().reshape(-1).view(torch.uint8)
    return value.dtype, tuple(value.shape), content.numpy().tobytes()


class ConstantEmbeddings:
    """Lets a policy embed each camera that its observations lack only once.

    lerobot's policies with vision-language models embed the cameras that are there, and then a black picture for each
    one that is not (`_preprocess_images` and `embed_prefix` of pi0, pi05 and smolvla, lerobot 0.6.1). So the last
    pictures of a call are the same each time.
    """

    def __init__(self, policy: torch.nn.Module, inputs: Inputs) -> None:
        self.model: Any = getattr(policy, "model", None)
        self.embedder: Any = next((part for name in EMBEDDERS if (part := getattr(self.model, name, None))), None)
        self.cameras = sum(name in inputs for name in getattr(policy.config, "image_features", ()))
        self.made: dict[tuple[int, ...], Tensor] = {}  # shape of a picture -> its embedding
        self._number = 0  # of the picture in the call

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Lets the policy's calls within the block use them; has no effect on policies without such embeddings."""
        if self.model is None or not hasattr(self.embedder, "embed_image"):
            yield
            return
        embed, sample = self.embedder.embed_image, self.model.sample_actions
        self.embedder.embed_image = functools.partial(self._embed, embed)
        self.model.sample_actions = functools.partial(self._sample, sample)
        try:
            yield
        finally:
            del self.embedder.embed_image, self.model.sample_actions

    def _sample(self, sample: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
        self._number = 0
        return sample(*args, **options)

    def _embed(self, embed: Callable[[Tensor], Tensor], picture: Tensor) -> Tensor:
        self._number += 1
        if self._number <= self.cameras:
            return embed(picture)
        shape = tuple(picture.shape)
        if shape not in self.made:
            self.made[shape] = embed(picture).clone()
        return self.made[shape].clone()
