"""A candidate against a baseline on the same episodes: pairs of equal task, init state and seed.

Only discordant pairs speak: gains, where the candidate alone succeeds, and losses, where the baseline alone does. All
differences are the candidate's rate minus the baseline's, (gains - losses) / pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from scipy.optimize import brentq
from scipy.special import bdtr, ndtri

from .result import Alternative, Interval, PValue

NEAR = 1e-12  # so near an end of (-1, 1) no root is sought: the score is 0 / 0 there


@dataclass(frozen=True)
class Pairs:
    """How many of some pairs were gains and losses. Raises ValueError if that cannot be."""

    gains: int
    losses: int
    pairs: int

    def __post_init__(self) -> None:
        if min(self.gains, self.losses) < 0 or self.gains + self.losses > self.pairs:
            raise ValueError(f"{self.pairs} pairs cannot have {self.gains} gains and {self.losses} losses")

    @property
    def discordant(self) -> int:
        """The pairs of which one alone succeeds."""
        return self.gains + self.losses


@dataclass(frozen=True)
class NonInferiority:
    """Whether a candidate is at most `margin` worse: whether the one-sided lower bound is above -margin."""

    non_inferior: bool
    margin: float
    bound: float
    confidence: float
    method: str = "Tango score, one-sided"


def mcnemar(pairs: Pairs, alternative: Alternative = "two-sided") -> PValue:
    """Returns the exact conditional test: given the discordant pairs, the gains are Binomial(discordant, 1/2).

    McNemar (Psychometrika 12, 1947). Two-sided: twice the smaller tail, at most 1.
    """
    tail = {"less": pairs.gains, "greater": pairs.losses, "two-sided": min(pairs.gains, pairs.losses)}[alternative]
    value = float(bdtr(tail, pairs.discordant, 0.5)) * (2 if alternative == "two-sided" else 1)
    return PValue(min(1.0, value), alternative, "exact McNemar")


def mid_p(pairs: Pairs) -> PValue:
    """Returns the two-sided mid-p value, for display: the exact one with half the weight of what was observed.

    Fagerland, Lydersen and Laake (BMC Medical Research Methodology 13:91, 2013).
    """
    fewer, n = min(pairs.gains, pairs.losses), pairs.discordant
    value = float(bdtr(fewer, n, 0.5)) + (float(bdtr(fewer - 1, n, 0.5)) if fewer else 0.0)
    return PValue(min(1.0, value), "two-sided", "mid-p McNemar")


def tango(pairs: Pairs, confidence: float = 0.95) -> Interval:
    """Returns the score interval of the difference by Tango (Statistics in Medicine 17, 1998)."""
    z = float(ndtri((1 + confidence) / 2))
    return Interval(_tango_bound(pairs, -z), _tango_bound(pairs, z), confidence, "Tango score")


def non_inferiority(pairs: Pairs, margin: float, confidence: float = 0.95) -> NonInferiority:
    """Returns whether the candidate is at most `margin` worse, by Tango's one-sided lower bound."""
    bound = _tango_bound(pairs, -float(ndtri(confidence)))
    return NonInferiority(bound > -margin, margin, bound, confidence)


def _tango_bound(pairs: Pairs, z: float) -> float:
    """Returns the difference at which the score is -z: below the observed difference for z < 0, above it for z > 0.

    For z > 0 the sides are exchanged first, so that the root is always sought above the observed difference.
    """
    if z < 0:
        return -_tango_bound(Pairs(pairs.losses, pairs.gains, pairs.pairs), -z)
    if pairs.pairs == 0 or pairs.gains == pairs.pairs:
        return 1.0
    observed = (pairs.gains - pairs.losses) / pairs.pairs
    return float(brentq(_score_margin(pairs, z), observed + NEAR, 1 - NEAR, xtol=1e-12))


def _score_margin(pairs: Pairs, z: float) -> Callable[[float], float]:
    """Returns the function of a difference d that is 0 where the score is -z.

    The score is (gains - losses - n d) / sqrt(n (2 q + d (1 - d))), with q the likeliest probability of a loss under d:
    the positive root of 2 n q^2 + k q - losses d (1 - d), with k = (2 n - gains + losses) d - gains - losses.
    """
    n, gains, losses = pairs.pairs, pairs.gains, pairs.losses

    def margin(d: float) -> float:
        k = (2 * n - gains + losses) * d - gains - losses
        q = (sqrt(k * k + 8 * n * losses * d * (1 - d)) - k) / (4 * n)
        return gains - losses - n * d + z * sqrt(max(0.0, n * (2 * q + d * (1 - d))))

    return margin
