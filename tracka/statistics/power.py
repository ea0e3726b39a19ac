"""How many episodes an answer needs, and how small a difference a number of episodes can show: by exact enumeration.

Power is the chance that a true rate is decided rightly, or that a true drop is seen as one. A two-sided test at alpha
has alpha / 2 for the drop; to see a gain in its place is no success. Drops are positive: the baseline's rate minus the
candidate's. Power rises with the episodes but for small steps down, where one more episode asks for one more success.
So a number of episodes returned here suffices and one less does not, but a few more may fall short by a little.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr, bdtrc, bdtrik, betaincinv

from .rate import MOST_EPISODES, SLACK, growing, least_successes
from .result import DropAlternative, side_level
from .unpaired import TIE, Table, binomial, enumerable, first_columns, fisher_less, largest_probability, score_less

NEGLIGIBLE = 1e-18  # outcomes that are less likely add nothing to a power


def rate_power(episodes: int, threshold: float, true_rate: float, confidence: float = 0.95) -> float:
    """Returns the chance that so many episodes pass a true rate above the threshold, or fail one below."""
    return float(_rate_power(np.array([episodes]), threshold, true_rate, confidence)[0])


def episodes_for_rate(threshold: float, true_rate: float, power: float = 0.8, confidence: float = 0.95) -> int | None:
    """Returns the smallest number of episodes with such a power, None if none up to MOST_EPISODES has."""
    for n in growing(1):
        enough = _rate_power(n, threshold, true_rate, confidence) >= power
        if enough.any():
            return int(n[enough][0])
    return None


def rate_that_passes(episodes: int, threshold: float, power: float = 0.8, confidence: float = 0.95) -> float | None:
    """Returns the smallest true rate that so many episodes pass with such a power, None if they pass none at all."""
    least = least_successes(episodes, threshold, confidence)
    return None if least is None else float(betaincinv(least, episodes - least + 1, power))


def paired_power(
    pairs: int, discordance: float, drop: float, alpha: float = 0.05, alternative: DropAlternative = "two-sided"
) -> float:
    """Returns the chance that the exact McNemar test of so many pairs shows a drop.

    `discordance` is the probability that a pair is a gain or a loss, `drop` that it is a loss minus that it is a gain.
    Raises ValueError if the drop is larger than the discordance.
    """
    if not 0 <= drop <= discordance <= 1:
        raise ValueError(f"a drop of {drop} cannot come from a discordance of {discordance}")
    if not discordance:
        return 0.0
    weights = binomial(pairs, np.array([discordance]))[:, 0]
    discordant = np.flatnonzero(weights > NEGLIGIBLE)
    least = _critical(discordant, 0.5, side_level(alpha, alternative))
    return float(weights[discordant] @ _at_least(least, discordant, (discordance + drop) / (2 * discordance)))


def pairs_for_drop(
    discordance: float, drop: float, power: float = 0.8, alpha: float = 0.05, alternative: DropAlternative = "two-sided"
) -> int | None:
    """Returns how many pairs show a drop with such a power, None if no number up to MOST_EPISODES does."""
    return _least(lambda pairs: paired_power(pairs, discordance, drop, alpha, alternative), power)


def paired_minimum_drop(
    pairs: int, discordance: float, power: float = 0.8, alpha: float = 0.05, alternative: DropAlternative = "two-sided"
) -> float | None:
    """Returns the smallest drop that so many pairs show with such a power at this discordance, None if none."""
    return _smallest_drop(lambda drop: paired_power(pairs, discordance, drop, alpha, alternative), discordance, power)


def losses_minimum_drop(
    pairs: int, power: float = 0.8, alpha: float = 0.05, alternative: DropAlternative = "two-sided"
) -> float | None:
    """Returns the smallest drop that so many pairs show with such a power if each discordant pair is a loss."""
    return _smallest_drop(lambda drop: paired_power(pairs, drop, drop, alpha, alternative), 1.0, power)


def unpaired_power(
    episodes: int, baseline_rate: float, drop: float, alpha: float = 0.05, alternative: DropAlternative = "two-sided"
) -> float:
    """Returns the chance that `unpaired.compare` shows a drop with so many episodes an arm.

    Raises ValueError if the drop is larger than the baseline's rate.
    """
    if not 0 <= drop <= baseline_rate <= 1:
        raise ValueError(f"a rate of {baseline_rate} cannot drop by {drop}")
    first = _region(episodes, side_level(alpha, alternative))
    ours = binomial(episodes, np.array([baseline_rate - drop]))[:, 0]
    return float(ours @ _at_least(first, episodes, baseline_rate))


def episodes_for_drop(
    baseline_rate: float,
    drop: float,
    power: float = 0.8,
    alpha: float = 0.05,
    alternative: DropAlternative = "two-sided",
) -> int | None:
    """Returns how many episodes an arm show a drop with such a power, None if no number up to MOST_EPISODES does."""
    return _least(lambda episodes: unpaired_power(episodes, baseline_rate, drop, alpha, alternative), power)


def unpaired_minimum_drop(
    episodes: int,
    baseline_rate: float,
    power: float = 0.8,
    alpha: float = 0.05,
    alternative: DropAlternative = "two-sided",
) -> float | None:
    """Returns the smallest drop that so many episodes an arm show with such a power, None if none."""
    return _smallest_drop(
        lambda drop: unpaired_power(episodes, baseline_rate, drop, alpha, alternative), baseline_rate, power
    )


def _rate_power(episodes: Any, threshold: float, true_rate: float, confidence: float) -> Any:
    """Returns the power of each number of episodes. To fail a rate is to pass the rate of its failures."""
    if true_rate < threshold:
        threshold, true_rate = 1 - threshold, 1 - true_rate
    return _at_least(_critical(episodes, threshold, 1 - confidence), episodes, true_rate)


def _critical(episodes: Any, rate: float, level: float) -> Any:
    """Returns the smallest number of successes that is reached with a probability of at most `level` at a rate."""
    if not 0 < rate < 1:
        return np.where(rate <= 0, 0, episodes) + 1
    within = 1 - level * (1 + SLACK)
    some = np.maximum(episodes, 1)
    most = np.ceil(bdtrik(within, some, rate))
    most = np.where((most > 0) & (bdtr(most - 1, some, rate) >= within), most - 1, most)
    return np.where(np.asarray(episodes) > 0, most, 0).astype(np.int64) + 1


def _at_least(successes: Any, episodes: Any, rate: float) -> Any:
    """Returns the probability of at least so many successes, 0 if there are fewer episodes, 1 if it is none."""
    successes, episodes = np.broadcast_arrays(successes, episodes)
    possible = (successes <= episodes) & (successes > 0)
    tail = bdtrc(np.where(possible, successes - 1.0, 0.0), np.where(possible, episodes, 1), rate)
    return np.where(possible, tail, successes <= 0)


@lru_cache(maxsize=64)
def _region(episodes: int, level: float) -> Table:
    """Returns for each of the candidate's successes with how many of the baseline's the test shows a drop."""
    return (_boschloo_region if enumerable(episodes, episodes) else _score_region)(episodes, level)


def _boschloo_region(episodes: int, level: float) -> Table:
    """Returns the largest region of Boschloo's test: as many of Fisher's p-values as stay within the level."""
    values = fisher_less(episodes, episodes)
    ordered = np.unique(values)
    few, many = 0, len(ordered)
    while few < many:
        middle = (few + many) // 2
        first = first_columns(values <= ordered[middle] * TIE)
        few, many = (middle + 1, many) if largest_probability(first, episodes) <= level else (few, middle)
    return first_columns(values <= ordered[few - 1] * TIE) if few else np.full(episodes + 1, episodes + 1)


def _score_region(episodes: int, level: float) -> Table:
    """Returns the region of the score test, by bisection in all rows at once: its p-value falls along a row."""
    ours = np.arange(episodes + 1)
    few, many = np.zeros_like(ours), np.full_like(ours, episodes + 1)
    while (few < many).any():
        middle = (few + many) // 2
        shown = score_less(ours, episodes, np.minimum(middle, episodes), episodes) <= level
        few, many = np.where(shown | (few >= many), few, middle + 1), np.where(shown, middle, many)
    return np.asarray(many)


def _least(power_of: Callable[[int], float], power: float) -> int | None:
    """Returns a number with such a power whose predecessor has less, by doubling and then by bisection."""
    many = 1
    while power_of(many) < power:
        if many >= MOST_EPISODES:
            return None
        many = min(2 * many, MOST_EPISODES)
    few = many // 2
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if power_of(middle) >= power else (middle, many)
    return many


def _smallest_drop(power_of: Callable[[float], float], largest: float, power: float) -> float | None:
    if power_of(largest) < power:
        return None
    return float(brentq(lambda drop: power_of(drop) - power, 0.0, largest, xtol=1e-7))
