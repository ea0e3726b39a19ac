"""Reads the tiers of a campaign: each table `[tiers.NAME]` makes a smaller campaign of it.

A tier has some of the campaign's rows, some of their episodes, a time budget, and thresholds of its own. The baseline
belongs to every tier, since phase 3 runs it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core import close_match, installation
from ..core.errors import Finding, UsageError, joined_names, shortened
from .matrix import Row

KnownAnswers = Mapping[str, Mapping[int, tuple[int, ...]]]  # row -> LIBERO task -> episodes that succeed


@dataclass(frozen=True)
class Tier:
    """One table `[tiers.NAME]`. A limit that is not set is None."""

    name: str
    run_ids: tuple[str, ...] | None = None  # of its rows; the baseline belongs to it in any case
    episodes: int | None = None  # the most of each LIBERO task
    budget_minutes: float | None = None  # after which no further row of a session starts
    verdict: Mapping[str, Any] = field(default_factory=dict)  # keys that override those of [verdict]

    @property
    def in_words(self) -> str:
        """Returns the tier's name and its limits, as in `smoke (at most 5 episodes of each task)`."""
        episodes = f"at most {self.episodes} episodes of each task" if self.episodes else ""
        minutes = f"a budget of {self.budget_minutes:g} minutes" if self.budget_minutes else ""
        limits = ", ".join(filter(None, [episodes, minutes]))
        return f"{self.name} ({limits})" if limits else self.name

    def cut_rows(self, rows: Sequence[Row], baseline: str) -> tuple[Row, ...]:
        """Returns `rows` with those outside of the tier disabled, and with at most its episodes of each task."""
        return tuple(self._cut(row, baseline) for row in rows)

    def has(self, run_id: str) -> bool:
        """Returns whether the tier has the row, which may be disabled; the baseline belongs to it in any case."""
        return self.run_ids is None or run_id in self.run_ids

    def _cut(self, row: Row, baseline: str) -> Row:
        belongs = row.run_id == baseline or self.has(row.run_id)
        n_episodes = row.n_episodes if self.episodes is None else min(row.n_episodes, self.episodes)
        return replace(row, n_episodes=n_episodes, enabled=row.enabled and belongs)


def cut_answers(answers: KnownAnswers, rows: Sequence[Row]) -> dict[str, dict[int, tuple[int, ...]]]:
    """Returns the known answers without episodes that `rows` no longer play."""
    counts = {row.run_id: row.n_episodes for row in rows}
    return {
        run_id: {
            task: tuple(episode for episode in episodes if episode < counts[run_id]) for task, episodes in tasks.items()
        }
        for run_id, tasks in answers.items()
        if run_id in counts
    }


def of_tables(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Tier]:
    """Returns the tiers by their names; `tables` is the table `tiers` of campaign.toml, which follows its schema."""
    return {
        name: Tier(
            name,
            tuple(table["rows"]) if "rows" in table else None,
            table.get("episodes"),
            table.get("budget_minutes"),
            table.get("verdict", {}),
        )
        for name, table in tables.items()
    }


def require(tiers: Mapping[str, Tier], name: str, settings: Path) -> Tier:
    """Returns the tier called `name`. Raises UsageError where `settings`, a campaign.toml, has no such tier."""
    if name in tiers:
        return tiers[name]
    example = f"Add a table such as [tiers.smoke]: {installation.page('tiers.md')}"
    remedy = f"{close_match.asked_name(name, tiers)}Name one of {joined_names(list(tiers))}" if tiers else example
    raise UsageError(Finding(f"{settings}, key tiers", f"the campaign has no tier {shortened(name)!r}", remedy))


def faults(tiers: Mapping[str, Tier], rows: Sequence[Row], baseline: str, settings: Path) -> Iterator[Finding]:
    """Yields what is wrong with each tier's rows: unknown and disabled ones, and none beside the baseline."""
    for tier in tiers.values():
        where = f"{settings}, key tiers.{tier.name}.rows"
        unusable = [*_unusable_rows(tier, rows, where)]
        yield from unusable
        enabled = [row.run_id for row in tier.cut_rows(rows, baseline) if row.enabled]
        if tier.run_ids is not None and enabled == [baseline] and not unusable:
            what = f"the tier {tier.name} has no row but the baseline, which only shows that rows run"
            yield Finding(where, what, "Name another enabled row")


def _unusable_rows(tier: Tier, rows: Sequence[Row], where: str) -> Iterator[Finding]:
    is_enabled = {row.run_id: row.enabled for row in rows}
    for run_id in tier.run_ids or ():
        if run_id not in is_enabled:
            remedy = f"{close_match.asked_name(run_id, is_enabled)}Name a run id of the matrix"
            yield Finding(where, f"the matrix has no row {run_id!r}", remedy)
        elif not is_enabled[run_id]:
            yield Finding(where, f"the row {run_id!r} is disabled", "Enable it in the matrix, or leave it out here")
