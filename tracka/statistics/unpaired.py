"""A candidate against a baseline on other episodes: two independent success rates.

All differences are the candidate's rate minus the baseline's. Up to 200 episodes an arm the test is Boschloo's
(Statistica Neerlandica 24, 1970), which rejects whatever Fisher's exact test rejects, and more. Above, it is the score
test. Boschloo's test orders the outcomes by Fisher's p-value. Its own p-value is the largest probability, over the
common rate, that Fisher's is no larger than the observed one. scipy has the same test; it takes a second where this
module takes a tenth, and does not give the region of rejection that `power` needs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, ndtr, xlog1py, xlogy

from .rate import Count, wilson
from .result import Alternative, Interval, PValue

Array = npt.NDArray[np.floating[Any]]
Table = npt.NDArray[np.int64]
EXACT_OUTCOMES = 200 * 200  # so many are enumerated; an arm of 20 may have 2,000 beside it, where a normal score errs
TIE = 1 + 1e-9  # p-values of which one is at most so much larger are equal: they differ by rounding alone
GRID: Array = np.linspace(0, 1, 513)  # common rates; two hundred episodes tell rates apart that differ by a few steps


def compare(candidate: Count, baseline: Count, alternative: Alternative = "two-sided") -> PValue:
    """Returns the test of equal rates: Boschloo's if all outcomes can be enumerated, otherwise the score test."""
    exact = enumerable(candidate.episodes, baseline.episodes)
    return (boschloo if exact else score)(candidate, baseline, alternative)


def enumerable(candidates: int, baselines: int) -> bool:
    """Returns whether the outcomes of so many episodes are few enough for Boschloo's test."""
    return candidates * baselines <= EXACT_OUTCOMES


def boschloo(candidate: Count, baseline: Count, alternative: Alternative = "two-sided") -> PValue:
    """Returns Boschloo's exact unconditional test. Two-sided: twice the smaller of the two one-sided values."""
    return PValue(_of_sides(_boschloo_less, candidate, baseline, alternative), alternative, "Boschloo exact")


def score(candidate: Count, baseline: Count, alternative: Alternative = "two-sided") -> PValue:
    """Returns the score test: the difference over its standard error at the common rate is taken as normal."""
    return PValue(_of_sides(_score_less, candidate, baseline, alternative), alternative, "score, pooled variance")


def newcombe(candidate: Count, baseline: Count, confidence: float = 0.95) -> Interval:
    """Returns the interval of the difference that squares and adds the arms of two Wilson intervals.

    Method 10 of Newcombe (Statistics in Medicine 17:873, 1998). It is -1 to 1 where an arm has no episode.
    """
    if not candidate.episodes or not baseline.episodes:
        return Interval(-1.0, 1.0, confidence, "Newcombe")
    ours, theirs = wilson(candidate, confidence), wilson(baseline, confidence)
    difference = candidate.rate - baseline.rate
    below = np.hypot(candidate.rate - ours.low, theirs.high - baseline.rate)
    above = np.hypot(ours.high - candidate.rate, baseline.rate - theirs.low)
    return Interval(float(difference - below), float(difference + above), confidence, "Newcombe")


def fisher_less(candidates: int, baselines: int) -> Array:
    """Returns Fisher's one-sided p-value that the candidate is worse, for all outcomes.

    The rows are the candidate's successes, the columns the baseline's. A value is the hypergeometric tail: given the
    successes of both arms together, the probability that the candidate has so few of them.
    """
    ours = np.arange(candidates + 1)[:, None]
    total = np.arange(candidates + baselines + 1)[None, :]
    theirs = total - ours
    possible = (theirs >= 0) & (theirs <= baselines)
    weight = _log_choose(candidates, ours) + _log_choose(baselines, np.where(possible, theirs, 0))
    weight -= _log_choose(candidates + baselines, total)
    tail = np.cumsum(np.exp(np.where(possible, weight, -np.inf)), axis=0)
    return np.asarray(np.minimum(1.0, tail[ours, ours + np.arange(baselines + 1)[None, :]]))


def first_columns(region: npt.NDArray[np.bool_]) -> Table:
    """Returns for each row of a region the first column in it, or the number of columns.

    A region of outcomes that speak for a worse candidate holds all columns from the first one on: with more successes
    of the baseline the candidate looks worse still.
    """
    return np.asarray(region.shape[1] - region.sum(axis=1))


def region_probability(first: Table, ours: Array, theirs: Array) -> Array:
    """Returns the probability of a region for each column of the two arms' probabilities of their successes."""
    tails = np.cumsum(theirs[::-1], axis=0)[::-1]
    return np.asarray((ours * np.vstack([tails, np.zeros_like(tails[:1])])[first]).sum(axis=0))


def binomial(episodes: int, rates: Array) -> Array:
    """Returns the probability of each number of successes (rows) at each rate (columns)."""
    successes = np.arange(episodes + 1)[:, None]
    log = _log_choose(episodes, successes) + xlogy(successes, rates) + xlog1py(episodes - successes, -rates)
    return np.asarray(np.exp(log))


def largest_probability(first: Table, baselines: int) -> float:
    """Returns the largest probability of a region over all common rates: the best of a grid, then of a finer one."""
    rates, largest = GRID, 0.0
    for _ in range(3):
        chances = region_probability(first, binomial(len(first) - 1, rates), binomial(baselines, rates))
        at, step, largest = (
            float(rates[chances.argmax()]),
            float(rates[1] - rates[0]),
            max(largest, float(chances.max())),
        )
        rates = np.linspace(max(0.0, at - step), min(1.0, at + step), 33)
    return min(1.0, largest)


def score_less(ours: Any, candidates: int, theirs: Any, baselines: int) -> Any:
    """Returns the score test's one-sided p-value that the candidate is worse, of arrays of successes.

    Where all episodes of both arms succeed, or none does, the difference is 0, and the p-value 1/2.
    """
    common = (ours + theirs) / (candidates + baselines)
    error = np.sqrt(common * (1 - common) * (1 / candidates + 1 / baselines))
    return ndtr((ours / candidates - theirs / baselines) / np.maximum(error, np.finfo(float).tiny))


def _boschloo_less(candidate: Count, baseline: Count) -> float:
    values = fisher_less(candidate.episodes, baseline.episodes)
    region = values <= values[candidate.successes, baseline.successes] * TIE
    return largest_probability(first_columns(region), baseline.episodes)


def _score_less(candidate: Count, baseline: Count) -> float:
    return float(score_less(candidate.successes, candidate.episodes, baseline.successes, baseline.episodes))


def _of_sides(
    less: Callable[[Count, Count], float], candidate: Count, baseline: Count, alternative: Alternative
) -> float:
    """Returns the p-value of an alternative by a test that the candidate is worse, 1 where an arm has no episode."""
    if not candidate.episodes or not baseline.episodes:
        return 1.0
    if alternative == "two-sided":
        return min(1.0, 2 * min(less(candidate, baseline), less(baseline, candidate)))
    return less(candidate, baseline) if alternative == "less" else less(baseline, candidate)


def _log_choose(n: int, k: Any) -> Any:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
