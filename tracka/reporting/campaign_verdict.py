"""Makes the verdict of a campaign with `[verdict]`: each claim tested, one outcome, one sentence.

The verdict is made from the run folders alone, so it can be made again and compared. `gates` decide by it; nothing here
looks at a phase.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..campaign.campaign import Campaign
from ..campaign.verdict_settings import VerdictSettings
from ..core import schema
from ..core.verdicts import BaselineRecord, CampaignVerdict, RateRecord
from ..runs import claims, early_stop, preregistration
from ..runs.claims import Claim, Outcomes, Tally
from ..runs.stop_decision import Decision
from ..statistics import rate, tasks
from ..statistics.rate import Count
from . import baseline_claims, claim_tests, verdict_words
from .baseline_claims import BaselineClaim
from .claim_tests import Tails, Tested

FEWEST = 2  # tasks that can disagree


@dataclass(frozen=True)
class Side:
    """What one claim is tested by: the tails with its lost episodes counted as failures, and as successes."""

    worst: Tails
    best: Tails


def make(campaign: Campaign) -> CampaignVerdict:
    """Returns the campaign's verdict, by the results on disk. The campaign must have a `[verdict]`."""
    settings, stop = campaign.verdict or VerdictSettings(), early_stop.standing(campaign)
    passed = {row.run_id: claims.outcomes(campaign, row) for row in campaign.compared_rows}
    played = early_stop.outcomes(campaign) if stop else passed  # after a stop also of rows that were ended part-way
    tallies = {claim: claims.tally(campaign, claim, played) for claim in claims.claims(campaign)}
    sides = [_side(claim, tally) for claim, tally in tallies.items()]
    against = baseline_claims.make(campaign)
    tested = claim_tests.judge([*sides, *against], settings.alpha_pass, settings.alpha_fail)
    rates = [
        _rate_record(settings, claim, tally, each)
        for (claim, tally), each in zip(tallies.items(), tested[: len(tallies)], strict=True)
    ]
    baselines = [
        _baseline_record(settings, claim, each) for claim, each in zip(against, tested[len(tallies) :], strict=True)
    ]
    if stop:
        rates = [_after_stop(stop, record, settings.confidence) for record in rates]
        baselines = [_baseline_after_stop(stop, record, settings.confidence) for record in baselines]
    records: list[verdict_words.ClaimRecord] = [*rates, *baselines]
    outcome = claim_tests.campaign_outcome([record["outcome"] for record in records])
    registration = preregistration.record(campaign)
    notes = [*verdict_words.registration(registration), *_disagreements(campaign, settings, passed)]
    notes += [verdict_words.early_stop(early_stop.in_words(stop))] if stop else []
    return {
        "schema_version": schema.VERSION,
        "tier": campaign.layout.tier,
        "outcome": outcome,
        "sentence": verdict_words.sentence(outcome, records, notes, campaign.layout.tier),
        "confidence": settings.confidence,
        "registration": registration,
        "rates": rates,
        "baselines": baselines,
        "notes": notes,
    }


def _after_stop(stop: Decision, record: RateRecord, confidence: float) -> RateRecord:
    """Returns the record of a claim after an early stop.

    Evidence may have decided the claim. Otherwise episodes that were not played leave it underpowered: they are not
    lost, so the claim is not invalid by them.
    """
    claim = Claim(record["policy_path"], record["suite"], record["task"], record["threshold"])
    is_decided = stop.rule == "evidence" and stop.policy_path is None and stop.claim in (None, claim)
    if record["invalid"] or (record["outcome"] != "invalid" and not is_decided) or record["outcome"] == stop.outcome:
        return record
    changed: RateRecord = {**record, "outcome": stop.outcome if is_decided else "underpowered"}
    sentence = verdict_words.by_evidence(changed) if is_decided else verdict_words.rate(changed, confidence)
    return {**changed, "sentence": sentence}


def _baseline_after_stop(stop: Decision, record: BaselineRecord, confidence: float) -> BaselineRecord:
    """Returns the record of a claim against the baseline after an early stop: no missing episode makes it invalid."""
    if record["policy_path"] == stop.policy_path and record["outcome"] != "fail":
        return {**record, "outcome": "fail", "sentence": verdict_words.early_stop(stop.sentence)}
    if record["outcome"] != "invalid" or record["difference"] is None:
        return record
    changed: BaselineRecord = {**record, "outcome": "underpowered"}
    return {**changed, "sentence": verdict_words.baseline(changed, confidence)}


def _side(claim: Claim, tally: Tally) -> Side:
    worst, best = _extremes(tally)
    return Side(claim_tests.rate_tails(worst, claim.threshold), claim_tests.rate_tails(best, claim.threshold))


def _extremes(tally: Tally) -> tuple[Count, Count]:
    """Returns the counts with all lost episodes as failures, and with all as successes."""
    return Count(tally.successes, tally.expected), Count(tally.successes + tally.lost, tally.expected)


def _rate_record(settings: VerdictSettings, claim: Claim, tally: Tally, tested: Tested) -> RateRecord:
    count, (worst, best) = Count(tally.successes, tally.episodes), _extremes(tally)
    planned = rate.verdict(count, claim.threshold, settings.confidence)
    shown = rate.wilson(count, settings.confidence)
    record: RateRecord = {
        "policy_path": claim.policy_path,
        "suite": claim.suite,
        "task": claim.task,
        "threshold": claim.threshold,
        "successes": tally.successes,
        "episodes": tally.episodes,
        "rate": count.rate if tally.episodes else None,
        "interval": {
            "low": shown.low,
            "high": shown.high,
            "confidence": shown.confidence,
            "method": shown.method,
        },
        "low": rate.lower_bound(worst, 1 - settings.alpha_pass),
        "high": rate.upper_bound(best, 1 - settings.alpha_fail),
        "p_pass": tested.p_pass,
        "p_fail": tested.p_fail,
        "lost": tally.lost,
        "lost_as_failures": tested.lost_as_failures,
        "lost_as_successes": tested.lost_as_successes,
        "outcome": "invalid" if tally.invalid else tested.outcome,
        "more_episodes": planned.more_episodes,
        "least_to_pass": rate.least_to_pass(claim.threshold, 1 - settings.alpha_pass),
        "invalid": [*tally.invalid],
        "method": rate.ONE_SIDED,
        "sentence": "",
    }
    record["sentence"] = verdict_words.rate(record, settings.confidence)
    return record


def _baseline_record(settings: VerdictSettings, claim: BaselineClaim, tested: Tested) -> BaselineRecord:
    compared, low, high = claim.compared, -1.0, 1.0
    if compared is not None:
        lower, upper = baseline_claims.bounds(compared, claim.pairs)
        low, high = lower(1 - settings.alpha_pass), upper(1 - settings.alpha_fail)
    record: BaselineRecord = {
        "policy_path": claim.policy_path,
        "baseline": claim.baseline,
        "margin": claim.margin,
        "baseline_rate": compared["baseline"]["rate"] if compared else None,
        "candidate_rate": compared["candidate"]["rate"] if compared else None,
        "difference": compared["difference"] if compared else None,
        "pairs": claim.pairs,
        "gains": compared["gains"] if compared else None,
        "losses": compared["losses"] if compared else None,
        "low": low,
        "high": high,
        "p_pass": tested.p_pass,
        "p_fail": tested.p_fail,
        "lost": claim.lost,
        "lost_as_failures": tested.lost_as_failures,
        "lost_as_successes": tested.lost_as_successes,
        "outcome": tested.outcome if compared else "invalid",
        "more_episodes": baseline_claims.more_episodes(claim, settings),
        "method": "Tango score, one-sided" if claim.pairs else "Newcombe, one-sided",
        "sentence": "",
    }
    record["sentence"] = verdict_words.baseline(record, settings.confidence, claim.reason)
    return record


def _disagreements(campaign: Campaign, settings: VerdictSettings, passed: Mapping[str, Outcomes]) -> Iterator[str]:
    """Yields each suite in which a policy's tasks have unequal rates, which one rate of the suite hides."""
    for policy_path, suite in claims.subjects(campaign) if settings.threshold is not None else ():
        counts = _task_counts(campaign, policy_path, suite, passed)
        if len(counts) < FEWEST:
            continue
        p_value = tasks.equal_rates([*counts.values()])
        if p_value.value <= 1 - settings.confidence:
            rates = sorted(((task, count.rate) for task, count in counts.items()), key=lambda each: each[1])
            yield verdict_words.disagreement(f"{policy_path} on {suite}", rates, p_value.value, p_value.method)


def _task_counts(
    campaign: Campaign, policy_path: str, suite: str, passed: Mapping[str, Outcomes]
) -> Mapping[int, Count]:
    """Returns the episodes that a policy has played in each task of a suite; a task without any is left out."""
    rows = claims.rows(campaign, Claim(policy_path, suite, None, 0.5))
    suite_tasks = sorted({task for row in rows for task in campaign.task_ids(row)})
    tallies = {task: claims.tally(campaign, Claim(policy_path, suite, task, 0.5), passed) for task in suite_tasks}
    return {task: Count(tally.successes, tally.episodes) for task, tally in tallies.items() if tally.episodes}
