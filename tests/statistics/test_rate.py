"""One rate against a threshold: published intervals, exact coverage, and verdicts held against fractions."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from tracka.statistics import rate
from tracka.statistics.rate import Count

NEWCOMBE = [  # Newcombe, Statistics in Medicine 17:857 (1998): Clopper-Pearson, then Wilson
    (81, 263, (0.2527, 0.3676), (0.2553, 0.3662)),
    (15, 148, (0.0578, 0.1617), (0.0624, 0.1605)),
    (0, 20, (0, 0.1684), (0, 0.1611)),
    (1, 29, (0.0009, 0.1776), (0.0061, 0.1718)),
]


def outcome(successes: int, episodes: int, threshold: Fraction) -> str:
    """Returns the verdict at one-sided 95% by whole numbers: tails times the denominator to the power of `episodes`."""
    won, whole = threshold.numerator, threshold.denominator
    terms = [comb(episodes, k) * won**k * (whole - won) ** (episodes - k) for k in range(episodes + 1)]
    if 20 * sum(terms[successes:]) <= whole**episodes:
        return "pass"
    return "fail" if 20 * sum(terms[: successes + 1]) < whole**episodes else "underpowered"


def chances(episodes: int, rates: np.ndarray) -> np.ndarray:
    """Returns the probability of each number of successes (rows) at each rate (columns)."""
    return np.array([comb(episodes, k) * rates**k * (1 - rates) ** (episodes - k) for k in range(episodes + 1)])


# intervals


@pytest.mark.parametrize(("successes", "episodes", "exact", "wilson"), NEWCOMBE)
def test_intervals_are_those_that_newcombe_published(
    successes: int, episodes: int, exact: tuple[float, float], wilson: tuple[float, float]
) -> None:
    for interval, published in (
        (rate.clopper_pearson(Count(successes, episodes)), exact),
        (rate.wilson(Count(successes, episodes)), wilson),
    ):
        assert (round(interval.low, 4), round(interval.high, 4)) == published
        assert interval.confidence == 0.95 and interval.method in {"Clopper-Pearson", "Wilson"}


def test_nine_of_ten_have_the_wilson_interval_that_lerobot_prints() -> None:
    interval = rate.wilson(Count(9, 10))  # lerobot pull request 4628
    assert (round(100 * interval.low, 2), round(100 * interval.high, 2)) == (59.58, 98.21)


@pytest.mark.parametrize("episodes", [1, 5, 10, 29, 50])
def test_exact_bounds_cover_every_true_rate_at_least_as_often_as_they_say(episodes: int) -> None:
    rates = np.linspace(0.001, 0.999, 999)
    counts = [Count(k, episodes) for k in range(episodes + 1)]
    weights = chances(episodes, rates)
    low, high = (
        np.array([bound(count) for count in counts])[:, None] for bound in (rate.lower_bound, rate.upper_bound)
    )
    both = np.array([(i.low, i.high) for i in map(rate.clopper_pearson, counts)])
    assert (weights * (low <= rates)).sum(axis=0).min() >= 0.95
    assert (weights * (high >= rates)).sum(axis=0).min() >= 0.95
    inside = (both[:, :1] <= rates) & (both[:, 1:] >= rates)
    assert (weights * inside).sum(axis=0).min() >= 0.95


def test_wilson_covers_enough_on_average_and_too_little_somewhere_so_it_is_for_display_alone() -> None:
    rates = np.linspace(0.001, 0.999, 999)
    both = np.array([(i.low, i.high) for i in (rate.wilson(Count(k, 29)) for k in range(30))])
    covered = (chances(29, rates) * ((both[:, :1] <= rates) & (both[:, 1:] >= rates))).sum(axis=0)
    assert 0.945 < covered.mean() < 0.965 and covered.min() < 0.9


@pytest.mark.slow  # statsmodels takes seconds to import
def test_the_intervals_are_those_of_statsmodels() -> None:
    from statsmodels.stats.proportion import proportion_confint

    for episodes in (1, 7, 50, 500):
        for successes in range(0, episodes + 1, max(1, episodes // 25)):
            for method, interval in (("beta", rate.clopper_pearson), ("wilson", rate.wilson)):
                for level in (0.9, 0.95):
                    ours = interval(Count(successes, episodes), level)
                    theirs = proportion_confint(successes, episodes, alpha=1 - level, method=method)
                    assert (ours.low, ours.high) == pytest.approx(theirs, abs=1e-9)


def test_no_episodes_say_nothing() -> None:
    assert [(i.low, i.high) for i in (rate.wilson(Count(0, 0)), rate.clopper_pearson(Count(0, 0)))] == [(0, 1), (0, 1)]
    verdict = rate.verdict(Count(0, 0), 0.9)
    assert (verdict.outcome, verdict.more_episodes, verdict.can_pass) == ("underpowered", None, False)


# verdicts


def test_of_fifty_episodes_49_must_succeed_to_pass_at_ninety_percent() -> None:
    passed, short = (rate.verdict(Count(k, 50), 0.9) for k in (49, 48))
    assert (passed.outcome, short.outcome) == ("pass", "underpowered")
    assert (round(passed.low, 3), round(short.low, 3)) == (0.909, 0.879)
    assert {passed.method} == {"exact binomial, one-sided Clopper-Pearson bounds"}


@pytest.mark.parametrize(("episodes", "least"), [(28, None), (29, 29), (50, 49), (179, 168), (500, 462)])
def test_the_least_successes_that_pass_at_ninety_percent_are_known(episodes: int, least: int | None) -> None:
    assert rate.least_successes(episodes, 0.9) == least


@pytest.mark.parametrize("threshold", [Fraction(1, 2), Fraction(9, 10), Fraction(95, 100), Fraction(1)])
def test_verdicts_are_those_of_exact_arithmetic_and_of_the_bounds(threshold: Fraction) -> None:
    for episodes in (1, 2, 13, 29, 60):
        for successes in range(episodes + 1):
            verdict = rate.verdict(Count(successes, episodes), float(threshold))
            assert verdict.outcome == outcome(successes, episodes, threshold)
            assert (verdict.outcome == "pass") == (verdict.low >= float(threshold))
            assert (verdict.outcome == "fail") == (verdict.high < float(threshold))


@pytest.mark.parametrize(
    ("threshold", "least"), [(0.9, 29), (0.95, 59), (0.99, 299), (0.5, 5), (1, None)]
)  # log 0.05 / log threshold, rounded up
def test_the_smallest_number_of_episodes_that_can_pass_is_known(threshold: float, least: int | None) -> None:
    assert rate.least_to_pass(threshold) == least
    assert rate.verdict(Count(28, 28), threshold).can_pass == (least is not None and least <= 28)


@pytest.mark.parametrize(("successes", "episodes"), [(48, 50), (28, 28), (9, 10), (14, 20), (4, 5), (0, 0), (1, 3)])
def test_the_episodes_that_are_missing_decide_and_one_less_would_not(successes: int, episodes: int) -> None:
    threshold = Fraction(17, 20)
    missing = rate.verdict(Count(successes, episodes), float(threshold)).more_episodes

    def decided(n: int) -> bool:
        low, rest = divmod(n * successes, episodes)
        return outcome(low, n, threshold) == "pass" or outcome(low + (rest > 0), n, threshold) == "fail"

    if episodes == 0:
        assert missing is None
    else:
        assert missing is not None and decided(episodes + missing)
        assert not any(decided(n) for n in range(episodes, episodes + missing))


def test_a_decided_rate_misses_no_episodes_however_many_it_has() -> None:
    assert [rate.verdict(Count(k, n), 0.9).more_episodes for k, n in ((50, 50), (10, 50), (95_000, 100_000))] == [
        0,
        0,
        0,
    ]


def test_a_rate_at_the_threshold_is_decided_by_no_number_of_episodes() -> None:
    assert rate.verdict(Count(45, 50), 0.9).more_episodes is None


def test_at_the_threshold_a_policy_passes_or_fails_at_most_one_time_in_twenty() -> None:
    for episodes in range(1, 80):
        weights = chances(episodes, np.array([0.9]))[:, 0]
        verdicts = [rate.outcome(Count(k, episodes), 0.9) for k in range(episodes + 1)]
        for wrong in ("pass", "fail"):
            assert sum(w for w, verdict in zip(weights, verdicts, strict=True) if verdict == wrong) <= 0.05


# lost episodes


def test_lost_episodes_that_could_change_the_outcome_make_it_invalid() -> None:
    verdict = rate.verdict(Count(48, 49), 0.9, lost=1)  # 49 of 50 pass, 48 of 50 do not
    assert (verdict.outcome, verdict.lost_as_successes, verdict.lost_as_failures) == ("invalid", "pass", "underpowered")
    assert verdict.coverage == 0.98
    assert verdict.low < 0.9 < verdict.high


@pytest.mark.parametrize(("successes", "expected"), [(490, "pass"), (400, "fail"), (450, "underpowered")])
def test_lost_episodes_that_change_nothing_leave_the_outcome(successes: int, expected: str) -> None:
    assert rate.verdict(Count(successes, 500), 0.9, lost=3).outcome == expected


def test_bounds_with_lost_episodes_hold_both_ways_to_count_them() -> None:
    verdict = rate.verdict(Count(40, 48), 0.8, lost=2)
    assert verdict.low == rate.lower_bound(Count(40, 50)) and verdict.high == rate.upper_bound(Count(42, 50))


# what cannot be


@pytest.mark.parametrize(("successes", "episodes"), [(3, 2), (-1, 2), (0, -1)])
def test_counts_that_cannot_be_are_refused(successes: int, episodes: int) -> None:
    with pytest.raises(ValueError, match="cannot have succeeded"):
        Count(successes, episodes)


def test_fewer_than_no_lost_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be lost"):
        rate.verdict(Count(1, 2), 0.9, lost=-1)


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1])
def test_a_threshold_that_every_rate_or_none_reaches_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="not above 0 and at most 1"):
        rate.verdict(Count(1, 2), threshold)
