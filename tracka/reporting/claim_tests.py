"""Tests the claims of a campaign's `[verdict]`: a rate against its threshold, or a policy against the baseline.

Each claim is tested twice, with all lost episodes counted as failures and with all counted as successes. Where the two
lead to two outcomes, the claim is invalid: what was lost could turn it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..statistics import rate, tasks
from ..statistics.rate import SLACK, Count, Outcome
from ..statistics.result import PValue


@dataclass(frozen=True)
class Tails:
    """The p-values of one claim: small ones speak for a pass, or for a fail."""

    passing: float
    failing: float


@dataclass(frozen=True)
class Tested:
    """A claim's outcomes, by how its lost episodes count, and its adjusted p-value of a fail.

    The p-values are those of the counting that speaks against them: lost episodes as failures for a pass.
    """

    lost_as_failures: Outcome
    lost_as_successes: Outcome
    p_pass: float
    p_fail: float

    @property
    def outcome(self) -> Outcome:
        """pass, fail or underpowered; invalid if it depends on the lost episodes."""
        return self.lost_as_failures if self.lost_as_failures == self.lost_as_successes else "invalid"


def rate_tails(count: Count, threshold: float) -> Tails:
    """Returns the exact binomial tails of a count at a threshold."""
    return Tails(rate.p_pass(count, threshold), rate.p_fail(count, threshold))


def bound_tails(lower: Callable[[float], float], upper: Callable[[float], float], limit: float) -> Tails:
    """Returns the p-values that invert one-sided bounds, which `lower` and `upper` give for a confidence.

    A claim passes at a confidence if its lower bound is above `limit`, and fails if its upper bound is below.
    """
    return Tails(_inverted(lambda c: lower(c) > limit), _inverted(lambda c: upper(c) < limit))


def _inverted(is_shown: Callable[[float], bool]) -> float:
    """Returns the smallest 1 - confidence at which a bound shows something, at most 0.5."""
    low, high = 0.51, 1 - 1e-9  # at 0.5 both bounds are the observed difference
    if not is_shown(low):
        return 0.5
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if is_shown(middle) else (low, middle)
    return 1 - low


class Counted(Protocol):
    """A claim with its lost episodes counted as failures, and as successes."""

    @property
    def worst(self) -> Tails: ...

    @property
    def best(self) -> Tails: ...


def judge(claims: Sequence[Counted], alpha_pass: float, alpha_fail: float) -> list[Tested]:
    """Returns each claim's outcomes.

    A claim passes at `alpha_pass` alone: a campaign passes only with all its claims, so none needs to be adjusted. It
    fails at `alpha_fail` adjusted by Holm for all claims, since one is enough for the campaign to fail.
    """
    as_failures = _outcomes([claim.worst for claim in claims], alpha_pass, alpha_fail)
    as_successes = _outcomes([claim.best for claim in claims], alpha_pass, alpha_fail)
    return [
        Tested(failures, successes, claim.worst.passing, adjusted)
        for (failures, _), (successes, adjusted), claim in zip(as_failures, as_successes, claims, strict=True)
    ]


def _outcomes(tails: Sequence[Tails], alpha_pass: float, alpha_fail: float) -> list[tuple[Outcome, float]]:
    adjusted = [value.value for value in tasks.holm([PValue(each.failing, "less", "") for each in tails])]
    return [
        (_outcome(each.passing, p_fail, alpha_pass, alpha_fail), p_fail)
        for each, p_fail in zip(tails, adjusted, strict=True)
    ]


def _outcome(p_pass: float, p_fail: float, alpha_pass: float, alpha_fail: float) -> Outcome:
    if p_pass <= alpha_pass * (1 + SLACK):
        return "pass"
    return "fail" if p_fail < alpha_fail * (1 - SLACK) else "underpowered"


def campaign_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """Returns the outcome of a campaign with these claims: fail, else invalid, else underpowered, else pass."""
    order: tuple[Outcome, ...] = ("fail", "invalid", "underpowered")
    return next((outcome for outcome in order if outcome in outcomes), "pass")
