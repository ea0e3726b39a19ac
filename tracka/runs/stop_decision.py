"""Decides by the episodes so far whether a campaign may end before all of them are played.

Two rules decide. Arithmetic ends a campaign whose outcome the remaining episodes cannot change, and takes no chance of
a mistake. Evidence ends it by bounds on success rates that may be looked at after each episode
(`statistics.sequential`). Those of a task take its episodes in the order in which the matrix deals them, never in the
order in which they end: successes end sooner. The bound of a suite is the mean of its tasks' bounds, weighted by their
episodes, and a task that has not begun may still have every rate. So the order in which tasks are played, and which of
them have begun, makes no decision wrong: a hard task played first proves nothing of a suite.

Where evidence may decide, it takes half of the chance of a wrong decision and the test at the end the other half
(`VerdictSettings.alpha_pass`, `alpha_fail`). For a fail each half is divided among all claims, as the first step of
Holm does; a pass needs every claim, so none is divided.

Guarantees: a decision stands whatever is played after it, so the same files give it again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from ..campaign.campaign import Campaign
from ..campaign.verdict_settings import VerdictSettings
from ..core.figures import percent
from . import baseline_pairs, claims
from .claims import Claim, Outcomes

Rule = Literal["arithmetic", "evidence"]
StopOutcome = Literal["pass", "fail", "underpowered"]


@dataclass(frozen=True)
class Played:
    """The outcomes so far by run id.

    Of a batch of lerobot-eval that plays only the number of successes is known, not their places. The successes stand
    first in `successes_first` and last in `failures_first`. So looks inside of such a batch show no more evidence for a
    fail, or for a pass, than the look at its end.
    """

    successes_first: Mapping[str, Outcomes]
    failures_first: Mapping[str, Outcomes]
    known: Mapping[str, Outcomes]  # only those whose places are known


@dataclass(frozen=True)
class Decision:
    """Why a campaign may end: `sentence` says it with its counts.

    `outcome` is what the campaign's verdict is however the remaining episodes would go: underpowered, where it cannot
    pass any more and has not failed. `claim` is None where every claim has passed, and where `policy_path` was shown to
    be worse than the baseline by more than the margin.
    """

    outcome: StopOutcome
    rule: Rule
    claim: Claim | None
    successes: int
    episodes: int
    expected: int
    sentence: str
    policy_path: str | None = None


@dataclass(frozen=True)
class _Counts:
    """What is known of a claim: the outcomes of each task from its first episode on, and how many are expected."""

    claim: Claim
    successes: int
    episodes: int
    expected: int
    first: Mapping[int, tuple[bool, ...]]  # task -> outcomes of its first episodes, up to one without outcome
    weights: Mapping[int, float]  # task -> its share of the claim's episodes

    @property
    def most(self) -> int:
        """Returns the successes at the end if all remaining episodes succeed."""
        return self.successes + self.expected - self.episodes


def decide(campaign: Campaign, played: Played) -> Decision | None:
    """Returns why the campaign may end now; None where it goes on, and where early stopping is off."""
    settings = campaign.verdict
    if settings is None or settings.early == "off":
        return None
    stated = claims.claims(campaign)
    policies = dict.fromkeys(path for path, _ in claims.subjects(campaign)) if settings.baseline else ()
    n_claims = len(stated) + len(policies)
    counts = [_counts(campaign, claim, played.successes_first) for claim in stated]
    decisions = [each for claim in counts for each in _against(settings, claim, n_claims)]
    decisions += [each for path in policies for each in _below_baseline(campaign, settings, path, played, n_claims)]
    decisions.sort(key=lambda decision: decision.outcome != "fail")
    if decisions or settings.early != "both" or settings.baseline or not stated:
        return decisions[0] if decisions else None
    return _for(settings, [_counts(campaign, claim, played.failures_first) for claim in stated])


def _counts(campaign: Campaign, claim: Claim, played: Mapping[str, Outcomes]) -> _Counts:
    expected = claims.expected_outcomes(played, campaign, claim)
    tasks: dict[int, list[bool | None]] = {}
    for start, outcome in expected.items():
        tasks.setdefault(start[0], []).append(outcome)
    known = [outcome for outcome in expected.values() if outcome is not None]
    return _Counts(
        claim,
        sum(known),
        len(known),
        len(expected),
        {task: _first(outcomes) for task, outcomes in tasks.items()},
        {task: len(outcomes) / len(expected) for task, outcomes in tasks.items()},
    )


def _first(outcomes: list[bool | None]) -> tuple[bool, ...]:
    return tuple(bool(outcome) for outcome in takewhile(lambda outcome: outcome is not None, outcomes))


def _against(settings: VerdictSettings, counts: _Counts, n_claims: int) -> Iterator[Decision]:
    """Yields why the claim has failed, or cannot pass any more.

    A claim that could not pass if every episode succeeded ends nothing: phase 1 says so, and nothing would be played.
    """
    from ..statistics import rate

    level, threshold = settings.alpha_fail / n_claims, counts.claim.threshold
    if rate.fails(counts.most, counts.expected, threshold, 1 - level):
        yield _decision("fail", "arithmetic", counts, f"{_lost(counts)}, which is a fail whatever the rest does")
    bound = _upper_bound(counts, level)
    if bound < threshold:
        yield _decision("fail", "evidence", counts, f"{_so_far(counts)}, and its rate is at most {percent(bound)}")
    passes_at_best = rate.passes(counts.most, counts.expected, threshold, 1 - settings.alpha_pass)
    could_pass = rate.passes(counts.expected, counts.expected, threshold, 1 - settings.alpha_pass)
    if could_pass and not passes_at_best:
        what = f"{_lost(counts)}, so it cannot pass any more: {counts.most} of {counts.expected} would be too few"
        yield _decision("underpowered", "arithmetic", counts, what)


def _below_baseline(
    campaign: Campaign, settings: VerdictSettings, policy_path: str, played: Played, n_claims: int
) -> Iterator[Decision]:
    """Yields that the policy is worse than the baseline by more than the margin, by its pairs so far."""
    tasks = baseline_pairs.of_policy(campaign, policy_path, played.known)
    if not tasks or settings.margin is None:
        return
    bound = baseline_pairs.upper_difference(tasks, settings.alpha_fail / n_claims)
    if bound < -settings.margin:
        gains, losses = sum(sum(task.gains) for task in tasks), sum(sum(task.losses) for task in tasks)
        pairs, expected = sum(len(task.gains) for task in tasks), sum(task.expected for task in tasks)
        what = f"{losses} losses and {gains} gains in {pairs} pairs with {settings.baseline}"
        sentence = f"{policy_path}: {what}, and it is at least {100 * -bound:.1f} points worse"
        successes = sum(task.successes for task in tasks)
        yield Decision("fail", "evidence", None, successes, pairs, expected, sentence, policy_path)


def _for(settings: VerdictSettings, counts: list[_Counts]) -> Decision | None:
    """Returns why every claim has passed, each by arithmetic or by evidence; None where one has not."""
    from ..statistics import rate

    by_arithmetic = [
        bool(rate.passes(each.successes, each.expected, each.claim.threshold, 1 - settings.alpha_pass))
        for each in counts
    ]
    by_evidence = [_lower_bound(each, settings.alpha_pass) >= each.claim.threshold for each in counts]
    if not all(map(any, zip(by_arithmetic, by_evidence, strict=True))):
        return None
    largest = max(counts, key=lambda each: each.expected)
    rule: Rule = "arithmetic" if all(by_arithmetic) else "evidence"
    what = "every claim has passed" + (", whatever the rest does" if rule == "arithmetic" else "")
    sentence = f"{largest.claim.subject}: {_so_far(largest)}, and {what}"
    return Decision("pass", rule, None, largest.successes, largest.episodes, largest.expected, sentence)


def _upper_bound(counts: _Counts, level: float) -> float:
    """Returns an upper bound of the claim's rate, each task's at its share of `level`; see the module's docstring."""
    from ..statistics import sequential

    each = level / len(counts.first)
    return sum(counts.weights[task] * sequential.upper_rate(first, each) for task, first in counts.first.items())


def _lower_bound(counts: _Counts, level: float) -> float:
    from ..statistics import sequential

    each = level / len(counts.first)
    return sum(counts.weights[task] * sequential.lower_rate(first, each) for task, first in counts.first.items())


def _decision(outcome: StopOutcome, rule: Rule, counts: _Counts, what: str) -> Decision:
    sentence = f"{counts.claim.subject}, threshold {percent(counts.claim.threshold)}: {what}"
    return Decision(outcome, rule, counts.claim, counts.successes, counts.episodes, counts.expected, sentence)


def _lost(counts: _Counts) -> str:
    return f"{counts.episodes - counts.successes} of {counts.episodes} episodes failed"


def _so_far(counts: _Counts) -> str:
    return f"{counts.successes} of {counts.episodes} episodes succeeded"
