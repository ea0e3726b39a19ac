"""Shards: which rows of a campaign each of several hosts runs, by the campaign's files alone."""

import random
from collections.abc import Callable, Sequence

import pytest
from campaigns import SETTINGS, Made

from tracka.campaign import shards
from tracka.campaign.campaign import Campaign
from tracka.campaign.matrix import Row
from tracka.campaign.shards import Shard
from tracka.core import files
from tracka.core.errors import UsageError

MakeCampaign = Callable[..., Made]
BASELINE = "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1"
MANY = [
    BASELINE,
    *(
        f"row_{number},{suite},{1 + number % 8},{episodes},cpu,7,egl,checkpoints/fake,{int(number % 9 > 0)}"
        for number, (suite, episodes) in enumerate(
            random.Random(1).choices([("libero_10", 50), ("libero_object", 10), ("libero_goal", 30)], k=120)
        )
    ),
]


def divided(campaign: Campaign, count: int) -> list[tuple[Row, ...]]:
    return [shards.rows_of(campaign, campaign.enabled, Shard(number, count)) for number in range(1, count + 1)]


def steps(campaign: Campaign, rows: Sequence[Row]) -> int:
    return sum(row.n_episodes * campaign.steps(row) for row in rows)  # each row here plays one task


@pytest.fixture
def many(make_campaign: MakeCampaign) -> Campaign:
    return make_campaign(rows=MANY).spec


@pytest.mark.parametrize("count", [1, 2, 7, 50, 200])
def test_every_enabled_row_is_in_exactly_one_shard_and_no_disabled_row_is_in_any(many: Campaign, count: int) -> None:
    rows = [row.run_id for shard in divided(many, count) for row in shard]
    assert sorted(rows) == sorted(row.run_id for row in many.enabled)
    assert len(many.enabled) < len(many.rows)


def test_a_shard_has_its_rows_in_the_order_of_the_matrix(many: Campaign) -> None:
    for shard in divided(many, 5):
        assert list(shard) == [row for row in many.enabled if row in shard]


def test_shards_have_equally_much_to_play_by_episodes_and_steps(many: Campaign) -> None:
    loads = [steps(many, shard) for shard in divided(many, 6)]
    assert max(loads) - min(loads) <= 10 * 280  # the shortest row's, so that no row could be moved for the better


def test_the_longest_row_has_a_shard_of_its_own_where_the_others_are_short(make_campaign: MakeCampaign) -> None:
    rows = [BASELINE, *(f"{name},libero_object,1,{n},cpu,7,egl,checkpoints/fake,1" for name, n in SHORT_AND_LONG)]
    first, second = divided(make_campaign(rows=rows).spec, 2)
    assert [row.run_id for row in first] == ["long"]
    assert [row.run_id for row in second] == ["baseline_b1_e2", "one", "two", "three"]


SHORT_AND_LONG = [("one", 10), ("two", 10), ("long", 50), ("three", 10)]


def test_steps_count_and_not_only_episodes(make_campaign: MakeCampaign) -> None:
    rows = [("far", "libero_10", 10), ("near_1", "libero_object", 9), ("near_2", "libero_object", 9)]  # 520, 280 steps
    lines = [f"{name},{suite},1,{n},cpu,7,egl,checkpoints/fake,1" for name, suite, n in rows]
    names = [[row.run_id for row in shard] for shard in divided(make_campaign(rows=[BASELINE, *lines]).spec, 2)]
    assert names == [["far"], ["baseline_b1_e2", "near_1", "near_2"]]


def test_equal_rows_are_dealt_in_turn_the_earlier_row_to_the_earlier_shard(make_campaign: MakeCampaign) -> None:
    rows = [BASELINE, *(f"row_{number},libero_object,1,2,cpu,7,egl,checkpoints/fake,1" for number in range(4))]
    names = [[row.run_id for row in shard] for shard in divided(make_campaign(rows=rows).spec, 2)]
    assert names == [["baseline_b1_e2", "row_1", "row_3"], ["row_0", "row_2"]]


def test_tasks_of_a_row_count_too(make_campaign: MakeCampaign) -> None:
    rows = [BASELINE, *(f"row_{number},libero_object,1,2,cpu,7,egl,checkpoints/fake,1" for number in range(3))]
    settings = f"{SETTINGS}\n[rows.row_2]\ntask_ids = [0, 1, 2, 3, 4, 5]\n"
    names = [[row.run_id for row in shard] for shard in divided(make_campaign(rows=rows, settings=settings).spec, 2)]
    assert names == [["row_2"], ["baseline_b1_e2", "row_0", "row_1"]]


def test_what_ran_before_changes_no_shard(many: Campaign) -> None:
    before = divided(many, 3)
    for number, row in enumerate(many.enabled):
        result = {"status": "pass", "duration_sec": 1.0 + number**2, "episodes": row.n_episodes}
        files.write_json(many.layout.run(row.run_id).result, result)
    assert divided(many, 3) == before


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "1", "a/b", "1/2/3", "-1/2", "1/1000000", "", "1/2\n"])
def test_what_is_no_shard_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        shards.parse("--shard", text)
    (finding,) = refused.value.findings
    assert (finding.where, "names no shard" in finding.what, "1/4" in finding.remedy) == ("--shard", True, True)


def test_a_shard_is_read_and_written_in_the_same_way() -> None:
    assert shards.parse("--shard", "3/16") == Shard(3, 16)
    assert str(Shard(3, 16)) == "3/16"
