"""Evidence that may be looked at after every episode: e-processes, and the stop that arithmetic allows.

An e-process is the stake of a bet against a hypothesis, which is not expected to grow while the hypothesis is true. So
the chance that it ever reaches 1 / alpha is at most alpha (Ville 1939), whatever the rule of stopping. The bets here
mix the likelihood ratios of all rates on one side of a threshold by a Beta distribution truncated to that side
(Robbins, Annals of Mathematical Statistics 41, 1970), which has a closed form in the counts alone. For a rate the
distribution is uniform, which refuses bad policies sooner than Beta(1/2, 1/2), the one for pairs. All values are
logarithms.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import betaincc, betaln, xlog1py, xlogy

from .result import Alternative

Array = npt.NDArray[np.float64]
Decision = Literal["pass", "fail", "worse", "better", "continue"]
RATE_SHAPE, PAIRED_SHAPE = 1.0, 0.5
BOUND_PRECISION = 1e-4  # of a rate; a bound is rounded to the safe side
SMALL = 1e-200  # a share of the Beta distribution that betaincc still has in full; it ends at 1e-308


@dataclass(frozen=True)
class RateEvidence:
    """The evidence of the episodes so far that a rate is above or below a threshold.

    Raises ValueError for a threshold that is not between 0 and 1: no bet is possible on a certain outcome.
    """

    threshold: float
    successes: int = 0
    failures: int = 0
    method: str = "e-process, truncated uniform mixture"

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"the threshold {self.threshold} is not between 0 and 1")

    def after(self, success: bool) -> "RateEvidence":
        """Returns the evidence with one more episode."""
        return RateEvidence(self.threshold, self.successes + success, self.failures + (not success))

    @property
    def log_e_pass(self) -> float:
        """The logarithm of the evidence against a rate of at most the threshold."""
        return float(log_e_above(self.successes, self.failures, self.threshold))

    @property
    def log_e_fail(self) -> float:
        """The logarithm of the evidence against a rate of at least the threshold."""
        return float(log_e_below(self.successes, self.failures, self.threshold))

    def decision(self, alpha: float = 0.05) -> Decision:
        """Returns what may be said now. A decision stands: the caller stops at the first one that is not continue."""
        if self.log_e_pass >= -log(alpha):
            return "pass"
        return "fail" if self.log_e_fail >= -log(alpha) else "continue"


@dataclass(frozen=True)
class PairedEvidence:
    """The evidence of the pairs so far that a candidate is worse or better than its baseline."""

    gains: int = 0
    losses: int = 0
    method: str = "paired e-process, Beta(1/2, 1/2) mixture"

    def after(self, candidate: bool, baseline: bool) -> "PairedEvidence":
        """Returns the evidence with one more pair. A pair with equal outcomes changes nothing."""
        return PairedEvidence(self.gains + (candidate and not baseline), self.losses + (baseline and not candidate))

    def log_e(self, alternative: Alternative = "two-sided") -> float:
        """Returns the logarithm of the evidence for a worse (less), a better (greater) or another candidate."""
        if alternative == "two-sided":
            return float(log_e_unequal(self.gains, self.losses))
        more, fewer = (self.losses, self.gains) if alternative == "less" else (self.gains, self.losses)
        return float(log_e_above(more, fewer, 0.5, PAIRED_SHAPE))

    def decision(self, alpha: float = 0.05, alternative: Alternative = "two-sided") -> Decision:
        """Returns what may be said now. A decision stands: the caller stops at the first one that is not continue."""
        if self.log_e(alternative) < -log(alpha):
            return "continue"
        return "worse" if self.losses > self.gains else "better"


@dataclass(frozen=True)
class Stop:
    """The first decision of a sequence, and after how many outcomes; continue if there was none."""

    decision: Decision
    looks: int
    evidence: RateEvidence | PairedEvidence


def first_rate_decision(outcomes: Iterable[bool], threshold: float, alpha: float = 0.05) -> Stop:
    """Returns where the outcomes of episodes, in their order, first decide whether their rate is above a threshold."""
    evidence, looks = RateEvidence(threshold), 0
    for looks, outcome in enumerate(outcomes, 1):
        evidence = evidence.after(outcome)
        if (decision := evidence.decision(alpha)) != "continue":
            return Stop(decision, looks, evidence)
    return Stop("continue", looks, evidence)


def first_paired_decision(
    pairs: Iterable[tuple[bool, bool]], alpha: float = 0.05, alternative: Alternative = "two-sided"
) -> Stop:
    """Returns where pairs of outcomes, the candidate's first, in their order first decide between the policies."""
    evidence, looks = PairedEvidence(), 0
    for looks, (candidate, baseline) in enumerate(pairs, 1):
        evidence = evidence.after(candidate, baseline)
        if (decision := evidence.decision(alpha, alternative)) != "continue":
            return Stop(decision, looks, evidence)
    return Stop("continue", looks, evidence)


@lru_cache(maxsize=4096)
def upper_rate(outcomes: tuple[bool, ...], alpha: float = 0.05) -> float:
    """Returns an upper bound of the rate that held after each of the outcomes at once, with chance 1 - alpha.

    A rate above the bound is refused by `log_e_below` after some outcome. That evidence grows with the rate: for a
    rate p, p d(log E)/dp = 1/E - 1 + failures p / (1 - p) - successes, which is 0 at p = 0, and which cannot fall from
    above 0 to below it, since its last terms grow and 1/E does not change where it is 0.
    """
    won = np.cumsum(outcomes, dtype=float)
    lost = np.arange(1, len(outcomes) + 1) - won
    low, high = 0.0, 1.0
    while lost.any() and high - low > BOUND_PRECISION:
        rate = (low + high) / 2
        refused = bool((log_e_below(won, lost, rate) >= -log(alpha)).any())
        low, high = (low, rate) if refused else (rate, high)
    return high


def lower_rate(outcomes: tuple[bool, ...], alpha: float = 0.05) -> float:
    """Returns a lower bound of the rate; as `upper_rate`."""
    return 1 - upper_rate(tuple(not outcome for outcome in outcomes), alpha)


def settled[T](successes: int, failures: int, remaining: int, judge: Callable[[int, int], T]) -> T | None:
    """Returns the final outcome if the `remaining` episodes can no longer change it, otherwise None.

    `judge` takes the successes and the episodes at the end. More successes must not make its outcome worse. Then the
    outcome is settled if it is the same whether all remaining episodes fail or all succeed.
    """
    episodes = successes + failures + remaining
    worst, best = judge(successes, episodes), judge(successes + remaining, episodes)
    return worst if worst == best else None


def log_e_above(successes: Any, failures: Any, threshold: float, shape: float = RATE_SHAPE) -> Array:
    """Returns log E against a rate of at most the threshold p0, of arrays of counts.

    E is the mean of p^successes (1 - p)^failures over Beta(shape, shape) truncated to (p0, 1), over its value at p0.
    """
    won, lost = np.asarray(successes, dtype=float), np.asarray(failures, dtype=float)
    mixture = _log_beta_above(won + shape, lost + shape, threshold) - _log_beta_above(shape, shape, threshold)
    return np.asarray(mixture - xlogy(won, threshold) - xlog1py(lost, -threshold))


def log_e_below(successes: Any, failures: Any, threshold: float, shape: float = RATE_SHAPE) -> Array:
    """Returns log E against a rate of at least the threshold, of arrays of counts."""
    return log_e_above(failures, successes, 1 - threshold, shape)


def log_e_unequal(gains: Any, losses: Any) -> Array:
    """Returns log E against equal chances of gains and losses: B(a + 1/2, b + 1/2) / B(1/2, 1/2) * 2^(a + b)."""
    a, b = np.asarray(gains, dtype=float) + PAIRED_SHAPE, np.asarray(losses, dtype=float) + PAIRED_SHAPE
    return np.asarray(betaln(a, b) - betaln(PAIRED_SHAPE, PAIRED_SHAPE) + (a + b - 2 * PAIRED_SHAPE) * log(2))


def _log_beta_above(a: Any, b: Any, x: float) -> Array:
    """Returns the logarithm of the integral of t^(a - 1) (1 - t)^(b - 1) over t from x to 1.

    Where its share of the whole integral is too small for a float, it is taken from a series instead.
    """
    a, b = np.broadcast_arrays(a, b)
    share = np.asarray(betaincc(a, b, x))
    with np.errstate(divide="ignore"):
        result = np.asarray(betaln(a, b) + np.log(share))
    small = share < SMALL
    result[small] = _log_beta_series(a[small], b[small], x)
    return result


def _log_beta_series(a: Array, b: Array, x: float) -> Array:
    """Returns the same by x^a (1 - x)^b / b times a hypergeometric series (DLMF 8.17.8), far above the mode.

    Each term is the one before times (1 - x) (a + b + k) / (b + 1 + k), which is between 0 and 1 there from the first
    on. scipy's hyp2f1 is wrong there: by a factor of e^500 for 3,000 successes and 3,000 failures.
    """
    term, total, k = np.ones_like(a), np.ones_like(a), 0
    while (term > 1e-17 * total).any():
        term = term * (1 - x) * (a + b + k) / (b + 1 + k)
        total, k = total + term, k + 1
    return np.asarray(a * log(x) + b * np.log1p(-x) - np.log(b) + np.log(total))
