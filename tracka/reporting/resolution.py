"""Chooses how many episodes of each task a new campaign plays, so that it can show a difference of a given size.

The number is that of `tracka power`: with it, a policy that is really so much better than the threshold passes with a
chance of 80%, or a drop of that size is shown with a chance of 80%.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ..core.errors import Finding, UsageError
from ..core.figures import percent, points
from ..core.lerobot_facts import INIT_STATES
from ..statistics.rate import MOST_EPISODES
from . import episode_planning
from .episode_planning import Question

NOISE = 0.02  # pairs that flip beside the drop, where nobody says how many: A/A plays of pi0 differed in 1.4%


@dataclass(frozen=True)
class Resolution:
    """A difference to be shown: from `threshold`, else from a baseline of the rate `rate`, else in pairs.

    `rate` is of a baseline that plays other episodes; `discordance` is the share of pairs with two outcomes.
    """

    difference: float
    threshold: float | None = None
    rate: float | None = None
    discordance: float | None = None

    @property
    def question(self) -> Question:
        """The question to `tracka power` whose answer is the number of episodes in all."""
        if self.threshold is not None:
            return Question(threshold=self.threshold, rate=round(self.threshold + self.difference, 9))
        if self.rate is not None:
            return Question(drop=self.difference, rate=self.rate)
        pairs = self.discordance or min(self.difference + NOISE, 1.0)
        return Question(drop=self.difference, paired=True, discordance=pairs)


def episodes_per_task(asked: Resolution, tasks: int) -> int:
    """Returns how many episodes each of `tasks` tasks needs. Raises UsageError with everything wrong in `asked`."""
    if findings := [*_findings(asked)]:
        raise UsageError(findings)
    needed = episode_planning.needed(asked.question)
    if needed is None:
        what = f"{points(asked.difference)} need more than {MOST_EPISODES} episodes"
        raise UsageError(Finding("--resolve", what, "Give a larger difference"))
    return -(-needed // tasks)


def words(asked: Resolution, tasks: int, per_task: int) -> Iterator[str]:
    """Yields what the chosen number of episodes means, a sentence each."""
    total = f"{per_task} episodes of each of {tasks} tasks, {per_task * tasks} in all"
    yield f"{total}, resolve {points(asked.difference)}:"
    if asked.threshold is None:
        yield episode_planning.answer(asked.question)[0]
    else:
        yield episode_planning.answer(asked.question)[1] + f" The threshold is {percent(asked.threshold)}."
    if asked.question.paired:
        yield "Pairs need a baseline that has played the same episodes: the same seed, batch size and number or more."
    if per_task > INIT_STATES:
        yield (
            f"A task has {INIT_STATES} init states, so {per_task - INIT_STATES} of its {per_task} episodes repeat one; "
            "a repeat says less than a new one, and every interval counts it as if it did not."
        )


def _findings(asked: Resolution) -> Iterator[Finding]:
    difference = asked.difference
    if not 0 < difference < 1:
        yield Finding("--resolve", f"{difference:g} is not between 0 and 1", "Give a share, such as 0.05 for 5 points")
        return
    if sum(value is not None for value in (asked.threshold, asked.rate, asked.discordance)) > 1:
        remedy = "Resolve one: a threshold, a drop from the rate of a baseline of other episodes, or a drop in pairs"
        yield Finding("--threshold, --rate, --discordance", "more than one is given", remedy)
    if asked.threshold is not None and not 0 < asked.threshold <= round(1 - difference, 9):
        what = f"no policy is {points(difference)} better than a threshold of {asked.threshold:g}"
        yield Finding("--threshold", what, "Give a smaller difference or threshold")
    for flag, most in (("--rate", asked.rate), ("--discordance", asked.discordance)):
        if most is not None and not difference <= most <= 1:
            what = f"a drop of {difference:g} cannot come from {most:g}"
            yield Finding(flag, what, f"Give a share from {difference:g} to 1")
