"""Decides which episodes of two sides can be compared, and pairs those that began alike.

Nothing here looks at an outcome: pairs that are chosen by their outcomes would prove anything.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core.errors import Finding, UsageError, joined_names
from .sides import PlayedEpisode, Side, Task

BEGIN = {  # what begins an episode, and how a page names it
    "task": ("suite", "task"),
    "number": ("episode",),
    "init_state": ("init state",),
    "seed": ("seed",),
    "reset_ordinal": ("reset ordinal",),
}
ENOUGH = 0.5  # of the smaller side's episodes: a test of fewer pairs would throw away most of what was played

Episodes = Sequence[PlayedEpisode]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Pairing:
    """The episodes of two sides in the tasks of both, and the pairs among them, the baseline's episode first.

    `by` names what is equal in a pair. `reason` says why nothing is paired, and is None where there are pairs. No side
    has an episode twice: `repeated` counts those left out for that.
    """

    baseline: Episodes
    candidate: Episodes
    pairs: Sequence[tuple[PlayedEpisode, PlayedEpisode]]
    by: Sequence[str]
    reason: str | None
    repeated: int


def pair(baseline: Side, candidate: Side) -> Pairing:
    """Returns the pairs of two sides in the tasks that both have played.

    Raises UsageError with everything that keeps the sides from being compared, and with what could be compared.
    """
    common = baseline.tasks & candidate.tasks
    if findings := [*baseline.findings, *candidate.findings, *_differences(baseline, candidate, common)]:
        raise UsageError(findings)
    played = [[episode for episode in side.episodes if episode.task in common] for side in (baseline, candidate)]
    # What one side does not know keeps nothing apart.
    by = [name for name in BEGIN if all(getattr(side[0], name) is not None for side in played)]
    ours, theirs = (_unrepeated(side, by) for side in played)
    pairs = [(ours[key], theirs[key]) for key in ours if key in theirs]
    paired = len(pairs) >= ENOUGH * min(len(ours), len(theirs))
    return Pairing(
        (*ours.values(),),
        (*theirs.values(),),
        pairs if paired else (),
        [word for name in by for word in BEGIN[name]],
        None if paired else _reason(len(pairs), ours, theirs, by),
        sum(map(len, played)) - len(ours) - len(theirs),
    )


def task_names(tasks: Iterable[Task]) -> str:
    """Returns tasks in words, each suite with its tasks: `libero_goal 1; libero_object 0, 3`."""
    suites: dict[str, list[str]] = {}
    for suite, task in sorted(tasks):
        suites.setdefault(suite, []).append(str(task))
    return "; ".join(f"{suite} {joined_names(numbers, 12)}" for suite, numbers in suites.items())


def _differences(baseline: Side, candidate: Side, common: Collection[Task]) -> list[Finding]:
    """Returns why tasks of two sides cannot be compared; the last finding says which tasks could be."""
    where = f"{baseline.name} and {candidate.name}"
    if not baseline.episodes or not candidate.episodes:
        return []  # the side's own findings say why
    if not common:
        tasks = " and ".join(task_names(side.tasks) for side in (baseline, candidate))
        return [Finding(where, f"they have no task in common: {tasks}", "Name two results of the same suite and tasks")]
    other_lengths, other_starts = _other_lengths(baseline, candidate), _other_starts(baseline, candidate)
    findings = []
    if other_lengths:
        what = f"episodes end after other numbers of control steps in {task_names(other_lengths)}"
        steps = [sorted({episode.length or 0 for episode in side.episodes}) for side in (baseline, candidate)]
        what += f" ({joined_names([*map(str, steps[0])])} and {joined_names([*map(str, steps[1])])})"
        findings.append(Finding(where, what, "Set the same episode_length, and run one of the two again"))
    if other_starts:
        what = f"episodes of the same number begin at other init states in {task_names(other_starts)}"
        findings.append(Finding(where, what, "Set the same env.init_states, and run one of the two again"))
    if findings or baseline.findings or candidate.findings:
        fit = {*common} - other_lengths - other_starts
        could = f"What could be compared: {task_names(fit)}" if fit else "No task could be compared"
        last = findings.pop() if findings else Finding(where, "some of their results cannot be compared", "See above")
        findings.append(replace(last, remedy=f"{last.remedy}. {could}"))
    return findings


def _other_lengths(baseline: Side, candidate: Side) -> set[Task]:
    """Returns the tasks whose episodes end after other numbers of control steps on the two sides."""
    ours, theirs = ({(e.task, e.length) for e in side.episodes if e.length} for side in (baseline, candidate))
    return {task for task, _ in ours ^ theirs} & {task for task, _ in ours} & {task for task, _ in theirs}


def _other_starts(baseline: Side, candidate: Side) -> set[Task]:
    """Returns the tasks of which an episode of the same number begins at another init state on the two sides."""
    ours, theirs = (
        {(e.task, e.number): None if e.fixed_start is False else e.init_state for e in side.episodes}
        for side in (baseline, candidate)
    )
    return {key[0] for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]}


def _unrepeated(episodes: Episodes, by: Sequence[str]) -> dict[Key, PlayedEpisode]:
    """Returns the episodes by how they begin; of those that begin alike the first."""
    chosen: dict[Key, PlayedEpisode] = {}
    for episode in episodes:
        chosen.setdefault(tuple(getattr(episode, name) for name in by), episode)
    return chosen


def _reason(few: int, ours: Iterable[Key], theirs: Iterable[Key], by: Sequence[str]) -> str:
    """Returns why so few episodes begin alike: their seeds differ, or only the last part of `by`, the reset ordinal."""
    head = f"only {few} begin alike" if few else "none begin alike"
    end = by.index("seed") + 1 if "seed" in by else len(by)
    if {key[:end] for key in ours} & {key[:end] for key in theirs}:
        return f"{head}, since the batch sizes differ: an environment had been reset another number of times"
    return f"{head}, since the seeds differ"
