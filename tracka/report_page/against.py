"""Compares the campaign of a page with another one, and pairs their episodes so that both videos can be played."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.comparisons import Comparison
from ..reporting import comparison_page, comparison_report, played_episodes
from ..reporting.episode_pairing import pair
from ..reporting.played_episodes import PlayedEpisode
from .episodes import ShownEpisode

# Suite, task, number and seed of an episode. Rows of one campaign that play the same episode share its partner.
Key = tuple[str, int, int, int | None]


@dataclass(frozen=True)
class Against:
    """A comparison of the page's campaign, B, with another one, A. `partners` has A's episode of each pair."""

    comparison: Comparison
    table: Sequence[tuple[str, ...]]
    pairing: str
    partners: Mapping[Key, PlayedEpisode]

    def partners_of(self, episodes: Iterable[ShownEpisode]) -> dict[str, PlayedEpisode]:
        """Returns the name of each episode that is paired -> A's episode."""
        keys = {each.name: (each.suite, each.task, each.number, each.seed) for each in episodes}
        return {name: self.partners[key] for name, key in keys.items() if key in self.partners}


def read(baseline: Path, campaign: Path) -> Against:
    """Returns the comparison of the campaign in a folder with `baseline`, as `tracka compare` makes it.

    Raises UsageError with everything that keeps the two from being compared.
    """
    comparison = comparison_report.compare(baseline, campaign)
    pairing = pair(played_episodes.read(baseline), played_episodes.read(campaign))
    partners = {(*theirs.task, theirs.number, theirs.seed): ours for ours, theirs in pairing.pairs}
    table, words = comparison_page.rows(comparison), comparison_page.pairing_in_words(comparison)
    return Against(comparison, table, words, partners)
