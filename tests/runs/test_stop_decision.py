"""When a campaign may end early, by the outcomes of its first episodes alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from stopping import campaign_of, decided, exported

from tracka.campaign.campaign import Campaign


def test_a_hard_task_played_first_proves_nothing_of_a_suite() -> None:
    spec = campaign_of(10, 20, threshold=0.8, early="futility")
    assert decided(spec, [False] * 20) is None
    assert decided(spec, [False] * 20, [False] * 20) is not None


def test_a_campaign_ends_at_the_failure_that_makes_a_pass_impossible() -> None:
    """Of 20 episodes 19 successes do not show 80%, so the first failure decides, whatever came before."""
    spec = campaign_of(1, 20, threshold=0.8, early="futility")
    decision = decided(spec, [True, True, False])
    assert decided(spec, [True, True]) is None
    assert decision is not None
    assert (decision.outcome, decision.rule, decision.episodes) == ("underpowered", "arithmetic", 3)
    what = "1 of 3 episodes failed, so it cannot pass any more: 19 of 20 would be too few"
    assert decision.sentence == f"libero_object, threshold 80%: {what}"


def test_a_decision_names_the_task_that_made_it() -> None:
    decision = decided(campaign_of(3, 30, task_threshold=0.5, early="futility"), [True] * 5, [False] * 10)
    assert decision is not None and decision.claim is not None
    assert (decision.outcome, decision.rule, decision.claim.task) == ("fail", "evidence", 1)


def test_one_of_many_claims_needs_more_evidence_than_one_alone() -> None:
    first = [
        next(
            count
            for count in range(1, 31)
            if decided(campaign_of(tasks, 60, task_threshold=0.5, early="futility"), [False] * count)
        )
        for tasks in (1, 10)
    ]
    assert first[0] < first[1]


def test_episodes_after_one_without_outcome_are_no_evidence() -> None:
    """Episodes that succeed end sooner; here those that fail have, and none of them is counted as evidence."""
    from tracka.runs import claims, stop_decision
    from tracka.runs.stop_decision import Played

    spec = campaign_of(1, 100, threshold=0.5, early="futility")
    starts = list(claims.starts(spec, spec.compared_rows[0]))
    later = {"t0": dict.fromkeys(starts[1:13], False)}
    first = {"t0": dict.fromkeys(starts[:12], False)}
    assert stop_decision.decide(spec, Played(later, later, later)) is None
    assert stop_decision.decide(spec, Played(first, first, first)) is not None


@pytest.mark.parametrize("early", ["futility", "both"])
def test_a_claim_that_even_all_successes_would_not_reach_ends_nothing_by_arithmetic(early: str) -> None:
    assert decided(campaign_of(1, 10, threshold=0.9, early=early), [True, False]) is None


def test_every_claim_has_to_pass_before_a_campaign_ends_as_passed() -> None:
    spec = campaign_of(2, 30, threshold=0.6, task_threshold=0.5, early="both")
    assert decided(spec, [True] * 30, [True] * 3) is None
    decision = decided(spec, [True] * 30, [True] * 25)
    assert decision is not None
    assert (decision.outcome, decision.claim) == ("pass", None)
    assert (
        decided(campaign_of(2, 30, threshold=0.6, task_threshold=0.5, early="futility"), [True] * 30, [True] * 25)
        is None
    )


def test_a_campaign_with_a_baseline_to_hold_ends_early_only_where_it_cannot_pass() -> None:
    spec = campaign_of(1, 30, threshold=0.5, early="both", baseline="other", margin=0.05)
    assert decided(spec, [True] * 30) is None
    assert decided(spec, [False] * 20) is not None


def test_nothing_is_decided_where_early_stopping_is_off() -> None:
    assert decided(campaign_of(1, 30, threshold=0.5), [False] * 30) is None


@pytest.mark.parametrize("seed", range(12))
def test_a_decision_stands_whatever_is_played_after_it(seed: int) -> None:
    generator = np.random.default_rng(seed)
    spec = campaign_of(2, 20, threshold=0.7, task_threshold=0.5, early="both")
    first, second = ((generator.random(20) < rate).tolist() for rate in generator.random(2))
    looks = [decided(spec, first[:count], second[: max(0, count - 10)]) is not None for count in range(0, 31, 3)]
    assert looks == sorted(looks)


def test_a_poor_policy_is_refused_soon() -> None:
    """At the threshold 0.9 a policy of 0.5, in one row of 200 episodes, whose arithmetic alone would take 24."""
    spec, looks = campaign_of(1, 200, threshold=0.9, early="futility"), []
    for seed in range(20):
        outcomes = (np.random.default_rng(seed).random(200) < 0.5).tolist()
        looks.append(next(count for count in range(1, 201) if decided(spec, outcomes[:count])))
    assert np.mean(looks) < 15


# against a baseline


def against(folder: Path, *outcomes: Sequence[bool], margin: float = 0.1) -> Campaign:
    """A campaign held against the exported baseline with these outcomes of each task."""
    path = exported(folder / "baseline.json", *outcomes)
    return campaign_of(len(outcomes), len(outcomes[0]), baseline=str(path), margin=margin, early="futility")


def test_losses_against_the_baseline_end_a_campaign_and_are_named(tmp_path: Path) -> None:
    spec = against(tmp_path, [True] * 40)
    assert decided(spec, [False] * 3) is None
    decision = decided(spec, [True, *[False] * 14])
    assert decision is not None
    assert (decision.outcome, decision.rule, decision.policy_path) == ("fail", "evidence", "p")
    assert (decision.successes, decision.episodes, decision.expected) == (1, 15, 40)
    assert decision.sentence.startswith("p: 14 losses and 0 gains in 15 pairs with ")


def test_equal_outcomes_end_nothing_however_low_the_rate(tmp_path: Path) -> None:
    assert decided(against(tmp_path, [False] * 40), [False] * 39) is None


def test_losses_in_a_task_played_first_prove_nothing_while_other_tasks_may_gain(tmp_path: Path) -> None:
    spec = against(tmp_path, [True] * 20, *[[False] * 20] * 9)
    assert decided(spec, [False] * 20) is None


def test_a_baseline_that_lacks_an_episode_of_the_matrix_or_was_edited_ends_nothing(tmp_path: Path) -> None:
    spec = against(tmp_path, [True] * 40)
    path = tmp_path / "baseline.json"
    assert decided(campaign_of(1, 41, baseline=str(path), margin=0.1, early="futility"), [False] * 30) is None
    path.write_text(path.read_text().replace('"success":true', '"success":false', 1))
    assert decided(spec, [False] * 30) is None


def test_of_many_policies_exactly_the_margin_worse_few_are_refused(tmp_path: Path) -> None:
    generator, wrong = np.random.default_rng(24), 0
    baseline = [[True] * 30, [False] * 10 + [True] * 20]
    spec = against(tmp_path, *baseline, margin=0.2)
    assert decided(spec, [False] * 30, [False] * 30) is not None
    for _ in range(60):
        rates = np.where(np.array(baseline), 0.76, 0.0)  # 20 points below 50 of 60
        wrong += decided(spec, *(generator.random((2, 30)) < rates).tolist()) is not None
    assert wrong <= 3
