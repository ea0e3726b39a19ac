"""The known answers of the two campaigns that have them, held against the demonstrations that their policies play."""

from functools import cache

import pytest
from campaigns import REPOSITORY

from fixtures.demonstrations import choice, store
from fixtures.demonstrations.store import Demonstration
from tracka.campaign import campaign
from tracka.campaign.campaign import Campaign
from tracka.campaign.matrix import Row

SMOKE, ANSWERS = (campaign.load(REPOSITORY / "tasks" / name) for name in ("smoke-libero-object", "known-answers"))
CASES = {f"{spec.name}-{row.run_id}": (spec, row) for spec in (SMOKE, ANSWERS) for row in spec.rows}
# Elsewhere what the recorded actions do depends on the seed, and on how often the environment was reset before.
ANY_SEED = "libero_object"
SEEDED = {name: (spec, row) for name, (spec, row) in CASES.items() if row.task_suite != ANY_SEED}


@cache
def known_by(builder: str) -> dict[tuple[str, int, int], Demonstration]:
    """The demonstrations that a replay checkpoint has by its `[build]` line."""
    name, *choices = builder.split()
    assert name == "replay"
    return choice.demonstrations_by_key(choices)


def succeeds(spec: Campaign, row: Row, task: int, episode: int) -> bool:
    """Whether the row's checkpoint plays the episode, and reaches the goal before the row's time is over."""
    one = known_by(spec.build[row.policy_path]).get((row.task_suite, task, episode))
    most = spec.settings(row).episode_length
    return one is not None and (most is None or one.success_step <= most)


@pytest.mark.parametrize(("spec", "row"), CASES.values(), ids=CASES)
def test_a_rows_answer_is_what_its_checkpoint_plays_to_the_end(spec: Campaign, row: Row) -> None:
    expected = {
        task: tuple(episode for episode in range(row.n_episodes) if succeeds(spec, row, task, episode))
        for task in spec.task_ids(row)
    }
    assert spec.known_answers[row.run_id] == expected


@pytest.mark.parametrize(("spec", "row"), SEEDED.values(), ids=SEEDED)
def test_a_row_plays_its_episodes_with_the_seeds_and_resets_of_their_recording(spec: Campaign, row: Row) -> None:
    slots = min(row.batch_size, row.n_episodes)
    stored = known_by("replay all")
    assert {row.seed + episode - one.seed for (_, _, episode), one in stored.items()} == {0}
    for task, episodes in spec.known_answers[row.run_id].items():
        ordinals = {episode: stored[row.task_suite, task, episode].ordinal for episode in episodes}
        assert ordinals == {episode: episode // slots for episode in episodes}


def test_the_whole_campaign_plays_every_stored_demonstration() -> None:
    assert ANSWERS.build["checkpoints/all"] == "replay all"
    played = {
        (row.task_suite, task, episode)
        for row in ANSWERS.enabled
        if row.policy_path == "checkpoints/all"
        for task, episodes in ANSWERS.known_answers[row.run_id].items()
        for episode in episodes
    }
    assert played == {(suite, *key) for suite in store.SUITES for key in store.load(suite)} != set()
