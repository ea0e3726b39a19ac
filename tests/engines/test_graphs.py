"""Calls of a policy that CUDA graphs answer: when they do, when the policy itself does, and pictures sent as bytes."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.envs.utils import preprocess_observation
from torch import Tensor, nn

from tracka.engines.resident.episode import Episode, ObservationRequest
from tracka.engines.resident.graphs import (
    MOST_GRAPHS,
    Call,
    ConstantEmbeddings,
    ConstantTensors,
    GraphedCalls,
    Inputs,
    Recorder,
)
from tracka.engines.resident.observations import ObservationBatches

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def numbers(*values: float) -> Inputs:
    return {"state": torch.tensor(values)}


class Policy:
    """Doubles its input and counts its calls; `recorder` says how its calls are recorded."""

    def __init__(self, recorder: Callable[[Call, Inputs], Call]) -> None:
        self.calls = 0
        self.graphs = GraphedCalls(self._double, recorder)

    def _double(self, inputs: Inputs) -> Tensor:
        return inputs["state"] * 2

    def ask(self, inputs: Inputs) -> Tensor:
        def own_call() -> Tensor:
            self.calls += 1
            return self._double(inputs)

        return self.graphs(inputs, own_call)


def faithful(call: Call, inputs: Inputs) -> Call:
    return call


def stale(call: Call, inputs: Inputs) -> Call:
    """A graph that has kept what it should read anew."""
    actions = call(inputs)
    return lambda now: actions


def out_of_memory(call: Call, inputs: Inputs) -> Call:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore words")


# when a graph answers


def test_a_graph_answers_from_the_third_call_on_when_it_gave_the_policys_bits_in_the_second() -> None:
    policy = Policy(faithful)
    answers = [policy.ask(numbers(number, 1)) for number in range(5)]
    assert [answer.tolist() for answer in answers] == [[2 * number, 2] for number in range(5)]
    assert (policy.calls, policy.graphs.proven, policy.graphs.reasons) == (2, 1, [])


def test_each_size_of_a_call_has_a_graph_that_proves_itself() -> None:
    policy = Policy(faithful)
    for _ in range(3):
        policy.ask(numbers(1, 2))
        policy.ask(numbers(1, 2, 3))
    assert (policy.calls, policy.graphs.proven) == (4, 2)


def test_a_graph_that_answers_with_old_numbers_is_never_used() -> None:
    policy = Policy(stale)
    assert [policy.ask(numbers(number, 1))[0].item() for number in range(4)] == [0, 2, 4, 6]
    assert (policy.calls, policy.graphs.proven) == (4, 0)
    (reason,) = policy.graphs.reasons
    assert reason == "cuda_graphs, 2 observations a call: its actions differ from those of the policy's own call"


def test_where_no_graph_fits_into_memory_the_policy_answers_and_the_reason_is_one_line() -> None:
    policy = Policy(out_of_memory)
    assert [policy.ask(numbers(number))[0].item() for number in range(4)] == [0, 2, 4, 6]
    (reason,) = policy.graphs.reasons
    assert reason.endswith("1 observations a call: OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")


def test_a_policy_that_is_asked_in_ever_new_sizes_does_not_fill_the_memory_with_graphs() -> None:
    policy = Policy(faithful)
    for size in range(1, MOST_GRAPHS + 3):
        for _ in range(3):
            policy.ask(numbers(*range(size)))
    assert policy.graphs.proven == MOST_GRAPHS
    assert len(policy.graphs.reasons) == 2


# tensors that are made once


def test_a_tensor_of_python_numbers_is_made_once_for_each_value() -> None:
    mode = ConstantTensors()
    with mode:
        made = [torch.tensor(value) for value in ([1, 2], [1, 2], [1, 3], 0.1, 0.1)]
        typed = torch.tensor([1, 2], dtype=torch.bool)
    assert [tensor.tolist() for tensor in made[:3]] == [[1, 2], [1, 2], [1, 3]]
    assert typed.dtype == torch.bool
    assert len(mode.made) == 4


def test_who_changes_such_a_tensor_changes_it_for_nobody_else() -> None:
    with ConstantTensors():
        torch.tensor([1.0]).add_(5)
        assert torch.tensor([1.0]).item() == 1


def test_long_arrays_that_differ_in_the_middle_are_told_apart() -> None:
    array = np.zeros(5000)
    other = array.copy()
    other[2500] = 1
    with ConstantTensors():
        assert torch.as_tensor(array)[2500] == 0
        assert torch.as_tensor(other)[2500] == 1


def test_a_tensor_of_the_cpu_is_moved_once_for_each_content() -> None:
    mode = ConstantTensors()
    with mode:
        for value in (0.0, 0.0, 1.0):
            assert torch.full((3,), value).to(torch.float64)[0].item() == value
    assert len(mode.made) == 2


# cameras that a policy lacks


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedded: list[float] = []

    def embed_image(self, picture: Tensor) -> Tensor:
        self.embedded.append(float(picture.mean()))
        return picture * 10


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.paligemma_with_expert = Embedder()

    def sample_actions(self, pictures: list[Tensor]) -> Tensor:
        return torch.stack([self.paligemma_with_expert.embed_image(picture) for picture in pictures])


class CameraPolicy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.config = SimpleNamespace(image_features=["front", "wrist", "lacking"])


def test_a_camera_that_is_lacking_is_embedded_once_and_the_others_in_each_call() -> None:
    policy = CameraPolicy()
    inputs = {"front": torch.zeros(1), "wrist": torch.zeros(1)}
    kept = ConstantEmbeddings(policy, inputs)
    with kept.in_use():
        for number in (1.0, 2.0, 3.0):
            pictures = [torch.tensor(number), torch.tensor(number), torch.tensor(-1.0)]
            assert policy.model.sample_actions(pictures).tolist() == [10 * number, 10 * number, -10]
    assert policy.model.paligemma_with_expert.embedded == [1, 1, -1, 2, 2, 3, 3]
    policy.model.sample_actions([torch.tensor(-1.0)] * 3)
    assert policy.model.paligemma_with_expert.embedded[-3:] == [-1, -1, -1], "the policy is as it was"


def test_a_policy_without_such_a_model_is_left_alone() -> None:
    policy = nn.Linear(1, 1)
    policy.config = SimpleNamespace(image_features=["front"])  # type: ignore[assignment]
    with ConstantEmbeddings(policy, {}).in_use():
        assert policy(torch.zeros(1)).shape == (1,)


# pictures as bytes


def request(number: int) -> ObservationRequest:
    random = np.random.RandomState(number)
    pixels = {name: random.randint(0, 256, (48, 64, 3)).astype(np.uint8) for name in ("image", "image2")}
    observation = {"pixels": pixels, "robot_state": {"joints": {"pos": random.rand(7)}}}
    return ObservationRequest(Episode("libero_object", 0, number, number, 2), 0, "pick it up", observation)


def only_pictures(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name.startswith("observation.images") or name == "task"}


def test_pictures_sent_as_bytes_become_the_floats_of_lerobot_to_the_bit() -> None:
    batches = ObservationBatches((only_pictures,), "cpu", bytes_travel=True)
    for first in (0, 2, 4):
        requests = [request(first), request(first + 1)]
        batch = batches(requests)
        for camera in ("image", "image2"):
            pixels = np.stack([each.observation["pixels"][camera] for each in requests])
            expected = preprocess_observation({"pixels": {camera: pixels}})[f"observation.images.{camera}"]
            assert torch.equal(batch[f"observation.images.{camera}"], expected)
    assert batches.reasons == []


def test_where_a_processor_computes_otherwise_on_such_pictures_they_travel_as_lerobot_sends_them() -> None:
    calls: list[int] = []

    def one_more_each_call(batch: dict[str, Any]) -> dict[str, Any]:
        calls.append(1)
        return {"observation.images.image": batch["observation.images.image"] + len(calls)}

    batches = ObservationBatches((one_more_each_call,), "cpu", bytes_travel=True)
    batches([request(0)])
    batches([request(1)])
    assert len(calls) == 3, "twice in the first call, to compare"
    assert batches.reasons == ["pictures become floats on the CPU: observation.images.image differs"]


# on a GPU


class Network(nn.Module):
    """Makes tensors of Python numbers in each call as lerobot's policies do, and moves one from the CPU."""

    def __init__(self, asks_the_cpu: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 7))
        self.asks_the_cpu = asks_the_cpu
        self.config = SimpleNamespace(image_features=[])

    def forward(self, inputs: Inputs) -> Tensor:
        state = inputs["state"]
        mask = torch.tensor([True] * 8 + [False] * 8, device=state.device)
        shift = torch.zeros(16).to(state.device)
        if self.asks_the_cpu and float(state.sum().item()) > 0:
            shift = shift + 1
        actions: Tensor = self.layers(torch.where(mask, state, shift))
        return actions


def network_calls(network: Network) -> GraphedCalls:
    network.to("cuda")
    return GraphedCalls(network, Recorder(network, "cuda"))


@on_gpu
@torch.inference_mode()
def test_a_recorded_network_gives_the_bits_of_its_own_calls() -> None:
    network = Network()
    graphs = network_calls(network)
    for number in range(20):
        inputs = {"state": torch.randn(4, 16, device="cuda", generator=torch.Generator("cuda").manual_seed(number))}
        assert torch.equal(graphs(inputs, lambda inputs=inputs: network(inputs)), network(inputs))  # type: ignore[misc]
    assert (graphs.proven, graphs.reasons) == (1, [])


@on_gpu
@torch.inference_mode()
def test_a_network_that_asks_the_cpu_in_its_call_answers_itself_and_the_gpu_goes_on() -> None:
    network = Network(asks_the_cpu=True)
    graphs = network_calls(network)
    for sign in (1, -1, 1, -1):
        inputs = {"state": sign * torch.ones(4, 16, device="cuda")}
        assert torch.equal(graphs(inputs, lambda inputs=inputs: network(inputs)), network(inputs))  # type: ignore[misc]
    assert graphs.proven == 0
    assert len(graphs.reasons) == 1
    plain = Network()
    others = network_calls(plain)
    for _ in range(3):
        others({"state": torch.ones(4, 16, device="cuda")}, lambda: plain({"state": torch.ones(4, 16, device="cuda")}))
    assert others.proven == 1
