"""Compares the campaign of a page with another one, and pairs their episodes so that both videos can be played."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.comparisons import Comparison
from ..reporting import comparison_page, played_episodes
from ..reporting.episode_pairing import pair
from ..reporting.sides import PlayedEpisode
from .episodes import ShownEpisode


@dataclass(frozen=True)
class Against:
    """A comparison of the page's campaign, B, with another one, A.

    `partners` maps the place of the video of B's episode in each pair to A's episode.
    """

    comparison: Comparison
    table: Sequence[tuple[str, ...]]
    pairing: str
    partners: Mapping[Path, PlayedEpisode]

    def partners_of(self, episodes: Iterable[ShownEpisode]) -> dict[str, PlayedEpisode]:
        """Returns the name of each episode that is paired -> A's episode."""
        return {each.name: self.partners[each.film] for each in episodes if each.film in self.partners}


def read(baseline: Path, campaign: Path, policy: str = "") -> Against:
    """Returns the comparison of the campaign in a folder with `baseline`, as `tracka compare` makes it.

    `policy` names the checkpoint of a campaign of several.

    Raises UsageError with everything that keeps the two from being compared.
    """
    from ..reporting import comparison_report  # imported here, since it loads numpy and scipy

    candidate = played_episodes.named(campaign, policy)
    comparison = comparison_report.compare(baseline, candidate)
    pairing = pair(played_episodes.read(baseline), played_episodes.read(candidate))
    partners = {theirs.video: ours for ours, theirs in pairing.pairs if theirs.video}
    table, words = comparison_page.rows(comparison), comparison_page.pairing_in_words(comparison)
    return Against(comparison, table, words, partners)
