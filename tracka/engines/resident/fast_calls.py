"""Answers a policy's calls in fast mode, by steps that were held against the policy's own call.

Fast mode computes the same function by other kernels, so its actions differ from the policy's own by rounding. A step
that fails, or by which actions differ by more than the tolerance, is left out; where nothing is left, the policy's own
call answers.

Guarantees: the fast call answers inputs of some shapes only after it has been compared with the policy's own call on
the first inputs of these shapes; `reasons` says what was left out and why.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import tolerance
from ..tolerance import ActionDifference
from . import fast_pi0, fast_smolvla
from .fast_compiler import compiled
from .fast_pi0 import words as words
from .graphs import Call, GraphedCalls, Inputs, Recorder, Signature, signature_of

CALLS_UNTIL_GRAPH = 3  # a graph is recorded by the first call of some shapes, proven by the second, and then answers
NOISE = "noise"  # the name of given noise among the inputs of a call


class FastForward(Protocol):
    """A policy's call as fast mode computes it. `is_plain`: it makes no tensors from Python numbers."""

    dtype: torch.dtype
    is_plain: bool

    def prepared(self, inputs: Inputs) -> dict[str, Tensor]:
        """Returns the inputs in the shapes that the call computes with."""

    def __call__(self, inputs: Inputs, noise: Tensor) -> Tensor:
        """Returns actions of shape (observations, chunk, numbers of an action)."""


Maker = Callable[[frozenset[str]], FastForward]
MAKERS: Mapping[str, tuple[Any, Mapping[str, str]]] = {
    "pi0": (fast_pi0.FastPi0, fast_pi0.STEPS),
    "pi05": (fast_pi0.FastPi0, fast_pi0.STEPS),
    "smolvla": (fast_smolvla.FastSmolVLA, fast_smolvla.STEPS),
}


def unavailable(policy: Any, is_mixing: bool, is_compiled_or_amp: bool) -> str:
    """Returns why a policy cannot be asked in fast mode; an empty string where it can."""
    if policy.name not in MAKERS:
        return f"there is no fast mode of {policy.name}"
    if not is_mixing:
        return "the policy is asked in lockstep"
    return "compile or use_amp is set" if is_compiled_or_amp else ""


def steps_of(name: str, is_on_gpu: bool) -> tuple[str, ...]:
    """Returns the steps of a policy type's fast mode; some are for a GPU alone."""
    return tuple(step for step in MAKERS[name][1] if is_on_gpu or step not in fast_pi0.ON_GPU)


def fast_calls(policy: Any, device: str, chunk: int, with_graphs: bool) -> "FastCalls":
    """Returns what answers the calls of a policy of a type in MAKERS."""
    forward_class, _ = MAKERS[policy.name]
    is_on_gpu = device.partition(":")[0] == "cuda"
    recorder = Recorder(policy, device, is_plain=forward_class.is_plain) if with_graphs and is_on_gpu else None
    steps = steps_of(policy.name, is_on_gpu)
    calls = FastCalls(lambda taken: forward_class(policy, taken, compiled), steps, chunk, recorder)
    calls.cuts_by_task = policy.name == "pi0"
    return calls


class FastCalls:
    """Answers calls of one policy in fast mode. `make` makes the fast call of a set of steps.

    `steps` are those that are taken, all at first; `differences` has the size of what they changed, one for each set
    of shapes; `seconds` is the time that comparing took. `cuts_by_task` says whether the task alone decides by how much
    instructions are cut.
    """

    cuts_by_task = False

    def __init__(
        self, make: Maker, steps: Sequence[str], chunk: int, record: Callable[[Call, Inputs], Call] | None = None
    ) -> None:
        self.steps, self.chunk = tuple(steps), chunk
        self.differences: list[ActionDifference] = []
        self.seconds = 0.0
        self._reasons: list[str] = []
        self._make = make
        self._forward: FastForward | None = None
        self._is_chosen = False
        self._accepted: dict[Signature, bool] = {}
        self._free: dict[Signature, bool] = {}
        self.has_free_places = False  # whether numbers of the last call depend on no place in it
        self.graphs = GraphedCalls(self.actions, record, self._agrees) if record else None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Returns what was left out or is computed in a slower way, and why."""
        return (*self._reasons, *(self.graphs.reasons if self.graphs else ()))

    @property
    def is_used(self) -> bool:
        """Returns whether fast calls answer, as far as is known by now."""
        return any(self._accepted.values())

    def __call__(self, inputs: Inputs, own_call: Callable[[], Tensor]) -> Tensor | None:
        """Returns the actions for these inputs; None where the policy's own call must answer."""
        if not self._is_chosen:
            with self._counted_seconds():
                self._choose(inputs, own_call())
        if self._forward is None:
            return None
        prepared = self._forward.prepared(inputs)
        signature = signature_of(prepared)
        if signature not in self._accepted:
            with self._counted_seconds():
                self._accept(inputs, own_call())
        if not self._accepted[signature]:
            return None
        if signature not in self._free:
            with self._counted_seconds():
                self._free[signature] = self._depends_on_no_place(prepared)
        self.has_free_places = self._free[signature]
        actions = self._answer(prepared)
        return actions if self._is_finite(actions, signature) else None

    def _answer(self, prepared: Inputs) -> Tensor:
        return self.graphs(prepared, lambda: self.actions(prepared)) if self.graphs else self.actions(prepared)

    def _depends_on_no_place(self, prepared: Inputs) -> bool:
        """Returns whether each observation of these inputs has the same bits of actions at every place of the call."""
        for _ in range(CALLS_UNTIL_GRAPH):
            actions = self._answer(prepared)
        count = actions.shape[0]
        return all(
            torch.equal(self._answer(rolled(prepared, by, count)), actions.roll(by, 0)) for by in range(1, count)
        )

    def _is_finite(self, actions: Tensor, signature: Signature) -> bool:
        """Returns whether all actions are numbers; if not, exact mode answers this call and all of its shapes."""
        is_finite = bool(torch.isfinite(actions).all())
        if not is_finite:
            self._accepted[signature] = False
            self._note(f"the exact mode answers {actions.shape[0]} observations a call: an action was no number")
        return is_finite

    def figures(self) -> dict[str, Any]:
        """Returns what timings.json says of fast mode; differences are in units of the mean size of exact actions."""
        scales = [max(each.size, tolerance.LEAST_SIZE) for each in self.differences]
        pairs = list(zip(self.differences, scales, strict=True))
        return {
            "steps": list(self.steps),
            "type": kind_of(self._forward) if self._forward else "float32",  # that decides the tolerance
            "seconds": round(self.seconds, 3),
            "mean_difference": max((each.mean / scale for each, scale in pairs), default=None),
            "largest_difference": max((each.largest / scale for each, scale in pairs), default=None),
            "free_places": bool(self._free) and all(self._free.values()),
        }

    def actions(self, prepared: Inputs) -> Tensor:
        """Returns the fast call's own actions for inputs that it has prepared."""
        assert self._forward is not None
        return answered(self._forward, prepared, self.chunk)

    @contextlib.contextmanager
    def _counted_seconds(self) -> Iterator[None]:
        """Counts the seconds of the block as those of comparing."""
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start

    def _choose(self, inputs: Inputs, exact: Tensor) -> None:
        """Takes all steps where they are right together, else those that are right one after the other."""
        self._is_chosen = True
        wanted = self.steps
        if not self._take(wanted, inputs, exact):
            return
        if why := self._take((), inputs, exact):
            self._note(f"the exact mode answers: {why}")
            return
        for step in wanted:
            if why := self._take((*self.steps, step), inputs, exact):
                self._note(f"without the step {step}: {why}")
                self._take(self.steps, inputs, exact)

    def _take(self, steps: Sequence[str], inputs: Inputs, exact: Tensor) -> str:
        """Takes these steps if the call that they make is right; returns why it is not."""
        self._forward = None  # its copies of weights are freed before others are made
        self._accepted.clear()
        try:
            self._forward = self._make(frozenset(steps))
            why = self._compared(self._forward, inputs, exact)
            signature = signature_of(self._forward.prepared(inputs))
        except Exception as error:  # whatever stops it, a call without the step answers
            why = _failure(error)
        if why:
            self._forward = None
            self.steps = () if not steps else self.steps
            return why
        self.steps, self._accepted[signature] = tuple(steps), True
        return ""

    def _accept(self, inputs: Inputs, exact: Tensor) -> None:
        """Compares the chosen steps on the first inputs of some shapes."""
        assert self._forward is not None
        try:
            why = self._compared(self._forward, inputs, exact)
        except Exception as error:
            why = _failure(error)
        self._accepted[signature_of(self._forward.prepared(inputs))] = not why
        if why:
            self._note(f"the exact mode answers {exact.shape[0]} observations a call: {why}")

    def _compared(self, forward: FastForward, inputs: Inputs, exact: Tensor) -> str:
        actions = answered(forward, forward.prepared(inputs), self.chunk)
        found = difference_of(exact, actions)
        why = found.excess(kind_of(forward))
        if not why:
            self.differences.append(found)
        return why

    def _agrees(self, one: Tensor, other: Tensor) -> bool:
        return self._forward is not None and not difference_of(one, other).excess(kind_of(self._forward))

    def _note(self, text: str) -> None:
        self._reasons.append(f"precision = fast, {text}")
        logging.warning("fallback: %s", self._reasons[-1])


def answered(forward: FastForward, inputs: Inputs, chunk: int) -> Tensor:
    """Returns a fast call's actions for prepared inputs, of which the noise is one."""
    rest = dict(inputs)
    return forward(rest, rest.pop(NOISE))[:, :chunk]


def rolled(inputs: Inputs, by: int, count: int) -> dict[str, Tensor]:
    """Returns inputs whose `count` observations have moved by so many places."""
    return {name: value.roll(by, 0) if value.shape[:1] == (count,) else value for name, value in inputs.items()}


def kind_of(forward: FastForward) -> str:
    """Returns the type that a fast call computes in, by its name in the tolerance."""
    return "bfloat16" if forward.dtype in (torch.bfloat16, torch.float16) else "float32"


def difference_of(exact: Tensor, other: Tensor) -> ActionDifference:
    """Returns the difference of the actions `other` from the actions `exact`."""
    return tolerance.difference(exact.float().cpu().numpy(), other.float().cpu().numpy())


def _failure(error: Exception) -> str:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
