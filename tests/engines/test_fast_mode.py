"""Fast mode of the resident engine: its actions beside exact ones, what it leaves out, and which faults it refuses."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi05 import modeling_pi05
from torch import Tensor

from benchmarks import policy_calls, rounding
from benchmarks.policy_calls import requests, runner
from fixtures import small_pi0, small_policy
from fixtures.planted import fast_faults
from fixtures.planted.fast_faults import Fault
from tracka.core import files
from tracka.engines import tolerance
from tracka.engines.resident import fast_calls, fast_pi0
from tracka.engines.resident.fast_calls import FastCalls
from tracka.engines.resident.fast_vision import FastVision, vision_layer
from tracka.engines.resident.graphs import Inputs
from tracka.engines.resident.player import PolicyRunner

SIDE, BATCH = 128, 2
Made = Callable[[str], PolicyRunner]


@pytest.fixture(scope="module")
def player_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("fast")
    with pytest.MonkeyPatch.context() as patch:
        for module in (modeling_pi0, modeling_pi05):
            small_pi0.put(patch, module)

        @cache
        def made(kind: str) -> PolicyRunner:
            if kind == "smolvla":
                small_policy.build(folder / kind, kind)
            else:
                small_pi0.build(folder / kind, kind, SIDE)
            player = runner(folder / kind, BATCH, SIDE, "cpu", "fast", empty_cameras=kind == "pi0")
            player.policy.config.num_inference_steps = 2
            small_pi0.sharpen(player.policy)
            return player

        yield made


def calls_of(player: PolicyRunner) -> FastCalls:
    return fast_calls.fast_calls(player.policy, "cpu", player.chunk, with_graphs=True)


def actions(player: PolicyRunner, fast: FastCalls | None, number: int = 0) -> Any:
    player.fast = fast
    return np.stack(player.mixed_actions(requests(BATCH, number, SIDE)))


# beside exact mode


@pytest.mark.parametrize("kind", ["pi0", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("pi05", "smolvla"))])
def test_fast_actions_are_those_of_exact_mode_but_for_rounding(player_of: Made, kind: str) -> None:
    player = player_of(kind)
    fast = calls_of(player)
    for number in (0, 1):
        found = tolerance.difference(actions(player, None, number), actions(player, fast, number))
        assert found.largest < 1e-4 * found.size
    assert fast.is_used and fast.reasons == () and fast.steps == fast_calls.steps_of(kind, is_on_gpu=False)
    assert player.precision == "fast" and fast.figures()["type"] == "float32"


@pytest.mark.parametrize("step", [step for step in fast_pi0.STEPS if step not in fast_pi0.ON_GPU])
@pytest.mark.slow
def test_each_step_can_be_left_out(player_of: Made, step: str) -> None:
    player = player_of("pi0")
    fast = calls_of(player)
    fast.steps = tuple(each for each in fast.steps if each != step)
    found = tolerance.difference(actions(player, None), actions(player, fast))
    assert found.largest < 1e-4 * found.size and step not in fast.steps and fast.reasons == ()


def test_the_vision_tower_multiplies_in_float16_and_stays_nearer_to_lerobots_than_a_rounding_of_bfloat16(
    player_of: Made,
) -> None:
    parts = player_of("pi0").policy.model.paligemma_with_expert
    with torch.no_grad():
        pictures = torch.rand(BATCH, 3, 224, 224) * 2 - 1
        exact, embedded = parts.embed_image(pictures), FastVision(parts.paligemma.model, vision_layer)(pictures)
    assert embedded.dtype == torch.float32
    assert 0 < (embedded - exact).abs().mean() < (exact.bfloat16() - exact).abs().mean() / 2


@pytest.mark.slow
def test_actions_of_a_later_call_that_are_no_numbers_are_exact_modes_from_then_on(
    player_of: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    player = player_of("pi0")
    fast, exact = calls_of(player), actions(player, None, 1)
    actions(player, fast, 0)
    assert fast.is_used
    monkeypatch.setattr(FastCalls, "actions", lambda calls, prepared: torch.full((BATCH, 50, 7), torch.inf))
    assert np.array_equal(actions(player, fast, 1), exact)
    monkeypatch.undo()
    assert np.array_equal(actions(player, fast, 1), exact)
    assert fast.reasons == (
        f"precision = fast, the exact mode answers {BATCH} observations a call: an action was no number",
    )


@pytest.mark.slow
def test_places_are_free_where_each_place_of_a_call_gives_the_same_bits(
    player_of: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rowwise(calls: FastCalls, prepared: Inputs) -> Tensor:
        return prepared[fast_calls.NOISE][:, :, :7] * 2

    def by_place(calls: FastCalls, prepared: Inputs) -> Tensor:
        actions = rowwise(calls, prepared)
        return actions + 1e-6 * torch.arange(len(actions))[:, None, None]

    player, both = player_of("pi0"), requests(BATCH, 0, SIDE)
    shapes = player.call_shapes(both[0])
    for actions_of, is_free in ((by_place, False), (rowwise, True)):
        player.fast = calls_of(player)
        player.fast.steps = ()
        actions(player, player.fast)
        monkeypatch.setattr(FastCalls, "actions", actions_of)
        player.fast._free.clear()
        player.mixed_actions(both, shapes)
        assert player.has_free_places(shapes) is is_free is player.fast.figures()["free_places"]
    swapped = [replace(request, episode=both[0].episode) for request in both]
    for request, chunk in zip(swapped, player.mixed_actions(swapped, shapes), strict=True):
        assert np.array_equal(chunk, player.mixed_actions([request], shapes)[0])


def test_instructions_are_cut_to_a_multiple_of_words_that_holds_the_longest() -> None:
    mask = torch.zeros(2, 200, dtype=torch.bool)
    mask[0, :12], mask[1, :33] = True, True
    assert (fast_pi0.words(mask), fast_pi0.words(mask[:1]), fast_pi0.words(mask[:, :40])) == (64, 32, 40)


# faults

QUICK = ("an action offset", "another observation's keys and values")
FAULTS = [fault for fault in fast_faults.FAULTS if fault.wrap is not fast_faults.after_some_calls]


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, id=fault.title, marks=[] if fault.title in QUICK else pytest.mark.slow) for fault in FAULTS],
)
def test_a_fast_call_with_a_fault_is_never_used_and_exact_mode_answers(
    player_of: Made, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    player = player_of("pi0")
    exact = actions(player, None)
    fault.plant(monkeypatch)
    fast = calls_of(player)
    fast.steps = tuple(step for step in fast.steps if step not in fault.without)
    assert np.array_equal(actions(player, fast), exact)
    assert not fast.is_used and fast.steps == ()
    assert fast.reasons[-1].startswith("precision = fast, the exact mode answers: ")
    assert "differ" in fast.reasons[-1]
    player.fast = fast
    assert player.precision == "exact" and fast.reasons[-1] in player.fallbacks


@pytest.mark.slow
def test_a_step_that_fails_is_left_out_and_the_others_are_taken(
    player_of: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*words: Any) -> Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory\nmore words")

    player = player_of("pi0")
    monkeypatch.setattr(fast_pi0, "fused_attention", out_of_memory)
    fast = calls_of(player)
    fast.steps = ("attention", "cache")
    found = tolerance.difference(actions(player, None), actions(player, fast))
    assert fast.steps == ("cache",) and fast.is_used and found.largest < 1e-4 * found.size
    assert fast.reasons == ("precision = fast, without the step attention: OutOfMemoryError: CUDA out of memory",)


def test_a_policy_without_a_fast_mode_is_answered_in_exact_mode_with_the_reason(tiny_act: Path) -> None:
    player = runner(tiny_act, BATCH, SIDE, "cpu", "fast")
    assert player.fast is None and player.precision == "exact"
    assert player.fallbacks[-1] == "precision = fast, the exact mode answers: there is no fast mode of act"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_actions_that_are_no_numbers_are_beyond_every_tolerance(value: float) -> None:
    exact = np.ones((2, 7), np.float32)
    other = exact.copy()
    other[0, 0] = value
    assert tolerance.difference(exact, other).excess("bfloat16")


@pytest.mark.slow
def test_the_benchmark_of_rounding_measures_both_modes_against_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pi0.put(monkeypatch, vision_width=64)
    small_pi0.build(tmp_path / "pi0", "pi0", SIDE, dtype="bfloat16")
    words = ["rounding", str(tmp_path / "pi0"), "--device", "cpu", "--batches", "2", "--calls", "1"]
    monkeypatch.setattr("sys.argv", [*words, "--pixels", str(SIDE), "--output", str(tmp_path / "errors.json")])
    assert rounding.main() == 0
    (line,) = files.read_json(tmp_path / "errors.json")["lines"]
    errors = {name: line[name]["mean"] for name in ("exact", "fast", "between", "moved")}
    assert line["batch"] == 2 and all(0 < error < 0.02 for error in errors.values())
    assert errors["between"] <= errors["exact"] + errors["fast"]
    assert line["ratio"] == pytest.approx(errors["fast"] / errors["exact"])


@pytest.mark.slow
def test_calls_with_changing_inputs_and_an_empty_camera_are_compared_and_memory_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_pi0.put(monkeypatch, vision_width=64)
    small_pi0.build(tmp_path / "pi0", "pi0", SIDE)
    words = ["policy_calls", str(tmp_path / "pi0"), "--device", "cpu", "--batches", "1", "2", "--calls", "12"]
    words += ["--empty-cameras", "1", "--no-stages", "--pixels", str(SIDE), "--output", str(tmp_path / "calls.json")]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr(policy_calls, "TIMED", 1)
    assert policy_calls.main() == 0
    lines = json.loads((tmp_path / "calls.json").read_text())
    assert [(line["batch"], line["way"], line["differing"]) for line in lines] == [
        (batch, way, 0) for batch in (1, 2) for way in ("own", "exact", "fast")
    ]
    assert all(line["grown_mib"] < policy_calls.GROWN_MIB for line in lines)
    assert "1 empty cameras" in capsys.readouterr().out
