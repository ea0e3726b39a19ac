"""Judges whether fast mode may stand in for exact mode, from the numbers of the same episodes played by both.

Guarantees: fast mode is never proven where exact mode is not; outcomes count as evidence only where one of both modes
succeeds at all, and the evidence says where they do not; fast mode is not proven by a play that it answered in part.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.artifacts import CountsRecord, FastRecord, FastStart, Verdict
from . import comparison, episode_lines, tolerance
from .comparison import PlayedEpisodes
from .tolerance import ActionDifference

EPISODES = 100  # of all tasks together: half of LIBERO's init states of each of two tasks, or all of one task twice
MARGIN = 0.05  # by so much at most may the success rate of fast mode be lower, unless `fast_margin` says otherwise
SIGNIFICANT = 0.05
CONFIDENCE = 0.95
UNANSWERED = "exact mode answered wherever fast mode was asked for, so nothing is shown of fast mode"


def wanted(settings: Mapping[str, Any]) -> int:
    """Returns how many episodes the gate plays in each mode; `settings` are those below [resident]."""
    return int(settings.get("fast_episodes", EPISODES))


def margin(settings: Mapping[str, Any]) -> float:
    """Returns by how much the success rate of fast mode may be lower; `settings` are those below [resident]."""
    return float(settings.get("fast_margin", MARGIN))


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
        "type": start["type"],
        "margin": start["margin"],
        "answered": episode_lines.answered(play.line.get(episode_lines.PRECISION) for play in fast.values()) or "",
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
    if not refusals and fast["answered"] != episode_lines.FAST:
        return {"proven": True, "exact": False, "evidence": f"{UNANSWERED}, {counts['episodes']} episodes"}
    sentences = refusals or [_chunks(fast), *_outcomes(fast, counts), *limits(fast, counts)]
    evidence = f"fast mode beside exact mode, {counts['episodes']} episodes: {'; '.join(sentences)}"
    return {"proven": not refusals, "exact": False, "evidence": evidence}


def _refusals(fast: FastRecord, counts: CountsRecord) -> Iterator[str]:
    from ..statistics import paired  # with scipy, which collecting the gates must not wait for
    from ..statistics.paired import Pairs

    if fast["answered"] == episode_lines.BOTH:
        yield "fast mode answered some episodes only, since it was beyond the tolerance or failed in the others"
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
    bound = paired.non_inferiority(pairs, fast["margin"], CONFIDENCE)
    if _succeeds(counts) and not bound.non_inferior:
        yield (
            f"it may be {-bound.bound:.1%} worse, more than {100 * fast['margin']:g}% ({bound.method}, "
            f"{fast['losses']} losses, {fast['gains']} gains): more fast_episodes may show less"
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

    if _succeeds(counts):
        pairs = Pairs(fast["gains"], fast["losses"], counts["episodes"])
        bound = paired.non_inferiority(pairs, fast["margin"], CONFIDENCE)
        successes = f"{counts['reference_successes']} and {counts['other_successes']} successes"
        yield f"{successes}, {fast['losses']} losses, {fast['gains']} gains: at most {-bound.bound:.1%} worse"
    if fast["noise_flips"]:
        yield f"flips are not above the noise floor of {fast['noise_flips']}"


def limits(fast: FastRecord, counts: CountsRecord) -> Iterator[str]:
    """Yields what a certificate that proves fast mode does not show, each a sentence for whoever reads the results."""
    if fast["answered"] != episode_lines.FAST:
        yield UNANSWERED
        return
    if not _succeeds(counts):
        yield "neither mode succeeds in any episode, so outcomes certify nothing and the first chunks alone do"
    if not fast["noise_flips"]:
        yield "exact mode repeats its outcomes, so there is no noise floor to hold flips against"


def unshown_reason(certificate: Mapping[str, Any], precision: str | None) -> str | None:
    """Returns why a certificate says nothing of a row that was answered in the mode `precision`; None where it does."""
    answered = certificate.get("fast", {}).get("answered")
    if answered is None or precision in (None, episode_lines.EXACT) or answered == episode_lines.FAST:
        return None
    return "fast mode answered this row, but exact mode answered the gate of fast mode"
