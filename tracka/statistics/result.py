"""What a test and an interval return, each with the name of its method."""

from dataclasses import dataclass
from typing import Literal

Alternative = Literal["two-sided", "less", "greater"]  # less: the candidate is worse than the baseline
DropAlternative = Literal["two-sided", "less"]  # those that can show a drop


@dataclass(frozen=True)
class Interval:
    """An interval of a rate or of a difference of two rates. `confidence` counts both sides together."""

    low: float
    high: float
    confidence: float
    method: str


@dataclass(frozen=True)
class PValue:
    """The p-value of a test of a candidate against a baseline. `alternative` is what a small value speaks for."""

    value: float
    alternative: Alternative
    method: str


def side_level(alpha: float, alternative: Alternative) -> float:
    """Returns the level of one side of a test whose errors on all its sides add up to `alpha`."""
    return alpha / 2 if alternative == "two-sided" else alpha
