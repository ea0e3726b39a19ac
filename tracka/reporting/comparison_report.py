"""Compares what a candidate has played with what its baseline has played: rates, tests, flips, and a verdict.

The verdict is that of all episodes together, one-sided at 1 - confidence. The tasks are tested too, and adjusted for
their number. The methods are those of `tracka.statistics`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from ..core import schema
from ..core.comparisons import (
    Compared,
    ComparedTask,
    Comparison,
    Flip,
    IntervalRecord,
    NonInferiorityRecord,
    PairingRecord,
    PValueRecord,
    RateRecord,
    SideRecord,
)
from ..core.errors import Finding, UsageError, collect_findings
from ..statistics import paired, power, tasks, unpaired
from ..statistics.paired import Pairs
from ..statistics.rate import Count
from ..statistics.result import Alternative, Interval, PValue
from . import comparison_words, noise_floor, played_episodes
from .episode_pairing import Episodes, Pairing, pair
from .sides import PlayedEpisode, Side, Task

POWER = 0.8  # the chance with which a minimum drop is shown

Test = Callable[[Alternative], PValue]


@dataclass(frozen=True)
class Counts:
    """The successes of both sides; `pairs` is None where their episodes are not paired."""

    baseline: Count
    candidate: Count
    pairs: Pairs | None

    @property
    def difference(self) -> float:
        """The candidate's rate minus the baseline's."""
        return self.candidate.rate - self.baseline.rate


def compare(baseline: Path, candidate: Path, confidence: float = 0.95, margin: float | None = None) -> Comparison:
    """Returns the comparison of what was played at two paths, each as `played_episodes.read` takes it.

    Raises UsageError with everything that keeps the two from being compared, and with what could be compared.
    """
    findings: list[Finding] = []
    sides = [collect_findings(findings, partial(played_episodes.read, path)) for path in (baseline, candidate)]
    is_same = played_episodes.is_same(baseline, candidate)
    if findings:
        what = f"{comparison_words.SAME}, so there is nothing to compare"
        same = [Finding(str(candidate), what, "Name another campaign as B")] if is_same else []
        raise UsageError([*dict.fromkeys([*same, *findings])])
    ours, theirs = cast(list[Side], sides)
    comparison = compare_sides(ours, theirs, confidence, margin)
    comparison["notes"][:0] = [f"{comparison_words.SAME}: all pairs are equal, which shows nothing."] if is_same else []
    return comparison


def compare_sides(ours: Side, theirs: Side, confidence: float = 0.95, margin: float | None = None) -> Comparison:
    """Returns the comparison of a baseline's episodes with a candidate's. Raises UsageError as `compare` does."""
    pairing = pair(ours, theirs)
    by_task = _counts_by_task(pairing)
    total = _total([*by_task.values()])
    alpha = 1 - confidence
    overall = _compared(total, _test_of_all([*by_task.values()], total), confidence, alpha)
    each = _compared_tasks(by_task, confidence)
    bound = None if margin is None else _non_inferiority(total, margin, confidence)
    noise = noise_floor.record(pairing, confidence)
    verdict = comparison_words.verdict(overall, bound, alpha)
    return {
        "schema_version": schema.VERSION,
        "baseline": _side_record(ours, pairing.baseline),
        "candidate": _side_record(theirs, pairing.candidate),
        "pairing": _pairing_record(pairing),
        "confidence": confidence,
        "overall": overall,
        "tasks": each,
        "across_tasks": _across_tasks(by_task),
        "non_inferiority": bound,
        "noise": noise,
        "flips": [_flip(*both) for both in pairing.pairs if both[0].success != both[1].success],
        "verdict": verdict,
        "sentence": comparison_words.sentence(verdict, overall, each, bound, noise),
        "notes": [
            *comparison_words.notes(ours, theirs, pairing, [*by_task], _is_balanced([*by_task.values()], total)),
            *comparison_words.noise_notes(ours, overall, noise),
        ],
    }


def _side_record(side: Side, episodes: Episodes) -> SideRecord:
    return {"name": side.name, "kind": side.kind, "episodes": len(episodes), "left_out": [*side.left_out]}


def _pairing_record(pairing: Pairing) -> PairingRecord:
    return {
        "pairs": len(pairing.pairs),
        "by": [*pairing.by],
        "baseline_unpaired": len(pairing.baseline) - len(pairing.pairs),
        "candidate_unpaired": len(pairing.candidate) - len(pairing.pairs),
        "repeated": pairing.repeated,
        "reason": pairing.reason,
    }


def _counts_by_task(pairing: Pairing) -> dict[Task, Counts]:
    """Returns the counts of each task: of its pairs, or where nothing is paired of all its episodes."""
    if pairing.pairs:
        return {task: _paired_counts(pairing, task) for task in sorted({ours.task for ours, _ in pairing.pairs})}
    names = sorted({episode.task for episode in pairing.baseline})
    return {task: Counts(_count(pairing.baseline, task), _count(pairing.candidate, task), None) for task in names}


def _paired_counts(pairing: Pairing, task: Task) -> Counts:
    both = [(ours.success, theirs.success) for ours, theirs in pairing.pairs if ours.task == task]
    pairs = Pairs(both.count((False, True)), both.count((True, False)), len(both))
    ours, theirs = (Count(sum(outcomes[side] for outcomes in both), len(both)) for side in (0, 1))
    return Counts(ours, theirs, pairs)


def _count(episodes: Episodes, task: Task) -> Count:
    outcomes = [episode.success for episode in episodes if episode.task == task]
    return Count(sum(outcomes), len(outcomes))


def _total(counts: Sequence[Counts]) -> Counts:
    ours, theirs = (
        Count(sum(each.successes for each in side), sum(each.episodes for each in side))
        for side in ([each.baseline for each in counts], [each.candidate for each in counts])
    )
    pairs = [each.pairs for each in counts if each.pairs]
    sums = (sum(getattr(each, name) for each in pairs) for name in ("gains", "losses", "pairs"))
    return Counts(ours, theirs, Pairs(*sums) if pairs else None)


def _test(counts: Counts) -> Test:
    if counts.pairs:
        return partial(paired.mcnemar, counts.pairs)
    return partial(unpaired.compare, counts.candidate, counts.baseline)


def _test_of_all(counts: Sequence[Counts], total: Counts) -> Test:
    """Returns the test of all tasks together.

    Where the tasks have other shares of the episodes on the two sides, it takes each task as a stratum: two equal
    policies would otherwise look unequal.
    """
    if total.pairs and len(counts) > 1:
        return partial(tasks.pooled, [each.pairs for each in counts if each.pairs])
    if total.pairs or _is_balanced(counts, total):
        return _test(total)
    return partial(tasks.mantel_haenszel, [(each.candidate, each.baseline) for each in counts])


def _is_balanced(counts: Sequence[Counts], total: Counts) -> bool:
    """Returns whether each task has the same share of the episodes on both sides."""
    return all(
        each.baseline.episodes * total.candidate.episodes == each.candidate.episodes * total.baseline.episodes
        for each in counts
    )


def _compared(counts: Counts, test: Test, confidence: float, alpha: float) -> Compared:
    pairs = counts.pairs
    interval = (
        paired.tango(pairs, confidence) if pairs else unpaired.newcombe(counts.candidate, counts.baseline, confidence)
    )
    return {
        "baseline": _rate(counts.baseline),
        "candidate": _rate(counts.candidate),
        "gains": pairs.gains if pairs else None,
        "losses": pairs.losses if pairs else None,
        "difference": counts.difference,
        "interval": _interval(interval),
        "worse": _p_value(test("less")),
        "two_sided": _p_value(test("two-sided")),
        "minimum_drop": _minimum_drop(counts, alpha),
    }


def _minimum_drop(counts: Counts, alpha: float) -> float | None:
    """Returns the smallest true drop that so many episodes show with the chance POWER, None if there is none.

    No drop is larger than the baseline's rate. Pairs are taken to differ as often as they did; a drop that is larger
    than that consists of losses alone.
    """
    if counts.pairs is None:
        episodes = min(counts.baseline.episodes, counts.candidate.episodes)
        return power.unpaired_minimum_drop(episodes, counts.baseline.rate, POWER, alpha, "less")
    pairs, discordance = counts.pairs.pairs, counts.pairs.discordant / counts.pairs.pairs
    drop = power.paired_minimum_drop(pairs, discordance, POWER, alpha, "less")
    if drop is None:
        drop = power.losses_minimum_drop(pairs, POWER, alpha, "less")
    return drop if drop is not None and drop <= counts.baseline.rate else None


def _compared_tasks(by_task: dict[Task, Counts], confidence: float) -> list[ComparedTask]:
    """Returns each task's comparison. A task alone is shown to be worse if its adjusted p-value is at most alpha."""
    alpha = 1 - confidence
    adjusted = tasks.holm([_test(counts)("less") for counts in by_task.values()])
    return [
        {
            **_compared(counts, _test(counts), confidence, alpha / len(by_task)),
            "suite": task[0],
            "task": task[1],
            "holm": _p_value(holm),
            "is_worse": holm.value <= alpha,
        }
        for (task, counts), holm in zip(by_task.items(), adjusted, strict=True)
    ]


def _across_tasks(by_task: dict[Task, Counts]) -> PValueRecord | None:
    if len(by_task) < 2:
        return None
    return _p_value(tasks.sign_flip([counts.difference for counts in by_task.values()], "less"))


def _non_inferiority(total: Counts, margin: float, confidence: float) -> NonInferiorityRecord:
    """Returns whether the candidate is at most `margin` worse, by the lower bound of the interval's own method."""
    if total.pairs:
        bound, method = (held := paired.non_inferiority(total.pairs, margin, confidence)).bound, held.method
    else:
        bound = unpaired.newcombe(total.candidate, total.baseline, 2 * confidence - 1).low
        method = "Newcombe, one-sided"
    return {
        "non_inferior": bound > -margin,
        "margin": margin,
        "bound": bound,
        "confidence": confidence,
        "method": method,
    }


def _rate(count: Count) -> RateRecord:
    return {"successes": count.successes, "episodes": count.episodes, "rate": count.rate}


def _interval(interval: Interval) -> IntervalRecord:
    return {
        "low": interval.low,
        "high": interval.high,
        "confidence": interval.confidence,
        "method": interval.method,
    }


def _p_value(value: PValue) -> PValueRecord:
    return {"value": value.value, "alternative": value.alternative, "method": value.method}


def _flip(ours: PlayedEpisode, theirs: PlayedEpisode) -> Flip:
    videos = [str(each.video) if each.video and each.video.is_file() else None for each in (ours, theirs)]
    return {
        "suite": ours.task[0],
        "task": ours.task[1],
        "episode": ours.number,
        "init_state": ours.init_state,
        "seed": ours.seed if theirs.seed is not None else None,
        "change": "gain" if theirs.success else "loss",
        "baseline_video": videos[0],
        "candidate_video": videos[1],
    }
