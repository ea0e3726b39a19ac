"""Paired comparisons: published values, and intervals held against the likelihood itself."""

from math import comb, log, sqrt

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tracka.statistics import paired
from tracka.statistics.paired import Pairs
from tracka.statistics.result import Alternative

FAGERLAND = Pairs(gains=1, losses=7, pairs=21)  # Fagerland et al., BMC Medical Research Methodology 13:91 (2013)


def test_exact_and_mid_p_are_those_that_fagerland_published() -> None:
    exact, middle = paired.mcnemar(FAGERLAND), paired.mid_p(FAGERLAND)
    assert (round(exact.value, 4), exact.method) == (0.0703, "exact McNemar")
    assert (round(middle.value, 4), middle.method) == (0.0391, "mid-p McNemar")


def test_tangos_interval_is_the_one_that_fagerland_published() -> None:
    interval = paired.tango(FAGERLAND)
    assert (round(interval.low, 3), round(interval.high, 3), interval.method) == (-0.517, -0.026, "Tango score")


@pytest.mark.parametrize(("discordant", "value"), [(5, 0.0625), (6, 0.0313)])
def test_the_smallest_p_value_of_pairs_that_all_go_one_way_is_that_of_the_sign_test(
    discordant: int, value: float
) -> None:
    assert paired.mcnemar(Pairs(discordant, 0, 50)).value == pytest.approx(value, abs=6e-5)
    assert paired.mcnemar(Pairs(0, discordant, 50), "less").value == 0.5**discordant


@pytest.mark.parametrize(("gains", "losses"), [(0, 0), (3, 3), (1, 7), (12, 4), (0, 11)])
def test_one_sided_values_are_the_tails_of_a_fair_coin(gains: int, losses: int) -> None:
    n, pairs = gains + losses, Pairs(gains, losses, 60)
    assert paired.mcnemar(pairs, "less").value == pytest.approx(sum(comb(n, k) for k in range(gains + 1)) / 2**n)
    assert paired.mcnemar(pairs, "greater").value == pytest.approx(sum(comb(n, k) for k in range(losses + 1)) / 2**n)


def test_no_difference_gives_a_value_of_one() -> None:
    for pairs in (Pairs(0, 0, 9), Pairs(4, 4, 9)):
        assert paired.mcnemar(pairs).value == paired.mid_p(pairs).value == 1


@pytest.mark.slow  # statsmodels takes seconds to import
def test_the_exact_test_is_that_of_statsmodels() -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    for gains in range(0, 20, 3):
        for losses in range(0, 20, 4):
            theirs = mcnemar([[30, gains], [losses, 30]], exact=True).pvalue
            assert paired.mcnemar(Pairs(gains, losses, 100)).value == pytest.approx(theirs)


# Tango's interval


def score(pairs: Pairs, difference: float) -> float:
    """Returns the score of a difference, with the nuisance probability found on the likelihood itself."""

    def minus_likelihood(q: float) -> float:
        terms = (
            (pairs.gains, q + difference),
            (pairs.losses, q),
            (pairs.pairs - pairs.discordant, 1 - 2 * q - difference),
        )
        return -sum(count * log(chance) for count, chance in terms if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    q = minimize_scalar(minus_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    variance = pairs.pairs * (2 * q + difference * (1 - difference))
    return (pairs.gains - pairs.losses - pairs.pairs * difference) / sqrt(variance)


@pytest.mark.parametrize("pairs", [FAGERLAND, Pairs(3, 9, 50), Pairs(6, 7, 500), Pairs(20, 5, 30)])
def test_tangos_bounds_are_where_the_score_of_the_likelihood_is_that_of_the_confidence(pairs: Pairs) -> None:
    interval = paired.tango(pairs)
    assert score(pairs, interval.low) == pytest.approx(1.959964, abs=1e-4)
    assert score(pairs, interval.high) == pytest.approx(-1.959964, abs=1e-4)


@pytest.mark.parametrize("pairs", [21, 500, 2000])
def test_pairs_without_a_difference_leave_an_interval_of_known_width(pairs: int) -> None:
    interval, half = paired.tango(Pairs(0, 0, pairs)), 1.959964**2 / (pairs + 1.959964**2)  # Tango's own closed form
    assert (interval.low, interval.high) == (pytest.approx(-half), pytest.approx(half))


def test_every_interval_of_few_pairs_holds_what_was_observed_and_turns_with_the_sides() -> None:
    for n in (1, 2, 7, 15):
        for gains in range(n + 1):
            for losses in range(n + 1 - gains):
                interval, turned = paired.tango(Pairs(gains, losses, n)), paired.tango(Pairs(losses, gains, n))
                assert -1 <= interval.low <= (gains - losses) / n <= interval.high <= 1
                assert (interval.low, interval.high) == (pytest.approx(-turned.high), pytest.approx(-turned.low))


def worlds(n: int, discordance: float, difference: float) -> list[tuple[Pairs, float]]:
    """Returns all outcomes of `n` pairs with their probabilities."""
    gain, loss = (discordance + difference) / 2, (discordance - difference) / 2
    return [
        (
            Pairs(gains, losses, n),
            comb(n, gains)
            * comb(n - gains, losses)
            * gain**gains
            * loss**losses
            * (1 - gain - loss) ** (n - gains - losses),
        )
        for gains in range(n + 1)
        for losses in range(n + 1 - gains)
    ]


@pytest.mark.parametrize(("discordance", "difference"), [(0.2, -0.1), (0.4, 0.0), (0.6, 0.3)])
def test_tangos_interval_covers_the_true_difference_about_as_often_as_it_says(
    discordance: float, difference: float
) -> None:
    covered = 0.0
    for pairs, chance in worlds(30, discordance, difference):
        interval = paired.tango(pairs)
        covered += chance * (interval.low <= difference <= interval.high)
    assert 0.935 <= covered <= 0.975


# non-inferiority


def test_two_thousand_pairs_without_a_flip_show_non_inferiority_by_two_points() -> None:
    result = paired.non_inferiority(Pairs(0, 0, 2000), 0.02)
    assert result.non_inferior and result.bound == pytest.approx(-(1.644854**2) / (2000 + 1.644854**2))
    assert result.method == "Tango score, one-sided"


def test_few_pairs_show_no_non_inferiority_and_a_large_loss_shows_none_either() -> None:
    assert not paired.non_inferiority(Pairs(0, 0, 20), 0.02).non_inferior
    assert not paired.non_inferiority(Pairs(10, 60, 2000), 0.02).non_inferior


def test_a_candidate_worse_by_the_whole_margin_is_seldom_called_non_inferior() -> None:
    wrong = sum(chance for pairs, chance in worlds(40, 0.3, -0.1) if paired.non_inferiority(pairs, 0.1).non_inferior)
    assert wrong <= 0.06


@pytest.mark.parametrize("alternative", ["less", "greater", "two-sided"])
def test_the_exact_test_rejects_equal_policies_at_most_one_time_in_twenty(alternative: Alternative) -> None:
    chance = sum(c for pairs, c in worlds(30, 0.3, 0.0) if paired.mcnemar(pairs, alternative).value <= 0.05)
    assert chance <= 0.05


@pytest.mark.parametrize("counts", [(-1, 0, 5), (0, -1, 5), (3, 3, 5)])
def test_pairs_that_cannot_be_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="cannot have"):
        Pairs(*counts)


def test_mid_p_lies_between_half_the_exact_value_and_the_exact_value() -> None:
    values = np.array(
        [
            (paired.mid_p(pairs).value, paired.mcnemar(pairs).value)
            for pairs in (Pairs(gains, losses, 40) for gains in range(12) for losses in range(12) if gains != losses)
        ]
    )
    assert (values[:, 0] < values[:, 1]).all() and (values[:, 0] >= values[:, 1] / 2).all()
