"""Recomputes a verdict's claims on success rates from the episodes, in plain Python: a second way to the same numbers.

It needs neither numpy nor scipy, so it works wherever a bundle is verified. Tails of the binomial distribution are sums
of their terms; a bound is checked by the tail that defines it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from ..campaign.campaign import Campaign
from ..campaign.verdict_settings import VerdictSettings
from ..core.verdicts import CampaignVerdict, Outcome, RateRecord
from ..runs import claims, early_stop, preregistration
from ..runs.claims import Claim, Tally
from . import verdict_words

CLOSE = 1e-6  # how far, relatively, the sums of two programs may differ
BORDER = 1e-9  # a tail that is so near its level may be taken for either side


@dataclass(frozen=True)
class Counting:
    """The tails of a claim under one way to count its lost episodes, and the outcomes that they allow."""

    p_pass: float
    p_fail: float
    possible: frozenset[Outcome]


def unreachable(campaign: Campaign) -> Iterator[str]:
    """Yields each claim that the campaign's episodes cannot show even if all of them succeed."""
    for claim in claims.claims(campaign):
        episodes, settings = claims.expected_episodes(campaign, claim), campaign.verdict or VerdictSettings()
        if claim.threshold**episodes > settings.alpha_pass * (1 + BORDER):
            where = f"{claim.policy_path}, {claim.subject}"
            yield f"{where}: {episodes} of {episodes} episodes would not show {claim.threshold:g}"


def differences(campaign: Campaign, verdict: CampaignVerdict) -> Iterator[str]:
    """Yields where a verdict's claims on rates are not what the campaign's episodes and thresholds give.

    After an early stop the counts are compared alone, since its evidence needs more than sums.
    """
    settings = campaign.verdict or VerdictSettings()
    if verdict["registration"] != preregistration.record(campaign):
        yield "the registration is not the campaign's"
    stop = early_stop.standing(campaign)
    passed = {row.run_id: claims.outcomes(campaign, row) for row in campaign.compared_rows}
    played = early_stop.outcomes(campaign) if stop else passed
    tallies = {claim: claims.tally(campaign, claim, played) for claim in claims.claims(campaign)}
    if len(tallies) != len(verdict["rates"]):
        yield f"it has {len(verdict['rates'])} claims on rates, and the campaign {len(tallies)}"
        return
    with_sums = not stop and not verdict["baselines"]  # a claim against a baseline is adjusted together with these
    worst = _countings(settings, [(claim, tally, tally.successes) for claim, tally in tallies.items()])
    best = _countings(settings, [(claim, tally, tally.successes + tally.lost) for claim, tally in tallies.items()])
    for (claim, tally), record, as_failures, as_successes in zip(
        tallies.items(), verdict["rates"], worst, best, strict=True
    ):
        found = [*_count_differences(claim, tally, record)]
        if with_sums:
            found += [*_sum_differences(settings, tally, record, as_failures, as_successes)]
        yield from (f"{claim.policy_path}, {claim.subject}: {what}" for what in found)
    yield from _whole_differences(campaign, verdict)


def _whole_differences(campaign: Campaign, verdict: CampaignVerdict) -> Iterator[str]:
    """Yields where outcome and sentence of the verdict are not those of its claims."""
    records: list[verdict_words.ClaimRecord] = [*verdict["rates"], *verdict["baselines"]]
    outcomes = [record["outcome"] for record in records]
    order: tuple[Outcome, ...] = ("fail", "invalid", "underpowered")
    outcome = next((each for each in order if each in outcomes), "pass")
    if verdict["outcome"] != outcome:
        yield f"the outcome is {verdict['outcome']}, but its claims give {outcome}"
    if verdict["sentence"] != verdict_words.sentence(outcome, records, verdict["notes"], campaign.layout.tier):
        yield "the sentence is not that of its claims"


def _countings(settings: VerdictSettings, counted: Sequence[tuple[Claim, Tally, int]]) -> list[Counting]:
    """Returns the counting of each claim with so many successes, failures adjusted for all claims by Holm."""
    passing = [at_least_probability(wins, tally.expected, claim.threshold) for claim, tally, wins in counted]
    failing = _holm([at_most_probability(wins, tally.expected, claim.threshold) for claim, tally, wins in counted])
    return [
        Counting(p_pass, p_fail, _possible(settings, p_pass, p_fail))
        for p_pass, p_fail in zip(passing, failing, strict=True)
    ]


def _possible(settings: VerdictSettings, p_pass: float, p_fail: float) -> frozenset[Outcome]:
    """Returns the outcomes that the tails allow: two of them where a tail is as good as equal to its level."""
    possible: set[Outcome] = set()
    below = p_fail - settings.alpha_fail * (1 - BORDER)
    if p_pass <= settings.alpha_pass * (1 + BORDER):
        possible.add("pass")
    if p_pass > settings.alpha_pass * (1 - BORDER):
        possible |= {"fail"} if below < 0 else {"fail", "underpowered"} if below < BORDER else {"underpowered"}
    return frozenset(possible)


def _holm(tails: Sequence[float]) -> list[float]:
    """Returns the tails adjusted for all of them together, in their order."""
    order = sorted(range(len(tails)), key=lambda index: tails[index])
    adjusted, highest = [0.0] * len(tails), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(tails) - rank) * tails[index]))
        adjusted[index] = highest
    return adjusted


def _count_differences(claim: Claim, tally: Tally, record: RateRecord) -> Iterator[str]:
    facts: dict[str, object] = {
        "policy_path": claim.policy_path,
        "suite": claim.suite,
        "task": claim.task,
        "threshold": claim.threshold,
        "successes": tally.successes,
        "episodes": tally.episodes,
        "lost": tally.lost,
        "invalid": [*tally.invalid],
    }
    shown: Mapping[str, object] = {**record}
    for key, value in facts.items():
        if shown[key] != value:
            yield f"{key} is {shown[key]!r}, but the episodes give {value!r}"


def _sum_differences(
    settings: VerdictSettings, tally: Tally, record: RateRecord, worst: Counting, best: Counting
) -> Iterator[str]:
    interval = _interval(tally, record)
    for key, shown, number in (
        ("p_pass", record["p_pass"], worst.p_pass),
        ("p_fail", record["p_fail"], best.p_fail),
        ("interval.low", record["interval"]["low"], interval[0]),
        ("interval.high", record["interval"]["high"], interval[1]),
    ):
        if not math.isclose(shown, number, rel_tol=CLOSE, abs_tol=1e-12):
            yield f"{key} is {shown:g}, but the episodes give {number:g}"
    yield from _bound_differences(settings, tally, record)
    pair = (record["lost_as_failures"], record["lost_as_successes"])
    if pair[0] not in worst.possible or pair[1] not in best.possible:
        yield f"the outcomes are {pair[0]} and {pair[1]}, which the tails do not give"
    expected = "invalid" if tally.invalid or pair[0] != pair[1] else pair[0]
    if record["outcome"] != expected:
        yield f"the outcome is {record['outcome']}, but the countings give {expected}"
    if record["sentence"] != verdict_words.rate(record, settings.confidence):
        yield "the sentence is not that of its numbers"


def _interval(tally: Tally, record: RateRecord) -> tuple[float, float]:
    """Returns Wilson's interval of the episodes that were played, at the confidence of the record."""
    if not tally.episodes:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + record["interval"]["confidence"]) / 2)
    rate, spread = tally.successes / tally.episodes, z * z / tally.episodes
    middle = (rate + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (rate * (1 - rate) + spread / 4)) / (1 + spread)
    low = 0.0 if tally.successes == 0 else middle - half
    return low, 1.0 if tally.successes == tally.episodes else middle + half


def _bound_differences(settings: VerdictSettings, tally: Tally, record: RateRecord) -> Iterator[str]:
    worst, best = tally.successes, tally.successes + tally.lost
    low, high = record["low"], record["high"]
    if worst == 0:
        fits = low == 0.0
    else:
        fits = math.isclose(at_least_probability(worst, tally.expected, low), settings.alpha_pass, rel_tol=CLOSE)
    if not fits:
        yield f"the lower bound, {low:g}, is not that of {worst} of {tally.expected} episodes"
    if best == tally.expected:
        fits = high == 1.0
    else:
        fits = math.isclose(at_most_probability(best, tally.expected, high), settings.alpha_fail, rel_tol=CLOSE)
    if not fits:
        yield f"the upper bound, {high:g}, is not that of {best} of {tally.expected} episodes"


def at_least_probability(successes: int, episodes: int, rate: float) -> float:
    """Returns P(X >= successes) of so many episodes with this success rate."""
    return 1.0 if successes <= 0 else _sum(range(successes, episodes + 1), episodes, rate)


def at_most_probability(successes: int, episodes: int, rate: float) -> float:
    """Returns P(X <= successes) of so many episodes with this success rate."""
    return 1.0 if successes >= episodes else _sum(range(successes + 1), episodes, rate)


def _sum(counts: range, episodes: int, rate: float) -> float:
    if rate in (0.0, 1.0):
        return float((episodes if rate else 0) in counts)
    all_ways, yes, no = math.lgamma(episodes + 1), math.log(rate), math.log1p(-rate)
    return math.fsum(
        math.exp(
            all_ways
            - math.lgamma(count + 1)
            - math.lgamma(episodes - count + 1)
            + count * yes
            + (episodes - count) * no
        )
        for count in counts
    )
