"""A candidate against a baseline over many tasks, each task a stratum of its own.

Three questions with three tests. Is the candidate worse on these tasks together? `pooled` where episodes are paired,
`mantel_haenszel` where they are not. Is it worse on tasks of this kind, also on others? `sign_flip`, which takes each
task as one observation. On which tasks is it worse? A test a task, and `holm` over all of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from .paired import Pairs, mcnemar
from .rate import Count
from .result import Alternative, PValue

Array = npt.NDArray[np.float64]
EXACT_TASKS = 40  # LIBERO's four suites; two tables of 2^20 sums each are made and sorted in less than a second
DRAWS = 9_999
FLIPS = 100_000  # above: the standard error of a p-value of 0.05 is 0.0007


def pooled(tasks: Sequence[Pairs], alternative: Alternative = "two-sided") -> PValue:
    """Returns the exact McNemar test of the pairs of all tasks together.

    It is exact if the policies are equal in every task: then each discordant pair is a fair coin, whatever its task.
    """
    total = Pairs(*(sum(getattr(task, name) for task in tasks) for name in ("gains", "losses", "pairs")))
    return replace(mcnemar(total, alternative), method=f"exact McNemar, pooled over {len(tasks)} tasks")


def mantel_haenszel(tasks: Iterable[tuple[Count, Count]], alternative: Alternative = "two-sided") -> PValue:
    """Returns the Cochran-Mantel-Haenszel test of candidate and baseline in each task, with continuity correction.

    Mantel and Haenszel (JNCI 22, 1959): given a task's margins, the candidate's successes are hypergeometric; their
    excess over all tasks, less one half towards 0, is taken as normal.
    """
    moments = np.array([_excess(candidate, baseline) for candidate, baseline in tasks]).reshape(-1, 2)
    excess, deviation = float(moments[:, 0].sum()), float(np.sqrt(moments[:, 1].sum()))
    below, above = (_normal_tail(side * excess + 0.5, deviation) for side in (1, -1))
    value = {"less": below, "greater": above, "two-sided": min(1.0, 2 * min(below, above))}[alternative]
    return PValue(value, alternative, "Cochran-Mantel-Haenszel, continuity correction")


def sign_flip(differences: Sequence[float], alternative: Alternative = "two-sided", seed: int = 0) -> PValue:
    """Returns the permutation test that flips the sign of each task's difference, with their sum as its statistic.

    Fisher (The Design of Experiments, 1935): if neither policy is better on tasks of this kind, each difference is as
    likely with the other sign. All flips are counted up to EXACT_TASKS tasks, above FLIPS random ones and the observed.
    """
    values, exact = np.asarray(differences, dtype=float), len(differences) <= EXACT_TASKS
    downward = values.sum() <= 0 if alternative == "two-sided" else alternative == "less"
    share = (_exact_share if exact else _random_share)(values if downward else -values, seed)
    value = min(1.0, 2 * share) if alternative == "two-sided" else share
    how = "exact" if exact else f"{FLIPS} random flips, seed {seed}"
    return PValue(value, alternative, f"sign-flip permutation over {len(values)} tasks, {how}")


def equal_rates(counts: Sequence[Count], seed: int = 0) -> PValue:
    """Returns Pearson's chi-square test that all tasks have one success rate; small values say that they differ.

    Pearson (Philosophical Magazine 50, 1900), with its distribution by DRAWS random tables of the same margins instead
    of the chi-square approximation, which fails for tasks of few episodes or of rates near 0 and 1.
    """
    successes, episodes = (np.array([getattr(each, key) for each in counts]) for key in ("successes", "episodes"))
    total = int(successes.sum())
    if total in (0, episodes.sum()):
        return PValue(1.0, "two-sided", "chi-square, random tables")
    draws = np.random.default_rng(seed).multivariate_hypergeometric(episodes, total, DRAWS)
    expected = episodes * (total / episodes.sum())
    observed, drawn = (np.square(table - expected) @ (1 / episodes) for table in (successes, draws))
    value = (1 + int((drawn >= observed * (1 - 1e-9)).sum())) / (1 + DRAWS)
    return PValue(value, "two-sided", f"chi-square, {DRAWS} random tables")


def holm(values: Sequence[PValue]) -> tuple[PValue, ...]:
    """Returns the p-values adjusted for all of them together, in the order given.

    Holm (Scandinavian Journal of Statistics 6, 1979): the i-th smallest of m is multiplied by m + 1 - i, and none is
    below a smaller one. Those at most alpha hold together: the chance that any is false is at most alpha.
    """
    order = np.argsort([value.value for value in values], kind="stable")
    factors = len(values) - np.arange(len(values))
    raised = np.maximum.accumulate(factors * np.array([values[i].value for i in order], dtype=float))
    adjusted = dict(zip(order.tolist(), np.minimum(1.0, raised).tolist(), strict=True))
    return tuple(
        replace(value, value=adjusted[i], method=f"{value.method}, Holm over {len(values)}")
        for i, value in enumerate(values)
    )


def _excess(candidate: Count, baseline: Count) -> tuple[float, float]:
    """Returns the candidate's successes above what the task's margins let expect, and their variance."""
    episodes, successes = candidate.episodes + baseline.episodes, candidate.successes + baseline.successes
    if episodes < 2:
        return 0.0, 0.0
    share = successes / episodes
    variance = share * (1 - share) * candidate.episodes * baseline.episodes / (episodes - 1)
    return candidate.successes - candidate.episodes * share, variance


def _normal_tail(value: float, deviation: float) -> float:
    return float(ndtr(value / deviation)) if deviation else 1.0


def _exact_share(values: Array, _: int) -> float:
    """Returns the share of all flips with a sum that is at most the observed one.

    The tasks are halved, and each sum of one half is held against the sorted sums of the other. Both are sorted, since
    a search in order of size is several times faster.
    """
    half = len(values) // 2
    left, right = (np.sort(_flipped_sums(part)) for part in (values[:half], values[half:]))
    most = np.searchsorted(right, _limit(values) - left, side="right")
    return int(most.sum()) / (len(left) * len(right))


def _random_share(values: Array, seed: int) -> float:
    signs = 2 * np.random.default_rng(seed).integers(0, 2, (FLIPS, len(values)), dtype=np.int8) - 1
    return (1 + int((signs @ values <= _limit(values)).sum())) / (1 + FLIPS)


def _flipped_sums(values: Array) -> Array:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _limit(values: Array) -> float:
    """Returns the observed sum, raised by what rounding may add: equal sums must count as equal."""
    return float(values.sum() + 1e-9 * np.abs(values).sum())
