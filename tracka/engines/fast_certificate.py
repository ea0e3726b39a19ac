"""Judges whether fast mode may stand in for exact mode, from the numbers of the same episodes played by both.

Guarantees: fast mode is never proven where exact mode is not; outcomes count as evidence only where one of both modes
succeeds at all, and the evidence says where they do not.
"""

from collections.abc import Iterator

from ..core.artifacts import CountsRecord, FastRecord, FastStart, Verdict
from . import comparison, tolerance
from .comparison import PlayedEpisodes
from .tolerance import ActionDifference

EPISODES = 100  # of all tasks together: half of LIBERO's init states of each of two tasks, or all of one task twice
MARGIN = 0.05  # by so much at most may the success rate of fast mode be lower
SIGNIFICANT = 0.05
CONFIDENCE = 0.95


def record(
    start: FastStart, exact: PlayedEpisodes, again: PlayedEpisodes, fast: PlayedEpisodes, chunk: int
) -> FastRecord:
    """Returns what a certificate of fast mode has besides the counts: its start, and what the plays say.

    `again` is exact mode once more, with the choices of cuDNN that rows have.
    """
    outcomes = [tuple(bool(play[name].line["success"]) for play in (exact, again, fast)) for name in sorted(exact)]
    found = _first_chunks(exact, fast, chunk)
    return {
        "exact_key": start["exact_key"],
        "exact_proven": start["exact_proven"],
        "exact_evidence": start["exact_evidence"],
        "answered": start["answered"],
        "type": start["type"],
        "gains": sum(other and not one for one, _, other in outcomes),
        "losses": sum(one and not other for one, _, other in outcomes),
        "noise_flips": sum(one != repeated for one, repeated, _ in outcomes),
        "noise_alone": sum(one != repeated and one == other for one, repeated, other in outcomes),
        "flips_alone": sum(one == repeated and one != other for one, repeated, other in outcomes),
        "mean": found.mean,
        "largest": found.largest,
        "size": found.size,
    }


def _first_chunks(exact: PlayedEpisodes, fast: PlayedEpisodes, chunk: int) -> ActionDifference:
    """Returns the difference of the actions that follow the same first observation; NaN counts as beyond all limits."""
    import numpy as np

    pairs = [(exact[name], fast[name]) for name in sorted(exact) if comparison.begins_alike(exact[name], fast[name])]
    if not pairs:
        return ActionDifference(comparison.BEYOND, comparison.BEYOND, 0.0)
    counts = [min(chunk, len(one.actions), len(other.actions)) for one, other in pairs]
    one, other = (
        np.concatenate([pair[side].actions[:count] for pair, count in zip(pairs, counts, strict=True)])
        for side in (0, 1)
    )
    found = tolerance.difference(one, other)
    is_finite = found.largest < comparison.BEYOND
    return found if is_finite else ActionDifference(comparison.BEYOND, comparison.BEYOND, 1.0)


def judgement(fast: FastRecord, counts: CountsRecord) -> Verdict:
    """Returns the verdict of fast mode. `counts` are those of its play beside that of exact mode."""
    refusals = list(_refusals(fast, counts))
    sentences = refusals or [_chunks(fast), *_outcomes(fast, counts)]
    evidence = f"fast mode beside exact mode, {counts['episodes']} episodes: {'; '.join(sentences)}"
    return {"proven": not refusals, "exact": False, "evidence": evidence}


def _refusals(fast: FastRecord, counts: CountsRecord) -> Iterator[str]:
    from ..statistics import paired  # with scipy, which collecting the gates must not wait for
    from ..statistics.paired import Pairs

    if not fast["exact_proven"]:
        yield f"the exact mode is not proven: {fast['exact_evidence']}"
    if counts["same_begin"] != counts["episodes"]:
        yield f"{counts['episodes'] - counts['same_begin']} of {counts['episodes']} episodes do not begin alike"
    if excess := ActionDifference(fast["mean"], fast["largest"], fast["size"]).excess(fast["type"]):
        yield f"first chunks: {excess}"
    pairs = Pairs(fast["gains"], fast["losses"], counts["episodes"])
    worse = paired.mcnemar(pairs, "less")
    if worse.value <= SIGNIFICANT:
        yield f"{fast['losses']} losses and {fast['gains']} gains, {worse.method} p = {worse.value:.2g}"
    floor = paired.mcnemar(Pairs(fast["noise_alone"], fast["flips_alone"], counts["episodes"]), "less")
    if fast["noise_flips"] and floor.value <= SIGNIFICANT:
        yield f"{pairs.discordant} flips are above the noise floor of {fast['noise_flips']}, p = {floor.value:.2g}"
    bound = paired.non_inferiority(pairs, MARGIN, CONFIDENCE)
    if _succeeds(counts) and not bound.non_inferior:
        yield (
            f"it may be {-bound.bound:.1%} worse, more than {MARGIN:.0%} ({bound.method}, {fast['losses']} losses, "
            f"{fast['gains']} gains): more fast_episodes may show less"
        )


def _succeeds(counts: CountsRecord) -> bool:
    return bool(counts["reference_successes"] or counts["other_successes"])


def _chunks(fast: FastRecord) -> str:
    scale = max(fast["size"], tolerance.LEAST_SIZE)
    limits = f"{tolerance.MEAN[fast['type']]:.2%} and {tolerance.LARGEST[fast['type']]:.2%} would have been refused"
    differences = (
        f"{fast['mean'] / scale:.2%} of the actions' size in the mean and {fast['largest'] / scale:.2%} at most"
    )
    return f"first chunks differ by {differences}, and more than {limits}"


def _outcomes(fast: FastRecord, counts: CountsRecord) -> Iterator[str]:
    from ..statistics import paired
    from ..statistics.paired import Pairs

    if not _succeeds(counts):
        yield "neither mode succeeds in any episode, so outcomes certify nothing and the first chunks alone do"
        return
    pairs = Pairs(fast["gains"], fast["losses"], counts["episodes"])
    bound = paired.non_inferiority(pairs, MARGIN, CONFIDENCE)
    successes = f"{counts['reference_successes']} and {counts['other_successes']} successes"
    yield f"{successes}, {fast['losses']} losses, {fast['gains']} gains: at most {-bound.bound:.1%} worse"
    if fast["noise_flips"]:
        yield f"flips are not above the noise floor of {fast['noise_flips']}"
    else:
        yield "exact mode repeats its outcomes, so there is no noise floor to hold flips against"
