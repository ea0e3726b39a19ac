"""Fast mode of the resident engine: its actions beside exact ones, what it leaves out, and which faults it refuses."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi05 import modeling_pi05
from torch import Tensor

from benchmarks import rounding
from benchmarks.policy_calls import requests, runner
from fixtures import small_pi0, small_policy
from tracka.core import files
from tracka.engines import tolerance
from tracka.engines.resident import fast_calls, fast_pi0
from tracka.engines.resident.fast_calls import FastCalls
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


@pytest.mark.parametrize("step", [step for step in fast_pi0.STEPS if step != "compile"])
@pytest.mark.slow
def test_each_step_can_be_left_out(player_of: Made, step: str) -> None:
    player = player_of("pi0")
    fast = calls_of(player)
    fast.steps = tuple(each for each in fast.steps if each != step)
    found = tolerance.difference(actions(player, None), actions(player, fast))
    assert found.largest < 1e-4 * found.size and step not in fast.steps and fast.reasons == ()


def test_instructions_are_cut_to_a_multiple_of_words_that_holds_the_longest() -> None:
    mask = torch.zeros(2, 200, dtype=torch.bool)
    mask[0, :12], mask[1, :33] = True, True
    assert (fast_pi0.words(mask), fast_pi0.words(mask[:1]), fast_pi0.words(mask[:, :40])) == (64, 32, 40)


# faults

Fault = Callable[[pytest.MonkeyPatch], None]


def _changed(name: str, change: Callable[..., Any]) -> Fault:
    def plant(patch: pytest.MonkeyPatch) -> None:
        stock = getattr(fast_pi0.FastPi0, name)
        patch.setattr(fast_pi0.FastPi0, name, lambda self, *words: change(self, stock, *words))

    return plant


def _offset(forward: Any, stock: Any, inputs: Any, noise: Tensor) -> Tensor:
    moved: Tensor = stock(forward, inputs, noise) + 0.05
    return moved


def _other_noise(forward: Any, stock: Any, inputs: Any, noise: Tensor) -> Any:
    return stock(forward, inputs, noise.roll(1, 0))


def _no_mask(forward: Any, stock: Any, there: Tensor, caches: Any) -> Any:
    return stock(forward, torch.ones_like(there), caches)


def _later_place(forward: Any, stock: Any, noise: Tensor, context: Any) -> Any:
    return stock(forward, noise, context._replace(count=context.count + 20))


def _stale(forward: Any, stock: Any, inputs: Any, pictures: Any) -> Any:
    forward.kept = getattr(forward, "kept", None) or stock(forward, inputs, [each.flip(0) for each in pictures])
    return forward.kept


def _half_of_the_pictures(forward: Any, stock: Any, inputs: Any) -> Any:
    first, second, *rest = stock(forward, inputs)
    return [torch.cat([first[:1], second[1:]]), torch.cat([second[:1], first[1:]]), *rest][: 2 + len(rest)]


def _fewer_times(forward: Any, stock: Any, noise: Tensor, context: Any) -> Any:
    forward.times.count, forward.times.step = 1, -1.0
    return stock(forward, noise, context)


FAULTS = {
    "an action offset": _changed("__call__", _offset),
    "another episode's noise": _changed("__call__", _other_noise),
    "the mask dropped": _changed("_mask", _no_mask),
    "positions wrong": _changed("denoise", _later_place),
    "another observation's keys and values": _changed("read", _stale),
    "half of the pictures exchanged": _changed("pictures", _half_of_the_pictures),
    "fewer denoising steps": _changed("denoise", _fewer_times),
}


QUICK = ("an action offset", "another observation's keys and values")


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[] if fault in QUICK else pytest.mark.slow) for fault in FAULTS]
)
def test_a_fast_call_with_a_fault_is_never_used_and_exact_mode_answers(
    player_of: Made, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    player = player_of("pi0")
    exact = actions(player, None)
    FAULTS[fault](monkeypatch)
    fast = calls_of(player)
    if fault == "the mask dropped":
        fast.steps = tuple(step for step in fast.steps if step != "padding")  # which leaves little to mask
    assert np.array_equal(actions(player, fast), exact)
    assert not fast.is_used and fast.steps == ()
    assert fast.reasons[-1].startswith("precision = fast, the exact mode answers: ")
    assert "differ" in fast.reasons[-1]
    player.fast = fast
    assert player.precision == "exact" and fast.reasons[-1] in player.fallbacks


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
    small_pi0.put(monkeypatch)
    small_pi0.build(tmp_path / "pi0", "pi0", SIDE, dtype="bfloat16")
    words = ["rounding", str(tmp_path / "pi0"), "--device", "cpu", "--batches", "2", "--calls", "1"]
    monkeypatch.setattr("sys.argv", [*words, "--pixels", str(SIDE), "--output", str(tmp_path / "errors.json")])
    assert rounding.main() == 0
    (line,) = files.read_json(tmp_path / "errors.json")["lines"]
    errors = {name: line[name]["mean"] for name in ("exact", "fast", "between", "moved")}
    assert line["batch"] == 2 and all(0 < error < 0.02 for error in errors.values())
    assert errors["between"] <= errors["exact"] + errors["fast"]
    assert line["ratio"] == pytest.approx(errors["fast"] / errors["exact"])
