"""Measures how often a side differs from itself, where `tracka noise` has played its episodes again.

A comparison is held against that: among the pairs whose episode was played again, a flip of the candidate alone speaks
for more than noise, and a flip of the repetition alone speaks against it. If the candidate is no other than the
baseline, both are equally likely, whatever the episode; so the exact McNemar test of the two is valid, although both
are counted from the same first outcome.
"""

from collections.abc import Iterable, Iterator, Sequence

from ..core.comparisons import NoiseRecord
from ..core.figures import p_equals, percent
from ..statistics import paired, rate
from ..statistics.paired import Pairs
from ..statistics.rate import Count
from ..statistics.result import Interval
from .episode_pairing import Pairing
from .sides import PlayedEpisode, Side

Outcomes = tuple[bool, bool, bool]  # of one episode: first, played again, and by the other side


def record(pairing: Pairing, confidence: float) -> NoiseRecord | None:
    """Returns how a comparison's flips stand to the noise of A, or else of B; None where neither is known."""
    by_baseline = [(a.success, a.repeated, b.success) for a, b in pairing.pairs if a.repeated is not None]
    by_candidate = [(b.success, b.repeated, a.success) for a, b in pairing.pairs if b.repeated is not None]
    if by_baseline:
        return _record("A", by_baseline, confidence)
    return _record("B", by_candidate, confidence) if by_candidate else None


def _record(side: str, outcomes: Sequence[Outcomes], confidence: float) -> NoiseRecord:
    noise = [first != again for first, again, _ in outcomes]
    flips = [first != other for first, _, other in outcomes]
    alone = [(mine, theirs) for mine, theirs in zip(noise, flips, strict=True) if mine != theirs]
    tested = paired.mcnemar(Pairs(alone.count((True, False)), alone.count((False, True)), len(outcomes)), "less")
    interval = rate.clopper_pearson(Count(sum(noise), len(noise)))
    return {
        "side": side,
        "episodes": len(outcomes),
        "noise_flips": sum(noise),
        "flips": sum(flips),
        "interval": {
            "low": interval.low,
            "high": interval.high,
            "confidence": interval.confidence,
            "method": interval.method,
        },
        "p": tested.value,
        "method": tested.method,
        "is_above": tested.value <= 1 - confidence,
    }


def sentence(noise: NoiseRecord) -> str:
    """Returns how a comparison's flips stand to the noise floor, as a part of a sentence."""
    interval = Interval(**noise["interval"])
    other = "B" if noise["side"] == "A" else "A"
    return (
        f"{other} differs from {noise['side']} in {noise['flips']} of {noise['episodes']} pairs and {noise['side']} "
        f"from itself, played again, in {noise['noise_flips']} ({_ends(interval)}): the flips are "
        f"{'' if noise['is_above'] else 'not '}above the noise floor (one-sided {p_equals(noise['p'])}, "
        f"{noise['method']})"
    )


def lines(side: Side) -> Iterator[str]:
    """Yields what `tracka noise` reports of a side: each flipped episode, then the flip rate with its interval."""
    for episode in side.episodes:
        if episode.repeated not in (None, episode.success):
            yield f"{'loss' if episode.success else 'gain'}: {_place(episode)}"
    if alone := [episode.repeated for episode in side.episodes].count(None):
        yield f"{alone} of {len(side.episodes)} episodes have not been played again, or began otherwise."
    yield rate_in_words(side.episodes)


def rate_in_words(episodes: Iterable[PlayedEpisode]) -> str:
    """Returns the flip rate of the episodes that were played twice, with its interval."""
    flips = [episode.repeated != episode.success for episode in episodes if episode.repeated is not None]
    if not flips:
        return "No episode has been played again, so its noise is unknown."
    count = Count(sum(flips), len(flips))
    ends = _ends(rate.clopper_pearson(count))
    return f"{count.successes} of {count.episodes} episodes flipped when played again: {percent(count.rate)} ({ends})."


def _ends(interval: Interval) -> str:
    ends = f"{percent(interval.low)} to {percent(interval.high)}"
    return f"{percent(interval.confidence)} interval {ends}, {interval.method}"


def _place(episode: PlayedEpisode) -> str:
    suite, task = episode.task
    return f"{suite} {task}, episode {episode.number} (init state {episode.init_state}, seed {episode.seed})"
