"""Unpaired comparisons: published values, scipy's own test, and the errors of every outcome added up."""

import itertools
import time
from math import comb, erfc, sqrt

import numpy as np
import pytest

from tracka.statistics import unpaired
from tracka.statistics.rate import Count
from tracka.statistics.result import Alternative

NEWCOMBE = [  # Newcombe, Statistics in Medicine 17:873 (1998), Table II, method 10
    ((56, 70), (48, 80), (0.0524, 0.3339)),
    ((9, 10), (3, 10), (0.1705, 0.8090)),
    ((6, 7), (2, 7), (0.0582, 0.8062)),
    ((5, 56), (0, 29), (-0.0381, 0.1926)),
]
BOSCHLOO = [
    ((74, 117), (31, 63), "greater", 0.0356, 4),  # scipy's documentation
    ((40, 50), (14, 50), "two-sided", 1.19e-7, 9),  # counts of TRI's CleanUpSpill
    ((28, 50), (46, 50), "two-sided", 3.24e-5, 7),  # counts of TRI's FoldRedTowel
    ((25, 50), (29, 50), "less", 0.234, 3),  # example of the page on STEP
]
ALTERNATIVES: tuple[Alternative, ...] = ("two-sided", "less", "greater")


def table(candidate: Count, baseline: Count) -> list[list[int]]:
    """Returns the outcomes as scipy takes them: successes above failures, a column an arm."""
    arms = (candidate, baseline)
    return [[arm.successes for arm in arms], [arm.episodes - arm.successes for arm in arms]]


@pytest.mark.parametrize(("candidate", "baseline", "published"), NEWCOMBE)
def test_intervals_of_a_difference_are_those_that_newcombe_published(
    candidate: tuple[int, int], baseline: tuple[int, int], published: tuple[float, float]
) -> None:
    interval = unpaired.newcombe(Count(*candidate), Count(*baseline))
    assert (round(interval.low, 4), round(interval.high, 4), interval.method) == (*published, "Newcombe")


@pytest.mark.parametrize(("candidate", "baseline", "alternative", "published", "digits"), BOSCHLOO)
def test_boschloos_values_are_the_published_ones(
    candidate: tuple[int, int], baseline: tuple[int, int], alternative: Alternative, published: float, digits: int
) -> None:
    result = unpaired.compare(Count(*candidate), Count(*baseline), alternative)
    assert (round(result.value, digits), result.method) == (published, "Boschloo exact")


def test_three_against_none_of_three_are_told_apart_and_two_against_none_of_two_are_not() -> None:
    assert unpaired.compare(Count(0, 3), Count(3, 3), "less").value <= 0.05 < 0.0625
    assert unpaired.compare(Count(0, 2), Count(2, 2), "less").value > 0.05


@pytest.mark.slow  # scipy.stats takes a second to import
def test_every_value_is_that_of_scipy() -> None:
    from scipy.stats import boschloo_exact

    generator = np.random.default_rng(24)
    for _ in range(60):
        episodes = generator.integers(2, 60, 2)
        arms = [Count(int(generator.integers(0, n + 1)), int(n)) for n in episodes]
        for alternative in ALTERNATIVES:
            theirs = boschloo_exact(table(*arms), alternative=alternative).pvalue
            ours = unpaired.boschloo(*arms, alternative).value
            if not np.isnan(theirs):  # scipy has no answer where all episodes of both arms succeed, or none does
                assert ours == pytest.approx(theirs, rel=1e-6) or 0 < ours - theirs < 1e-4  # its search may stop short


def test_fishers_values_of_all_outcomes_are_the_hypergeometric_tails() -> None:
    values = unpaired.fisher_less(9, 14)
    for ours, theirs in itertools.product(range(10), range(15)):
        total = ours + theirs
        ways = sum(comb(9, k) * comb(14, total - k) for k in range(max(0, total - 14), ours + 1))
        assert values[ours, theirs] == pytest.approx(ways / comb(23, total))


@pytest.mark.parametrize(("candidates", "baselines"), [(12, 12), (7, 18)])
def test_boschloo_rejects_equal_rates_within_its_level_and_rejects_whatever_fisher_does(
    candidates: int, baselines: int
) -> None:
    outcomes = list(itertools.product(range(candidates + 1), range(baselines + 1)))
    rejected = [unpaired.boschloo(Count(a, candidates), Count(b, baselines), "less").value <= 0.05 for a, b in outcomes]
    fisher = unpaired.fisher_less(candidates, baselines)
    assert all(chosen for chosen, (a, b) in zip(rejected, outcomes, strict=True) if fisher[a, b] <= 0.05)
    assert sum(rejected) > (fisher <= 0.05).sum()
    rates = np.linspace(0, 1, 201)
    errors = sum(
        comb(candidates, a) * comb(baselines, b) * rates ** (a + b) * (1 - rates) ** (candidates + baselines - a - b)
        for chosen, (a, b) in zip(rejected, outcomes, strict=True)
        if chosen
    )
    assert 0.02 < errors.max() <= 0.05


@pytest.mark.parametrize("episodes", [150, 800])
def test_the_directions_are_those_of_the_candidate(episodes: int) -> None:
    worse, better = Count(int(0.8 * episodes), episodes), Count(int(0.95 * episodes), episodes)
    assert (
        unpaired.compare(worse, better, "less").value < 0.001 < 0.99 < unpaired.compare(worse, better, "greater").value
    )
    assert unpaired.compare(better, worse, "greater").value == unpaired.compare(worse, better, "less").value
    assert unpaired.compare(worse, better).value == 2 * unpaired.compare(worse, better, "less").value


def test_arms_of_more_than_two_hundred_episodes_take_the_score_test_unless_one_is_small() -> None:
    methods = [
        unpaired.compare(Count(n - 3, n), Count(m - 9, m)).method for n, m in ((200, 200), (201, 200), (20, 2000))
    ]
    assert methods == ["Boschloo exact", "score, pooled variance", "Boschloo exact"]


@pytest.mark.parametrize("baseline", [Count(3, 5), Count(250, 300), Count(0, 0)])
def test_an_arm_without_episodes_says_nothing(baseline: Count) -> None:
    interval = unpaired.newcombe(Count(0, 0), baseline)
    assert (interval.low, interval.high) == (-1, 1)
    for test in (unpaired.compare, unpaired.score, unpaired.boschloo):
        assert test(Count(0, 0), baseline).value == test(baseline, Count(0, 0), "less").value == 1


@pytest.mark.parametrize(("candidate", "baseline"), [((430, 500), (460, 500)), ((1900, 2000), (300, 320))])
def test_the_score_test_is_the_chi_squared_test_of_the_table(
    candidate: tuple[int, int], baseline: tuple[int, int]
) -> None:
    arms = Count(*candidate), Count(*baseline)
    (a, b), (c, d) = table(*arms)
    squared = (a + b + c + d) * (a * d - b * c) ** 2 / ((a + b) * (c + d) * (a + c) * (b + d))  # Pearson 1900
    assert unpaired.score(*arms).value == pytest.approx(erfc(sqrt(squared / 2)))


@pytest.mark.parametrize("successes", [0, 300])
def test_arms_that_all_succeed_or_all_fail_do_not_differ(successes: int) -> None:
    assert unpaired.score(Count(successes, 300), Count(successes, 300)).value == 1
    assert unpaired.boschloo(Count(successes // 10, 30), Count(successes // 10, 30)).value == 1


def test_two_hundred_episodes_an_arm_take_less_than_three_seconds_of_a_core() -> None:
    begin = time.process_time()
    unpaired.boschloo(Count(180, 200), Count(190, 200))
    assert time.process_time() - begin < 3


@pytest.mark.slow  # statsmodels takes seconds to import
def test_the_interval_is_that_of_statsmodels() -> None:
    from statsmodels.stats.proportion import confint_proportions_2indep

    for candidate, baseline in (
        (Count(45, 50), Count(30, 50)),
        (Count(0, 20), Count(7, 30)),
        (Count(5, 5), Count(3, 9)),
    ):
        counts = (candidate.successes, candidate.episodes, baseline.successes, baseline.episodes)
        theirs = confint_proportions_2indep(*counts, method="newcomb", compare="diff")
        ours = unpaired.newcombe(candidate, baseline)
        assert (ours.low, ours.high) == pytest.approx(theirs, abs=1e-9)
