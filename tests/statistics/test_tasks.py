"""Comparisons over many tasks: published values, and permutations counted one by one."""

import itertools
from math import comb

import numpy as np
import pytest

from tracka.statistics import tasks
from tracka.statistics.paired import Pairs, mcnemar
from tracka.statistics.rate import Count
from tracka.statistics.result import Alternative, PValue

# Penicillin and rabbits (Agresti 1990, as in the documentation of R's mantelhaen.test): cured with and without delay.
RABBITS = [
    (Count(0, 6), Count(0, 5)),
    (Count(3, 6), Count(0, 6)),
    (Count(6, 6), Count(2, 6)),
    (Count(5, 6), Count(6, 6)),
    (Count(2, 2), Count(5, 5)),
]
# Darwin's maize in eighths of an inch, for which Fisher counted 863 of 32,768 (The Design of Experiments, section 21).
MAIZE = (49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48)


def p_values(*values: float) -> list[PValue]:
    return [PValue(value, "two-sided", "exact McNemar") for value in values]


# pooled pairs


def test_the_pooled_test_is_the_exact_test_of_all_pairs_together() -> None:
    result = tasks.pooled([Pairs(0, 2, 10), Pairs(1, 3, 10), Pairs(0, 2, 10)])
    assert result.value == 2 * (1 + comb(8, 1)) / 2**8
    assert result.method == "exact McNemar, pooled over 3 tasks"
    assert tasks.pooled([]).value == 1


# Cochran, Mantel and Haenszel


def test_the_mantel_haenszel_test_has_the_value_of_the_documentation_of_r() -> None:
    result = tasks.mantel_haenszel(RABBITS)
    assert round(result.value, 3) == 0.047
    assert tasks.mantel_haenszel(RABBITS, "greater").value == result.value / 2
    assert tasks.mantel_haenszel(RABBITS, "less").value > 0.95
    assert result.method == "Cochran-Mantel-Haenszel, continuity correction"


@pytest.mark.slow  # statsmodels takes seconds to import
def test_the_mantel_haenszel_test_is_that_of_statsmodels() -> None:
    from statsmodels.stats.contingency_tables import StratifiedTable

    generator = np.random.default_rng(24)
    for _ in range(5):
        strata = [tuple(Count(int(generator.binomial(50, 0.8)), 50) for _ in range(2)) for _ in range(10)]
        tables = [np.array([[arm.successes, arm.episodes - arm.successes] for arm in arms]) for arms in strata]
        theirs = StratifiedTable([table.astype(float) for table in tables]).test_null_odds(correction=True).pvalue
        assert tasks.mantel_haenszel(strata).value == pytest.approx(theirs)  # type: ignore[arg-type]


def test_tasks_that_tell_nothing_give_a_value_of_one() -> None:
    assert tasks.mantel_haenszel([(Count(50, 50), Count(50, 50)), (Count(0, 0), Count(1, 1))]).value == 1
    assert tasks.mantel_haenszel([]).value == 1


# sign flips


def test_flipping_signs_gives_the_value_that_fisher_counted_for_darwins_maize() -> None:
    result = tasks.sign_flip(MAIZE)
    assert result.value == 2 * 863 / 2**15
    assert tasks.sign_flip(MAIZE, "greater").value == 863 / 2**15
    assert result.method == "sign-flip permutation over 15 tasks, exact"


@pytest.mark.parametrize(("count", "value"), [(5, 0.0625), (6, 0.03125)])
def test_tasks_that_all_lose_alike_give_the_smallest_value_of_the_sign_test(count: int, value: float) -> None:
    assert tasks.sign_flip([-0.1] * count).value == value


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
def test_all_flips_are_counted_with_equal_sums_as_equal(alternative: Alternative) -> None:
    differences = [0.02, -0.06, -0.1, 0.3, 0.0, -0.02, 0.1, -0.3, -0.04]  # with many ties that rounding would break
    units = [round(100 * value) for value in differences]
    sums = [sum(s * u for s, u in zip(signs, units, strict=True)) for signs in itertools.product((1, -1), repeat=9)]
    observed = sum(units)
    extreme = {
        "less": lambda value: value <= observed,
        "greater": lambda value: value >= observed,
        "two-sided": lambda value: abs(value) >= abs(observed),
    }[alternative]
    assert tasks.sign_flip(differences, alternative).value == sum(map(extreme, sums)) / len(sums)


def test_more_than_forty_tasks_take_random_flips_that_agree_with_all_flips() -> None:
    differences = np.random.default_rng(24).normal(-0.02, 0.1, 40).tolist()
    exact, drawn = (tasks.sign_flip(values, "less") for values in (differences, [*differences, 0.0]))
    assert "exact" in exact.method and "100000 random flips, seed 0" in drawn.method
    assert drawn.value == pytest.approx(exact.value, abs=5 * (0.25 / 100_000) ** 0.5)
    assert tasks.sign_flip([*differences, 0.0], "less") == drawn


def test_no_random_flip_gives_a_value_of_zero() -> None:
    assert tasks.sign_flip([-1.0] * 60, "less").value == 1 / 100_001


# Holm


def test_holms_values_are_those_of_the_rule_by_hand() -> None:
    adjusted = tasks.holm(p_values(0.01, 0.04, 0.03, 0.005))
    assert [round(value.value, 10) for value in adjusted] == [0.03, 0.06, 0.06, 0.02]
    assert {value.method for value in adjusted} == {"exact McNemar, Holm over 4"}
    assert tasks.holm([]) == ()


@pytest.mark.slow
def test_holms_values_are_those_of_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    values = np.random.default_rng(24).uniform(0, 0.2, 40) ** 2
    assert [value.value for value in tasks.holm(p_values(*values))] == pytest.approx(
        multipletests(values, method="holm")[1]
    )


def test_over_forty_tasks_the_first_regression_needs_eleven_losses_and_no_gain() -> None:
    def smallest(losses: int) -> float:
        quiet = [mcnemar(Pairs(0, 0, 50))] * 39
        return min(value.value for value in tasks.holm([mcnemar(Pairs(0, losses, 50)), *quiet]))

    assert smallest(11) <= 0.05 < smallest(10)
