"""Evidence at every look: its closed form, its errors, and how soon it decides; slow: ten thousand campaigns each."""

from collections.abc import Callable
from math import comb, exp, log

import mpmath
import numpy as np
import pytest

from tracka.statistics import rate, sequential
from tracka.statistics.paired import Pairs, mcnemar
from tracka.statistics.rate import Count
from tracka.statistics.sequential import PairedEvidence, RateEvidence, log_e_above, log_e_below, log_e_unequal

BAR = log(20)  # alpha 5%
Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]


def walk(chance: float, looks: int, *rules: Rule) -> tuple[np.ndarray, float]:
    """Returns how likely each rule is the first to stop at each look, and the chance that none does: exactly.

    The numbers of successes are followed with their probabilities, and a rule takes those at which it stops.
    """
    alive, stops = np.ones(1), np.zeros((len(rules), looks))
    for look in range(1, looks + 1):
        alive = np.append(alive, 0.0) * (1 - chance) + np.append(0.0, alive) * chance
        for stop, rule in zip(stops, rules, strict=True):
            likely = np.flatnonzero(alive > 1e-14)
            stopped = likely[rule(likely, look - likely)]
            stop[look - 1] = alive[stopped].sum()
            alive[stopped] = 0
    return stops, float(alive.sum())


def mean_stop(stops: np.ndarray) -> float:
    total = stops.sum(axis=0)
    return float((np.arange(1, len(total) + 1) * total).sum() / total.sum())


def passing(threshold: float) -> Rule:
    return lambda won, lost: log_e_above(won, lost, threshold) >= BAR


def failing(threshold: float) -> Rule:
    return lambda won, lost: log_e_below(won, lost, threshold) >= BAR


def unequal(losses: np.ndarray, gains: np.ndarray) -> np.ndarray:
    return log_e_unequal(gains, losses) >= BAR


# the closed form


def quadrature(won: int, lost: int, threshold: float, shape: float) -> float:
    """Returns log E by adding up the mixture with twenty digits."""
    with mpmath.workdps(20):
        p0, width = mpmath.mpf(threshold), mpmath.mpf(1) - threshold
        points = [p0, *(p0 + width * mpmath.mpf(2) ** -k for k in range(14, 0, -1)), mpmath.mpf(1)]

        def density(p: mpmath.mpf) -> mpmath.mpf:
            return (p * (1 - p)) ** (mpmath.mpf(shape) - 1)

        def bet(p: mpmath.mpf) -> mpmath.mpf:
            return density(p) * mpmath.exp(won * mpmath.log(p / p0) + lost * mpmath.log((1 - p) / (1 - p0)))

        return float(mpmath.log(mpmath.quad(bet, points) / mpmath.quad(density, points)))


@pytest.mark.parametrize(
    ("won", "lost", "threshold"),
    [
        (0, 0, 0.9),
        (0, 1, 0.9),
        (100, 3, 0.9),
        (20, 30, 0.9),
        (0, 400, 0.9),
        (500, 1500, 0.9),
        (3000, 3000, 0.9),
        (0, 2000, 0.5),
    ],
)
@pytest.mark.parametrize("shape", [1.0, 0.5])
def test_the_closed_form_is_the_mixture_added_up_also_where_its_share_of_the_whole_ends_in_zero(
    won: int, lost: int, threshold: float, shape: float
) -> None:
    assert float(log_e_above(won, lost, threshold, shape)) == pytest.approx(
        quadrature(won, lost, threshold, shape), rel=1e-7, abs=1e-7
    )


@pytest.mark.parametrize(
    ("won", "lost"), [(100_000, 1), (1, 100_000), (50_000, 50_000), (0, 1_000_000), (1_000_000, 0)]
)
def test_no_number_of_episodes_overflows(won: int, lost: int) -> None:
    values = [log_e_above(won, lost, 0.9), log_e_below(won, lost, 0.9), log_e_above(won, lost, 0.5, 0.5)]
    assert np.isfinite([*values, log_e_unequal(won, lost)]).all()


@pytest.mark.parametrize("episodes", [1, 7, 60])
def test_the_stake_is_not_expected_to_grow_while_the_hypothesis_is_true(episodes: int) -> None:
    def expected(chance: float, log_e: np.ndarray) -> float:
        return sum(
            comb(episodes, k) * chance**k * (1 - chance) ** (episodes - k) * exp(value) for k, value in enumerate(log_e)
        )

    won = np.arange(episodes + 1)
    above, below = log_e_above(won, episodes - won, 0.9), log_e_below(won, episodes - won, 0.9)
    assert expected(0.9, above) == pytest.approx(1) and expected(0.9, below) == pytest.approx(1)
    assert expected(0.8, above) < 1 and expected(0.95, below) < 1
    assert expected(0.5, log_e_unequal(won, episodes - won)) == pytest.approx(1)
    one_sided = log_e_above(won, episodes - won, 0.5, 0.5)
    assert expected(0.5, one_sided) == pytest.approx(1) and expected(0.4, one_sided) < 1


# one rate


@pytest.mark.parametrize(
    ("true", "looks", "side", "mean", "wrong"),
    [(0.70, 300, 1, 26, 0.002), (0.50, 60, 1, 8, 0.002), (0.95, 1500, 0, 208, 0.004), (0.98, 400, 0, 72, 0.002)],
)
def test_a_policy_is_decided_as_soon_as_planned(true: float, looks: int, side: int, mean: float, wrong: float) -> None:
    stops, undecided = walk(true, looks, passing(0.9), failing(0.9))
    assert undecided < 0.001
    assert mean_stop(stops) == pytest.approx(mean, abs=1)  # the plan's means are of a few thousand simulated runs
    assert stops[1 - side].sum() <= wrong


def test_a_policy_far_below_the_threshold_is_refused_after_a_few_episodes() -> None:
    assert mean_stop(walk(0.70, 300, passing(0.9), failing(0.9))[0]) <= 30
    assert mean_stop(walk(0.50, 60, passing(0.9), failing(0.9))[0]) <= 9


def test_exactly_at_the_threshold_each_wrong_decision_stays_below_five_percent() -> None:
    stops, undecided = walk(0.9, 500, passing(0.9), failing(0.9))
    assert 0.02 < stops[0].sum() <= 0.05 and 0.02 < stops[1].sum() <= 0.05 and undecided > 0.9


def test_evidence_is_that_of_its_counts_whatever_the_order() -> None:
    evidence = RateEvidence(0.9)
    for outcome in (True, False, False, True, True):
        evidence = evidence.after(outcome)
    assert evidence == RateEvidence(0.9, successes=3, failures=2)
    assert evidence.log_e_pass == float(log_e_above(3, 2, 0.9)) and evidence.log_e_fail == float(log_e_below(3, 2, 0.9))
    assert evidence.method == "e-process, truncated uniform mixture"


def test_the_first_decision_is_where_the_evidence_first_reaches_its_bar() -> None:
    outcomes = [True, False, False, True, False, False, False]
    stop = sequential.first_rate_decision(outcomes, 0.9)
    before = sequential.first_rate_decision(outcomes[: stop.looks - 1], 0.9)
    assert stop.decision == "fail" and stop.evidence.decision() == "fail"
    assert before.decision == "continue" and before.looks == stop.looks - 1
    assert sequential.first_rate_decision([], 0.9).decision == "continue"
    assert sequential.first_rate_decision([True] * 500, 0.9).decision == "pass"


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_on_which_no_bet_is_possible_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        RateEvidence(threshold)


def test_a_stricter_level_decides_later() -> None:
    looks = [sequential.first_rate_decision([False] * 50, 0.9, alpha).looks for alpha in (0.05, 0.01, 1e-6)]
    assert looks == sorted(looks) and looks[0] < looks[-1]


# pairs


@pytest.mark.parametrize(("discordance", "drop", "mean"), [(0.07, 0.05, 222), (0.12, 0.10, 90), (0.22, 0.20, 40)])
def test_a_drop_is_seen_after_as_many_pairs_as_planned(discordance: float, drop: float, mean: float) -> None:
    stops, undecided = walk((discordance + drop) / (2 * discordance), 300, unequal)
    assert undecided < 0.001
    assert mean_stop(stops) / discordance == pytest.approx(mean, rel=0.01)


def test_equal_policies_are_told_apart_less_than_five_times_in_a_hundred_at_any_look() -> None:
    one_sided: Rule = lambda losses, gains: log_e_above(losses, gains, 0.5, 0.5) >= BAR  # noqa: E731
    for rule in (unequal, one_sided):
        assert 0.02 < walk(0.5, 600, rule)[0].sum() <= 0.05


def test_looking_at_the_exact_test_after_each_pair_errs_many_times_more_often_than_the_evidence() -> None:
    def peeking(losses: np.ndarray, gains: np.ndarray) -> np.ndarray:
        pairs = [Pairs(int(g), int(n), int(g + n)) for g, n in zip(gains, losses, strict=True)]
        return np.array([p.pairs >= 6 and mcnemar(p).value < 0.05 for p in pairs])

    errors = [walk(0.5, 60, rule)[0].sum() for rule in (peeking, unequal)]
    assert errors[0] == pytest.approx(0.18, abs=0.01) and errors[1] < 0.03  # 18%: inspect-robots, plan 0086, simulated


def test_pairs_with_equal_outcomes_change_nothing_and_the_others_count_for_their_side() -> None:
    evidence = PairedEvidence()
    for candidate, baseline in ((True, True), (False, False), (True, False), (False, True), (False, True)):
        evidence = evidence.after(candidate, baseline)
    assert evidence == PairedEvidence(gains=1, losses=2)
    assert evidence.log_e() == float(log_e_unequal(1, 2))
    assert evidence.log_e("less") > evidence.log_e("greater")
    assert "paired e-process" in evidence.method


def test_losses_decide_for_worse_gains_for_better_and_only_where_asked() -> None:
    losses, gains = [(False, True)] * 30, [(True, False)] * 30
    assert sequential.first_paired_decision(losses).decision == "worse"
    assert sequential.first_paired_decision(gains).decision == "better"
    assert sequential.first_paired_decision(gains, alternative="less").decision == "continue"
    assert sequential.first_paired_decision(losses, alternative="less").decision == "worse"


def test_losses_alone_decide_after_six_of_them_one_sided_and_after_seven_two_sided() -> None:
    losses = [(False, True)] * 30  # by hand: B(n + 1/2, 1/2) / B(1/2, 1/2) * 2^n is 14.4 for 6 and 26.8 for 7
    assert sequential.first_paired_decision(losses).looks == 7
    assert sequential.first_paired_decision(losses, alternative="less").looks == 6


# arithmetic


def test_an_outcome_is_settled_only_if_no_remaining_episodes_could_change_it() -> None:
    def judge(successes: int, episodes: int) -> str:
        return rate.outcome(Count(successes, episodes), 0.8)

    for successes in range(21):
        for failures in range(21 - successes):
            remaining = 20 - successes - failures
            outcomes = {judge(successes + more, 20) for more in range(remaining + 1)}
            expected = outcomes.pop() if len(outcomes) == 1 else None
            assert sequential.settled(successes, failures, remaining, judge) == expected


def test_a_plain_least_rate_is_settled_by_the_first_failure_too_many() -> None:
    def reached(successes: int, episodes: int) -> bool:
        return successes >= 0.9 * episodes

    assert sequential.settled(30, 5, 15, reached) is None
    assert sequential.settled(30, 6, 14, reached) is False
    assert sequential.settled(45, 0, 5, reached) is True


# ten thousand campaigns


def campaigns(chance: float, looks: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the successes and failures of ten thousand campaigns (rows) after each episode (columns)."""
    outcomes = np.random.default_rng(seed).random((10_000, looks), dtype=np.float32) < chance
    won = np.cumsum(outcomes, axis=1, dtype=np.int32)
    return won, np.arange(1, looks + 1, dtype=np.int32) - won


def table_of(rule: Rule, looks: int) -> np.ndarray:
    """Returns for all numbers of successes (rows) and looks (columns) whether a rule stops."""
    won, look = np.meshgrid(np.arange(looks + 1), np.arange(1, looks + 1), indexing="ij")
    return np.asarray(np.where(won <= look, rule(won, np.maximum(look - won, 0)), False))


def first_stops(won: np.ndarray, rule: Rule) -> np.ndarray:
    """Returns after how many looks each campaign first stops, 0 if never."""
    stops = table_of(rule, won.shape[1])[won, np.arange(won.shape[1])]
    return np.asarray(np.where(stops.any(axis=1), stops.argmax(axis=1) + 1, 0))


@pytest.mark.slow
def test_ten_thousand_campaigns_at_the_threshold_are_decided_wrongly_at_most_five_percent_a_side() -> None:
    for threshold, seed in ((0.9, 1), (0.5, 2), (0.95, 3)):
        won, _ = campaigns(threshold, 1000, seed)
        for rule in (passing(threshold), failing(threshold)):
            stops = np.sort(first_stops(won, rule))
            for looks in (10, 50, 100, 250, 500, 1000):  # stopped by then: false decisions at every look before, too
                assert ((stops > 0) & (stops <= looks)).mean() <= 0.05


@pytest.mark.slow
def test_ten_thousand_campaigns_of_equal_policies_are_told_apart_at_most_five_percent() -> None:
    losses, _ = campaigns(0.5, 1000, 4)
    for shape in ("two-sided", "less", "greater"):
        rule: Rule = {
            "two-sided": unequal,
            "less": lambda losses, gains: log_e_above(losses, gains, 0.5, 0.5) >= BAR,
            "greater": lambda losses, gains: log_e_above(gains, losses, 0.5, 0.5) >= BAR,
        }[shape]
        assert (first_stops(losses, rule) > 0).mean() <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("true", "most"), [(0.70, 30), (0.50, 9)])
def test_ten_thousand_bad_policies_are_refused_after_a_few_episodes_on_average(true: float, most: int) -> None:
    won, _ = campaigns(true, 400, 5)
    stops, wrong = first_stops(won, failing(0.9)), first_stops(won, passing(0.9))
    assert (stops > 0).all() and stops.mean() <= most and (wrong > 0).mean() <= 0.002


# bounds at every look


OUTCOMES = ((False,), (True, False, False), (False,) * 8, (True,) * 5 + (False,) * 5, (False, True) * 12)


@pytest.mark.parametrize("outcomes", OUTCOMES)
def test_a_bound_is_the_rate_at_which_the_evidence_reaches_its_bar(outcomes: tuple[bool, ...]) -> None:
    won = np.cumsum(outcomes)
    lost = np.arange(1, len(outcomes) + 1) - won
    bound = sequential.upper_rate(outcomes, 0.05)
    assert (log_e_below(won, lost, bound) >= BAR - 1e-9).any()
    assert (log_e_below(won, lost, bound - 2e-4) < BAR).all()
    assert sequential.lower_rate(tuple(not outcome for outcome in outcomes), 0.05) == 1 - bound


def test_successes_alone_bound_no_rate_from_above() -> None:
    assert sequential.upper_rate((True,) * 30) == sequential.upper_rate(()) == 1


@pytest.mark.parametrize(("won", "lost"), [(0, 1), (3, 1), (10, 10), (40, 2), (1, 60)])
def test_the_evidence_against_a_rate_grows_with_the_rate(won: int, lost: int) -> None:
    values = [float(log_e_below(won, lost, rate)) for rate in np.linspace(0.01, 0.99, 99)]
    assert values == sorted(values)
