"""Whole campaigns that may end early, with tasks of 5% and of 95%: how often they are refused or accepted wrongly.

A decision stands whatever is played after it (test_stop_decision.py), so a campaign has stopped at some look if and
only if it is decided at its end. Each rate is exactly its threshold: both a pass and a fail are wrong.
"""

import numpy as np
import pytest
from stopping import campaign_of, decided

MIXES = {"one hard task of ten": [0.05] + [0.95] * 9, "half of them hard": [0.05] * 5 + [0.95] * 5}
ALPHA = 0.05


def false_decisions(rates: list[float], episodes: int, campaigns: int, seed: int) -> dict[str, float]:
    """Returns the shares of simulated campaigns that end with each outcome, of a suite and of each of its tasks."""
    tasks = {f"libero_object/{task}": rate for task, rate in enumerate(rates)}
    spec = campaign_of(len(rates), episodes, threshold=float(np.mean(rates)), tasks=tasks, early="both")
    generator, ends = np.random.default_rng(seed), []
    for _ in range(campaigns):
        outcomes = generator.random((len(rates), episodes)) < np.array(rates)[:, None]
        decision = decided(spec, *outcomes.tolist())
        ends.append(decision.outcome if decision else None)
    return {outcome: ends.count(outcome) / campaigns for outcome in ("pass", "fail")}


@pytest.mark.parametrize("mix", MIXES)
def test_few_simulated_campaigns_are_decided_wrongly(mix: str) -> None:
    assert max(false_decisions(MIXES[mix], episodes=8, campaigns=40, seed=7).values()) <= ALPHA


@pytest.mark.slow
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize(("episodes", "campaigns"), [(10, 1000), (50, 200)])
def test_of_many_simulated_campaigns_few_are_decided_wrongly(mix: str, episodes: int, campaigns: int) -> None:
    assert max(false_decisions(MIXES[mix], episodes, campaigns, seed=24).values()) <= ALPHA
