"""Planning: published numbers of episodes, every outcome added up by hand, and slow: simulated comparisons."""

import itertools
import time
from math import comb

import numpy as np
import pytest

from tracka.statistics import paired, power, rate, unpaired
from tracka.statistics.paired import Pairs
from tracka.statistics.rate import Count
from tracka.statistics.result import Alternative


def binomial(successes: int, episodes: int, chance: float) -> float:
    return comb(episodes, successes) * chance**successes * (1 - chance) ** (episodes - successes)


# one rate


@pytest.mark.parametrize(("threshold", "true", "episodes"), [(0.90, 0.95, 179), (0.90, 0.98, 61), (0.95, 0.97, 601)])
def test_a_rate_above_the_threshold_needs_as_many_episodes_as_planned(
    threshold: float, true: float, episodes: int
) -> None:
    assert power.episodes_for_rate(threshold, true) == episodes


@pytest.mark.parametrize(("true", "expected"), [(0.95, "pass"), (0.98, "pass"), (0.7, "fail"), (0.89, "fail")])
@pytest.mark.parametrize("episodes", [1, 28, 29, 61])
def test_the_power_of_a_rate_is_the_chance_of_the_right_verdict(true: float, expected: str, episodes: int) -> None:
    right = sum(
        binomial(k, episodes, true) for k in range(episodes + 1) if rate.outcome(Count(k, episodes), 0.9) == expected
    )
    assert power.rate_power(episodes, 0.9, true) == pytest.approx(right, abs=1e-12)


def test_a_rate_at_the_threshold_needs_more_episodes_than_anyone_plays() -> None:
    assert power.episodes_for_rate(0.9, 0.9) is None


def test_a_threshold_of_one_is_never_passed_and_failed_by_the_first_failure() -> None:
    assert power.episodes_for_rate(1.0, 1.0) is None
    assert power.rate_power(10, 1.0, 0.9) == pytest.approx(1 - 0.9**10)


def test_the_rate_that_passes_is_the_one_whose_power_is_that_asked_for() -> None:
    least = power.rate_that_passes(500, 0.9)
    assert least is not None and sum(binomial(k, 500, least) for k in range(462, 501)) == pytest.approx(0.8)
    assert power.rate_that_passes(28, 0.9) is None


# pairs


@pytest.mark.parametrize(
    ("pairs", "discordance", "drop", "published", "digits"),
    [
        (500, 0.03, 0.02, 0.69, 2),
        (500, 0.05, 0.03, 0.83, 2),
        (500, 0.07, 0.05, 0.99, 2),
        (2000, 0.014, 0.01, 0.97, 2),
        (2000, 0.05, 0.02, 0.979, 3),
    ],
)
def test_the_power_of_pairs_is_the_planned_one(
    pairs: int, discordance: float, drop: float, published: float, digits: int
) -> None:
    assert round(power.paired_power(pairs, discordance, drop), digits) == published


@pytest.mark.parametrize(("discordance", "drop", "normal"), [(0.03, 0.02, 586), (0.05, 0.03, 434), (0.07, 0.05, 217)])
def test_the_exact_test_needs_a_few_pairs_more_than_the_normal_approximation(
    discordance: float, drop: float, normal: int
) -> None:
    exact = power.pairs_for_drop(discordance, drop)
    assert exact is not None and normal < exact < 1.08 * normal
    assert power.paired_power(exact, discordance, drop) >= 0.8 > power.paired_power(exact - 1, discordance, drop)


@pytest.mark.parametrize("alternative", ["less", "two-sided"])
def test_the_power_of_pairs_adds_up_all_outcomes_that_the_test_calls_a_drop(alternative: Alternative) -> None:
    pairs, gain, loss = 25, 0.1, 0.4
    seen = sum(
        comb(pairs, g) * comb(pairs - g, n) * gain**g * loss**n * (1 - gain - loss) ** (pairs - g - n)
        for g in range(pairs + 1)
        for n in range(g + 1, pairs + 1 - g)
        if paired.mcnemar(Pairs(g, n, pairs), alternative).value <= 0.05
    )
    assert power.paired_power(pairs, 0.5, 0.3, alternative=alternative) == pytest.approx(seen, abs=1e-12)


def test_the_smallest_drop_of_pairs_has_the_power_asked_for() -> None:
    drop = power.paired_minimum_drop(500, 0.05)
    assert drop is not None and power.paired_power(500, 0.05, drop) == pytest.approx(0.8, abs=1e-4)
    assert 0.02 < drop < 0.03  # with a drop of 0.03 the planned power is 0.83
    assert power.paired_minimum_drop(10, 0.05) is None


def test_a_drop_of_losses_alone_is_shown_where_five_of_them_come_with_the_power() -> None:
    drop = power.losses_minimum_drop(134, alternative="less")  # five losses and no gain have 1/32
    assert drop is not None and sum(binomial(losses, 134, drop) for losses in range(5)) == pytest.approx(0.2, abs=1e-4)
    assert power.losses_minimum_drop(4, alternative="less") is None


# unpaired


@pytest.mark.parametrize(("baseline", "drop", "episodes"), [(0.95, 0.05, 434), (0.95, 0.02, 2212), (0.75, 0.05, 1251)])
def test_unpaired_arms_need_about_as_many_episodes_as_planned(baseline: float, drop: float, episodes: int) -> None:
    exact = power.episodes_for_drop(baseline, drop)
    assert exact is not None and exact == pytest.approx(episodes, rel=0.03)  # planned by the normal approximation
    assert power.unpaired_power(episodes, baseline, drop) == pytest.approx(0.8, abs=0.011)


@pytest.mark.parametrize(("episodes", "alternative"), [(15, "less"), (20, "two-sided")])
def test_the_power_of_unpaired_arms_adds_up_all_outcomes_that_boschloo_calls_a_drop(
    episodes: int, alternative: Alternative
) -> None:
    seen = sum(
        binomial(ours, episodes, 0.5) * binomial(theirs, episodes, 0.9)
        for ours, theirs in itertools.product(range(episodes + 1), repeat=2)
        if ours < theirs and unpaired.compare(Count(ours, episodes), Count(theirs, episodes), alternative).value <= 0.05
    )
    assert power.unpaired_power(episodes, 0.9, 0.4, alternative=alternative) == pytest.approx(seen, abs=1e-9)


def test_the_power_of_large_unpaired_arms_adds_up_all_outcomes_that_the_score_test_calls_a_drop() -> None:
    episodes = 230
    outcomes = np.arange(episodes + 1)
    shown = unpaired.score_less(outcomes[:, None], episodes, outcomes[None, :], episodes) <= 0.025
    ours, theirs = (np.array([binomial(k, episodes, chance) for k in outcomes]) for chance in (0.8, 0.9))
    assert power.unpaired_power(episodes, 0.9, 0.1) == pytest.approx(float(ours @ shown @ theirs))


def test_the_smallest_drop_of_unpaired_arms_has_the_power_asked_for() -> None:
    for episodes in (50, 500):
        drop = power.unpaired_minimum_drop(episodes, 0.9)
        assert drop is not None and power.unpaired_power(episodes, 0.9, drop) == pytest.approx(0.8, abs=1e-4)
    assert power.unpaired_minimum_drop(3, 0.9) is None


def test_pairs_need_a_third_of_the_episodes_that_arms_without_pairs_need() -> None:
    pairs, arm = power.pairs_for_drop(0.034, 0.02), power.episodes_for_drop(0.95, 0.02)
    assert pairs is not None and arm is not None and arm > 3 * pairs


# what cannot be, and time


def test_a_drop_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot come from"):
        power.paired_power(100, 0.01, 0.02)
    with pytest.raises(ValueError, match="cannot drop"):
        power.unpaired_power(100, 0.1, 0.2)
    assert power.paired_power(100, 0.0, 0.0) == 0


@pytest.mark.slow
def test_each_plan_takes_less_than_three_seconds_of_a_core() -> None:
    for plan in (
        lambda: power.episodes_for_rate(0.95, 0.955),
        lambda: power.pairs_for_drop(0.034, 0.01),
        lambda: power.episodes_for_drop(0.9, 0.2, power=0.9),
        lambda: power.episodes_for_drop(0.95, 0.02),
        lambda: power.pairs_for_drop(0.1, 0.005),
        lambda: power.episodes_for_drop(0.9, 0.001),
        lambda: power.paired_minimum_drop(10_000, 0.05),
        lambda: power.unpaired_minimum_drop(200, 0.9),
        lambda: power.unpaired_minimum_drop(10_000, 0.9),
    ):
        begin = time.process_time()
        plan()
        assert time.process_time() - begin < 3


# simulated


@pytest.mark.slow
def test_the_power_is_that_of_simulated_comparisons() -> None:
    generator, runs = np.random.default_rng(24), 20_000
    outcomes = generator.multinomial(300, [0.01, 0.06, 0.93], runs)
    kinds, counts = np.unique(outcomes[:, :2], axis=0, return_counts=True)
    seen = sum(
        count
        for (gains, losses), count in zip(kinds.tolist(), counts.tolist(), strict=True)
        if losses > gains and paired.mcnemar(Pairs(gains, losses, 300)).value <= 0.05
    )
    assert seen / runs == pytest.approx(power.paired_power(300, 0.07, 0.05), abs=0.015)
    arms = np.stack([generator.binomial(80, 0.75, runs), generator.binomial(80, 0.92, runs)], axis=1)
    kinds, counts = np.unique(arms, axis=0, return_counts=True)
    seen = sum(
        count
        for (ours, theirs), count in zip(kinds.tolist(), counts.tolist(), strict=True)
        if ours < theirs and unpaired.compare(Count(ours, 80), Count(theirs, 80)).value <= 0.05
    )
    assert seen / runs == pytest.approx(power.unpaired_power(80, 0.92, 0.17), abs=0.015)
    rates = generator.binomial(179, 0.95, runs)
    passed = sum(rate.outcome(Count(k, 179), 0.9) == "pass" for k in rates.tolist())
    assert passed / runs == pytest.approx(power.rate_power(179, 0.9, 0.95), abs=0.015)
