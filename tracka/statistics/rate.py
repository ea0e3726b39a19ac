"""One success rate against a threshold: exact bounds, and a verdict that may say that the episodes are too few.

The bounds are those of Clopper and Pearson (Biometrika 26, 1934). A rate passes if its one-sided lower bound reaches
the threshold, and fails if its one-sided upper bound is below. `passes` and `fails` decide by the binomial tails that
define these bounds, for arrays of counts too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import bdtr, bdtrc, betaincinv, ndtri

from .result import Interval

Outcome = Literal["pass", "fail", "underpowered", "invalid"]
MOST_EPISODES = 20_000  # no advice beyond: twice the episodes of the largest suite, LIBERO-plus
SLACK = 1e-12  # a tail that equals the level but for rounding is equal: 0 of 1 neither passes nor fails 95% at 95%
ONE_SIDED = "exact binomial, one-sided Clopper-Pearson bounds"


@dataclass(frozen=True)
class Count:
    """How many of some episodes succeeded. Raises ValueError if that cannot be."""

    successes: int
    episodes: int

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.episodes:
            raise ValueError(f"{self.successes} of {self.episodes} episodes cannot have succeeded")

    @property
    def rate(self) -> float:
        """The share of the episodes that succeeded; not a number where there are no episodes."""
        return self.successes / self.episodes if self.episodes else float("nan")


@dataclass(frozen=True)
class RateVerdict:
    """What is known of a rate against a threshold.

    `low` and `high` are one-sided bounds at `confidence` each, `low` with all lost episodes counted as failures and
    `high` with all counted as successes. If these two ways of counting lead to two outcomes, the outcome is invalid.
    `more_episodes` is how many more would decide at the observed rate, 0 if they are enough, None if no number up to
    MOST_EPISODES would. `least_to_pass` is the smallest number of episodes that passes if all succeed.
    """

    count: Count
    lost: int
    threshold: float
    confidence: float
    low: float
    high: float
    lost_as_failures: Outcome
    lost_as_successes: Outcome
    more_episodes: int | None
    least_to_pass: int | None
    method: str = ONE_SIDED

    @property
    def outcome(self) -> Outcome:
        """pass, fail or underpowered; invalid if it depends on the lost episodes."""
        return self.lost_as_failures if self.lost_as_failures == self.lost_as_successes else "invalid"

    @property
    def can_pass(self) -> bool:
        """Whether so many episodes would pass if all had succeeded."""
        return self.least_to_pass is not None and self.count.episodes + self.lost >= self.least_to_pass

    @property
    def coverage(self) -> float:
        """The share of the episodes that were played; not a number where there are none."""
        return Count(self.count.episodes, self.count.episodes + self.lost).rate


def verdict(count: Count, threshold: float, confidence: float = 0.95, lost: int = 0) -> RateVerdict:
    """Returns the verdict on `count`, beside which `lost` episodes have no outcome.

    Raises ValueError for a threshold that is not above 0 and at most 1, since every rate reaches 0, and for less than
    no lost episode.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold {threshold} is not above 0 and at most 1")
    if lost < 0:
        raise ValueError(f"{lost} episodes cannot be lost")
    worst = Count(count.successes, count.episodes + lost)
    best = Count(count.successes + lost, count.episodes + lost)
    return RateVerdict(
        count=count,
        lost=lost,
        threshold=threshold,
        confidence=confidence,
        low=lower_bound(worst, confidence),
        high=upper_bound(best, confidence),
        lost_as_failures=outcome(worst, threshold, confidence),
        lost_as_successes=outcome(best, threshold, confidence),
        more_episodes=_more_episodes(count, threshold, confidence),
        least_to_pass=least_to_pass(threshold, confidence),
    )


def outcome(count: Count, threshold: float, confidence: float = 0.95) -> Outcome:
    """Returns pass, fail or underpowered, where no episode is lost."""
    if passes(count.successes, count.episodes, threshold, confidence):
        return "pass"
    return "fail" if fails(count.successes, count.episodes, threshold, confidence) else "underpowered"


def lower_bound(count: Count, confidence: float = 0.95) -> float:
    """Returns the one-sided lower bound: the quantile 1 - confidence of Beta(successes, failures + 1), or 0."""
    if not count.successes:
        return 0.0
    return float(betaincinv(count.successes, count.episodes - count.successes + 1, 1 - confidence))


def upper_bound(count: Count, confidence: float = 0.95) -> float:
    """Returns the one-sided upper bound: the quantile confidence of Beta(successes + 1, failures), or 1."""
    if count.successes == count.episodes:
        return 1.0
    return float(betaincinv(count.successes + 1, count.episodes - count.successes, confidence))


def clopper_pearson(count: Count, confidence: float = 0.95) -> Interval:
    """Returns the exact two-sided interval: both one-sided bounds, each at half the error."""
    each = (1 + confidence) / 2
    return Interval(lower_bound(count, each), upper_bound(count, each), confidence, "Clopper-Pearson")


def wilson(count: Count, confidence: float = 0.95) -> Interval:
    """Returns the score interval of Wilson (JASA 22, 1927), for display: on average, not always, it covers enough.

    It holds the rates p with (observed - p)^2 <= z^2 p (1 - p) / episodes. Without episodes it is 0 to 1.
    """
    if not count.episodes:
        return Interval(0.0, 1.0, confidence, "Wilson")
    z = float(ndtri((1 + confidence) / 2))
    spread = z * z / count.episodes
    middle = (count.rate + spread / 2) / (1 + spread)
    half = np.sqrt(spread * (count.rate * (1 - count.rate) + spread / 4)) / (1 + spread)
    low = 0.0 if count.successes == 0 else float(middle - half)
    high = 1.0 if count.successes == count.episodes else float(middle + half)
    return Interval(low, high, confidence, "Wilson")


def passes(successes: Any, episodes: Any, threshold: float, confidence: float = 0.95) -> Any:
    """Returns whether the lower bound reaches the threshold: P(X >= successes) <= 1 - confidence at the threshold."""
    return bdtrc(np.asarray(successes) - 1.0, episodes, threshold) <= (1 - confidence) * (1 + SLACK)


def fails(successes: Any, episodes: Any, threshold: float, confidence: float = 0.95) -> Any:
    """Returns whether the upper bound is below the threshold: P(X <= successes) < 1 - confidence at the threshold."""
    return bdtr(np.asarray(successes, dtype=float), episodes, threshold) < (1 - confidence) * (1 - SLACK)


def p_pass(count: Count, threshold: float) -> float:
    """Returns P(X >= successes) at the threshold: a small value says that the rate is above the threshold."""
    return float(bdtrc(count.successes - 1.0, count.episodes, threshold)) if count.successes else 1.0


def p_fail(count: Count, threshold: float) -> float:
    """Returns P(X <= successes) at the threshold: a small value says that the rate is below the threshold."""
    return float(bdtr(float(count.successes), count.episodes, threshold))


def least_to_pass(threshold: float, confidence: float = 0.95) -> int | None:
    """Returns the smallest number of episodes that passes if all succeed, None if no number up to MOST_EPISODES does.

    It is the least n with threshold^n <= 1 - confidence; the threshold 1 has none.
    """
    return next((int(n[ok][0]) for n in growing(1) if (ok := passes(n, n, threshold, confidence)).any()), None)


def least_successes(episodes: int, threshold: float, confidence: float = 0.95) -> int | None:
    """Returns the smallest number of successes with which `episodes` pass, None if even all do not."""
    successes = np.arange(episodes + 1)
    passing = successes[passes(successes, episodes, threshold, confidence)]
    return int(passing[0]) if passing.size else None


def growing(first: int) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Yields the numbers from `first` to MOST_EPISODES in blocks that double, so that a small answer comes early."""
    size = 64
    while first <= MOST_EPISODES:
        yield np.arange(first, min(first + size, MOST_EPISODES + 1))
        first, size = first + size, 2 * size


def _more_episodes(count: Count, threshold: float, confidence: float) -> int | None:
    """Returns how many more episodes would decide at the observed rate, its successes rounded to the undecided side."""
    if outcome(count, threshold, confidence) != "underpowered":
        return 0
    if not count.episodes:
        return None
    for n in growing(count.episodes):
        floor, rest = np.divmod(n * count.successes, count.episodes)
        decided = passes(floor, n, threshold, confidence) | fails(floor + (rest > 0), n, threshold, confidence)
        if decided.any():
            return int(n[decided][0]) - count.episodes
    return None
