"""Tests each policy of a campaign against the baseline that `[verdict]` names: is it at most the margin worse?

The episodes are paired where they begin alike. Lost episodes are counted as failures and as successes, as for rates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..campaign.campaign import Campaign
from ..campaign.verdict_settings import VerdictSettings
from ..core.comparisons import Compared, Comparison, RateRecord
from ..core.errors import Finding, UsageError
from ..runs import claims
from ..statistics import paired, unpaired
from ..statistics.paired import Pairs
from ..statistics.rate import MOST_EPISODES, Count
from . import comparison_report, played_episodes
from .claim_tests import Tails, bound_tails
from .sides import PlayedEpisode, Side

UNKNOWN = Tails(1.0, 1.0)  # of a claim that cannot be tested
Bound = Callable[[float], float]  # confidence -> one-sided bound of the difference


@dataclass(frozen=True)
class BaselineClaim:
    """A policy against the baseline: what was compared, and both countings of the `lost` episodes.

    `reason` says why the two cannot be compared, and is empty where they can.
    """

    policy_path: str
    baseline: str
    margin: float
    lost: int
    compared: Compared | None
    pairs: int
    worst: Tails
    best: Tails
    reason: str = ""


def make(campaign: Campaign) -> list[BaselineClaim]:
    """Returns the claims of a campaign against its baseline, one a policy; none where it names no baseline."""
    settings = campaign.verdict
    if settings is None or settings.baseline is None or settings.margin is None:
        return []
    policies = dict.fromkeys(policy_path for policy_path, _ in claims.subjects(campaign))
    return [_claim(campaign, settings.baseline, settings.margin, policy_path) for policy_path in policies]


def faults(campaign: Campaign) -> list[Finding]:
    """Returns why the baseline of `[verdict]` cannot be read; an empty list where it can, or where none is named."""
    settings = campaign.verdict or VerdictSettings()
    if settings.baseline is None:
        return []
    try:
        played_episodes.read(campaign.layout.root / settings.baseline)
    except UsageError as error:
        return list(error.findings)
    return []


def _claim(campaign: Campaign, baseline: str, margin: float, policy_path: str) -> BaselineClaim:
    lost = 0
    try:
        ours = played_episodes.read(campaign.layout.root / baseline)
        place = played_episodes.named(campaign.layout.naming_folder, policy_path)
        theirs = played_episodes.of_campaign(campaign, place)
        missing = _missing(campaign, policy_path, theirs)
        lost = len(missing)
        worst, best = (
            comparison_report.compare_sides(ours, _filled(theirs, missing, success)) for success in (False, True)
        )
        shown = comparison_report.compare_sides(ours, theirs) if theirs.episodes else worst
    except UsageError as error:
        reason = "; ".join(finding.what for finding in error.findings)
        return BaselineClaim(policy_path, baseline, margin, lost, None, 0, UNKNOWN, UNKNOWN, reason)
    tails = (_tails(worst, margin), _tails(best, margin))
    return BaselineClaim(policy_path, baseline, margin, lost, shown["overall"], shown["pairing"]["pairs"], *tails)


def _filled(side: Side, missing: Sequence[PlayedEpisode], success: bool) -> Side:
    """Returns `side` with the missing episodes, all with this outcome."""
    return replace(side, episodes=(*side.episodes, *(replace(episode, success=success) for episode in missing)))


def _missing(campaign: Campaign, policy_path: str, side: Side) -> list[PlayedEpisode]:
    """Returns the episodes that the matrix asks for and that `side` has no outcome of, each once, as failures."""
    played = {_beginning(episode) for episode in side.episodes}
    expected = {_beginning(episode): episode for episode in _expected(campaign, policy_path)}
    return [episode for beginning, episode in expected.items() if beginning not in played]


def _beginning(episode: PlayedEpisode) -> tuple[object, ...]:
    return episode.task, episode.number, episode.init_state, episode.seed, episode.reset_ordinal


def _expected(campaign: Campaign, policy_path: str) -> Iterator[PlayedEpisode]:
    for row in campaign.compared_rows:
        for task, number, init_state, seed, ordinal in (
            claims.starts(campaign, row) if row.policy_path == policy_path else ()
        ):
            place, length = (row.task_suite, task), campaign.steps(row)
            yield PlayedEpisode(place, number, init_state, False, None, seed, ordinal, length, fixed_start=True)


def _tails(comparison: Comparison, margin: float) -> Tails:
    return bound_tails(*bounds(comparison["overall"], comparison["pairing"]["pairs"]), -margin)


def bounds(compared: Compared, pairs: int) -> tuple[Bound, Bound]:
    """Returns the lower and the upper one-sided bound of the difference, as functions of the confidence."""
    return _bounds(compared, pairs, 1.0)


def _bounds(compared: Compared, pairs: int, times: float) -> tuple[Bound, Bound]:
    """Returns the bounds as they would be if each count had been so many times as large."""
    if pairs:
        counts = Pairs(*(round(times * (each or 0)) for each in (compared["gains"], compared["losses"], pairs)))
        return (
            lambda confidence: paired.tango(counts, 2 * confidence - 1).low,
            lambda confidence: paired.tango(counts, 2 * confidence - 1).high,
        )
    ours, theirs = (_scaled(compared[side], times) for side in ("baseline", "candidate"))
    return (
        lambda confidence: unpaired.newcombe(theirs, ours, 2 * confidence - 1).low,
        lambda confidence: unpaired.newcombe(theirs, ours, 2 * confidence - 1).high,
    )


def _scaled(rate: RateRecord, times: float) -> Count:
    episodes = round(times * rate["episodes"])
    return Count(min(episodes, round(times * rate["successes"])), episodes)


def more_episodes(claim: BaselineClaim, settings: VerdictSettings) -> int | None:
    """Returns how many more episodes would about decide the claim at the observed rates; None where none are known to.

    The number is doubled until it decides, and then halved down; MOST_EPISODES are the most.
    """
    if claim.compared is None:
        return None
    episodes = claim.compared["candidate"]["episodes"]
    few, many = 1.0, 1.0
    while not _decides(claim, settings, many):
        few, many = many, 2 * many
        if many * episodes > MOST_EPISODES:
            return None
    while (many - few) * episodes > 1:
        middle = (few + many) / 2
        few, many = (few, middle) if _decides(claim, settings, middle) else (middle, many)
    return round((many - 1) * episodes)


def _decides(claim: BaselineClaim, settings: VerdictSettings, times: float) -> bool:
    assert claim.compared is not None
    lower, upper = _bounds(claim.compared, claim.pairs, times)
    passes = lower(1 - settings.alpha_pass) > -claim.margin
    return passes or upper(1 - settings.alpha_fail) < -claim.margin
