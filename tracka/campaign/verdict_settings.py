"""Reads what a campaign's `[verdict]` asks for: thresholds, a baseline with a margin, and whether to stop early."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..core.errors import Finding, joined_names

Early = Literal["off", "futility", "both"]


@dataclass(frozen=True)
class VerdictSettings:
    """What the policies of a campaign have to show, and how surely."""

    confidence: float = 0.95  # one-sided
    threshold: float | None = None  # of each suite: the episodes of all its tasks together
    task_threshold: float | None = None  # of each task that `tasks` does not name
    tasks: Mapping[str, float] = field(default_factory=dict)  # "libero_object/3" -> the task's own threshold
    baseline: str | None = None  # an exported baseline or a campaign's folder, relative to the campaign
    margin: float | None = None  # the drop below the baseline that is allowed
    early: Early = "off"

    @property
    def alpha_pass(self) -> float:
        """Returns the chance of a wrong pass that the test at the end may take.

        Half of the whole chance is left to evidence that is looked at after each episode, if such evidence may pass.
        """
        return (1 - self.confidence) / (2 if self.early == "both" else 1)

    @property
    def alpha_fail(self) -> float:
        """Returns the chance of a wrong fail that the test at the end may take; as `alpha_pass`."""
        return (1 - self.confidence) / (1 if self.early == "off" else 2)

    def task_threshold_of(self, suite: str, task: int) -> float | None:
        """Returns the threshold of one task; None if nothing is asked of the task alone."""
        return self.tasks.get(task_name(suite, task), self.task_threshold)

    def thresholds(self) -> dict[str, Any]:
        """Returns these settings as plain data, for the pre-registration."""
        return asdict(self) | {"tasks": dict(self.tasks)}


def task_name(suite: str, task: int) -> str:
    """Returns a task's name in `[verdict.tasks]`, such as libero_object/3."""
    return f"{suite}/{task}"


def of_table(table: Mapping[str, Any] | None) -> VerdictSettings | None:
    """Returns the settings in a table that follows its schema; None if the campaign has no `[verdict]`."""
    return None if table is None else VerdictSettings(**table)


def of_tier(
    inherited: VerdictSettings | None, table: Mapping[str, Any], played: Collection[str]
) -> VerdictSettings | None:
    """Returns the settings of a tier: those of its campaign, overridden by `table`, the tier's own `verdict`.

    A threshold of a task that is not in `played`, the tasks of the tier, is left out of those of the campaign. A tier
    of which nothing is asked then has no settings.
    """
    values = inherited.thresholds() if inherited else {}
    tasks = {name: rate for name, rate in values.get("tasks", {}).items() if name in played}
    settings = VerdictSettings(**values | dict(table) | {"tasks": tasks | table.get("tasks", {})})
    return settings if table or (inherited and _asks(settings)) else None


def _asks(settings: VerdictSettings) -> bool:
    """Returns whether the settings say what the policies have to show."""
    return bool(settings.threshold or settings.task_threshold or settings.tasks or settings.baseline)


def faults(settings: VerdictSettings, where: str, played: Collection[str]) -> Iterator[Finding]:
    """Yields what is wrong with a `[verdict]` although it follows its schema.

    `where` names the table, and `played` has the names of the tasks that rows other than the baseline play.
    """
    if not _asks(settings):
        remedy = "Set threshold, task_threshold, or baseline with margin, or leave [verdict] out"
        yield Finding(where, "nothing says what the policies have to show", remedy)
    if (settings.baseline is None) != (settings.margin is None):
        missing, present = ("margin", "baseline") if settings.baseline else ("baseline", "margin")
        yield Finding(f"{where}.{present}", f"{present} is set without {missing}", f"Set {missing} too, or neither")
    if unknown := [name for name in settings.tasks if name not in played]:
        what = f"no row but the baseline plays {joined_names(unknown)}"
        examples = joined_names(sorted(played), 3) or "libero_object/0"
        yield Finding(f"{where}.tasks", what, f"Name tasks that rows play, such as {examples}")
