"""Answers how many episodes a question needs, or what so many episodes can answer, in sentences.

The numbers are those of `tracka.statistics.power`, by exact enumeration, for the tests that `tracka compare` makes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ..core.errors import Finding, UsageError
from ..core.figures import percent, points
from ..core.lerobot_facts import INIT_STATES
from ..statistics import power, rate
from ..statistics.rate import MOST_EPISODES, Count
from ..statistics.result import DropAlternative

TASKS = 10  # of LIBERO's usual suites


@dataclass(frozen=True)
class Question:
    """What a user wants to know: of a threshold, or of a drop. None is what the question does not fix."""

    threshold: float | None = None
    drop: float | None = None
    rate: float | None = None
    paired: bool = False
    discordance: float | None = None
    episodes: int | None = None
    chance: float = 0.8
    confidence: float = 0.95
    two_sided: bool = False

    @property
    def alpha(self) -> float:
        return 1 - self.confidence

    @property
    def alternative(self) -> DropAlternative:
        return "two-sided" if self.two_sided else "less"


def answer(question: Question) -> list[str]:
    """Returns the answer, a sentence each. Raises UsageError with everything that is wrong with the question."""
    if findings := [*_findings(question)]:
        raise UsageError(findings)
    if question.threshold is not None:
        return [*_of_threshold(question, question.threshold)]
    return [*(_of_pairs(question) if question.paired else _of_arms(question))]


def needed(asked: Question) -> int | None:
    """Returns how many episodes, or pairs, answer a sound question that leaves their number open.

    Returns None where more than MOST_EPISODES would be needed.
    """
    if asked.threshold is not None:
        return power.episodes_for_rate(asked.threshold, asked.rate or 0.0, asked.chance, asked.confidence)
    drop, rest = asked.drop or 0.0, (asked.chance, asked.alpha, asked.alternative)
    if asked.paired:
        return power.pairs_for_drop(asked.discordance or 0.0, drop, *rest)
    return power.episodes_for_drop(asked.rate or 0.0, drop, *rest)


def _findings(asked: Question) -> Iterator[Finding]:
    ask = "Ask for one: --threshold 0.9 --rate 0.95, or --drop 0.05 --rate 0.9"
    if asked.threshold is None and asked.drop is None and asked.episodes is None:
        yield Finding("--threshold, --drop", "neither is given", ask)
        return
    if asked.threshold is not None and asked.drop is not None:
        yield Finding("--threshold, --drop", "both are given", ask)
    for flag, value in (("--threshold", asked.threshold), ("--drop", asked.drop), ("--discordance", asked.discordance)):
        if value is not None and not 0 < value <= 1:
            yield Finding(flag, f"{value:g} is not above 0 and at most 1", "Give a share, such as 0.05 for 5%")
    if asked.rate is not None and not 0 <= asked.rate <= 1:
        yield Finding("--rate", f"{asked.rate:g} is not a success rate", "Give a number from 0 to 1, such as 0.9")
    for flag, share, least in (("--chance", asked.chance, 0.0), ("--confidence", asked.confidence, 0.5)):
        if not least < share < 1:
            yield Finding(flag, f"{share:g} is not between {least:g} and 1", "Give a number such as 0.95")
    yield from _missing(asked)


def _missing(asked: Question) -> Iterator[Finding]:
    """Yields what the question needs and lacks, and what cannot go together."""
    if asked.threshold is not None:
        if asked.paired or asked.discordance is not None or asked.two_sided:
            what = "a threshold is asked of one policy, one-sided"
            yield Finding("--paired, --discordance, --two-sided", what, "Leave them out, or ask for a --drop")
        if asked.rate is None and asked.episodes is None:
            yield Finding("--rate", "the policy's true success rate is not given", "Guess it, such as --rate 0.95")
        return
    if asked.paired and asked.discordance is None:
        remedy = "Take that of a comparison of two runs by `tracka compare`, such as --discordance 0.07"
        yield Finding("--discordance", "the share of pairs with two outcomes is not given", remedy)
    if not asked.paired and asked.discordance is not None:
        yield Finding("--discordance", "only pairs can be discordant", "Add --paired, or leave it out")
    if not asked.paired and asked.rate is None:
        yield Finding("--rate", "the baseline's success rate is not given", "Guess it, such as --rate 0.9")
    for flag, most in (("--rate", asked.rate), ("--discordance", asked.discordance)):
        if asked.drop is not None and most is not None and asked.drop > most:
            yield Finding("--drop", f"a drop of {asked.drop:g} is larger than {flag} {most:g}", "Give a smaller drop")


def _of_threshold(asked: Question, threshold: float) -> Iterator[str]:
    confidence = asked.confidence
    test = f"one-sided at {percent(confidence)}, exact binomial"
    least = rate.least_to_pass(threshold, confidence)
    yield (
        f"A threshold of {percent(threshold)} ({test}) cannot be passed by any number of episodes."
        if least is None
        else f"A threshold of {percent(threshold)} ({test}) is passed by {least} of {least} episodes at the earliest."
    )
    if asked.episodes is not None:
        yield from _with_episodes(asked, threshold, asked.episodes)
    elif asked.rate is not None:
        decided = "pass" if asked.rate >= threshold else "fail"
        episodes, chance = needed(asked), percent(asked.chance)
        yield f"A policy of {percent(asked.rate)} needs {_number(episodes)} to {decided} with a chance of {chance}."
        yield from _init_states(episodes)


def _with_episodes(asked: Question, threshold: float, episodes: int) -> Iterator[str]:
    least = rate.least_successes(episodes, threshold, asked.confidence)
    if least is None:
        yield f"{episodes} episodes cannot pass it, even if all succeed."
    else:
        bound = rate.lower_bound(Count(least, episodes), asked.confidence)
        shows = f"{least}/{episodes} shows at least {percent(bound)}"
        yield f"{episodes} episodes pass it with {least} successes or more: {shows}."
        enough = power.rate_that_passes(episodes, threshold, asked.chance, asked.confidence)
        yield f"They pass a policy of {percent(enough or 1)} with a chance of {_chance(asked)}."
    if asked.rate is not None:
        decided = "pass" if asked.rate >= threshold else "fail"
        shown = power.rate_power(episodes, threshold, asked.rate, asked.confidence)
        yield f"They {decided} a policy of {percent(asked.rate)} with a chance of {percent(shown)}."
    yield from _init_states(episodes)


def _of_pairs(asked: Question) -> Iterator[str]:
    discordance = asked.discordance or 0.0
    test = f"exact McNemar, {_sides(asked)}; {percent(discordance)} of the pairs have two outcomes"
    if asked.episodes is not None:
        smallest = power.paired_minimum_drop(asked.episodes, discordance, asked.chance, asked.alpha, asked.alternative)
        yield f"{asked.episodes} pairs show {_drop(smallest)} with a chance of {_chance(asked)} ({test})."
        if asked.drop is not None:
            shown = power.paired_power(asked.episodes, discordance, asked.drop, asked.alpha, asked.alternative)
            yield f"They show a drop of {points(asked.drop)} with a chance of {percent(shown)}."
        yield from _init_states(asked.episodes)
    elif asked.drop is not None:
        pairs = needed(asked)
        yield (
            f"A drop of {points(asked.drop)} is shown by {_number(pairs, 'pairs')} with a chance of {_chance(asked)} "
            f"({test})."
        )
        yield from _init_states(pairs)


def _of_arms(asked: Question) -> Iterator[str]:
    baseline = asked.rate or 0.0
    test = f"Boschloo, above 200 an arm the score test, {_sides(asked)}"
    if asked.episodes is not None:
        smallest = power.unpaired_minimum_drop(asked.episodes, baseline, asked.chance, asked.alpha, asked.alternative)
        yield (
            f"{asked.episodes} episodes of each policy show {_drop(smallest)} from {percent(baseline)} with a chance "
            f"of {_chance(asked)} ({test})."
        )
        if asked.drop is not None:
            shown = power.unpaired_power(asked.episodes, baseline, asked.drop, asked.alpha, asked.alternative)
            yield f"They show a drop of {points(asked.drop)} with a chance of {percent(shown)}."
        yield from _init_states(asked.episodes)
    elif asked.drop is not None:
        episodes = needed(asked)
        yield (
            f"A drop of {points(asked.drop)} from {percent(baseline)} is shown by {_number(episodes)} of each policy "
            f"with a chance of {_chance(asked)} ({test})."
        )
        yield from _init_states(episodes)


def _sides(asked: Question) -> str:
    return f"{'two' if asked.two_sided else 'one'}-sided at {percent(asked.confidence)}"


def _chance(asked: Question) -> str:
    return percent(asked.chance)


def _drop(smallest: float | None) -> str:
    return "no drop" if smallest is None else f"a drop of {points(smallest)}"


def _number(count: int | None, name: str = "episodes") -> str:
    return f"more than {MOST_EPISODES} {name}" if count is None else f"{count} {name}"


def _init_states(episodes: int | None) -> Iterator[str]:
    """Yields what so many episodes mean in LIBERO."""
    text = f"LIBERO has {INIT_STATES} init states a task, {TASKS * INIT_STATES} in a suite of {TASKS} tasks"
    if episodes is None or episodes > TASKS * INIT_STATES:
        yield f"{text}: more episodes repeat them, and a repeat says less than a new one. Play more suites instead."
    else:
        yield f"{text}: that is {-(-episodes // TASKS)} episodes a task. More than {INIT_STATES} a task repeat them."
