"""Episodes of a bundle played again on the real simulator: what no arithmetic finds is found there."""

from pathlib import Path

import pytest
from forger import Forger
from forgeries import BASE, success_in_the_last_step_with_rewards_and_bars
from stored_campaign import campaign_copy

from tracka.bundles import bundle, bundle_replays, verification
from tracka.bundles.bundle import BundleOptions
from tracka.bundles.verification import Verification
from tracka.runs.replays import RecordedEpisode

THREE = [(BASE, (0, 0)), (BASE, (0, 1)), ("object_t34_b1_s23", (4, 0))]  # a failure, and two successes


class Chosen:
    """Draws three given episodes instead of random ones."""

    def sample(self, episodes: list[RecordedEpisode], count: int) -> list[RecordedEpisode]:
        assert count == 3
        return [episode for episode in episodes if (episode.run_id, episode.key) in THREE]


def replayed(root: Path) -> tuple[Verification, list[str]]:
    """Returns what verify finds of a campaign's bundle, and then what three replays find besides."""
    file = bundle.write(root, BundleOptions(output=root.parent / "bundle.tar"))
    with verification.opened(file) as bundle_file:
        found = verification.verify(bundle_file)
        before = len(found.findings)
        bundle_replays.play(found, bundle_file, 3)
    return found, [str(finding) for finding in found.findings[before:]]


@pytest.mark.slow
@pytest.mark.simulator
def test_a_replay_finds_an_outcome_that_was_forged_in_all_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_replays.random, "SystemRandom", Chosen)
    forger = Forger(campaign_copy(tmp_path))
    success_in_the_last_step_with_rewards_and_bars(forger)
    forger.seal()
    found, by_replay = replayed(forger.root)
    assert found.verdict == "accepted"  # by arithmetic alone
    (finding,) = by_replay
    assert f"replay of {BASE}, task 0, episode 0: the recorded actions fail" in finding
    assert sum(words.startswith("replay: ") for words in found.held) == 2
