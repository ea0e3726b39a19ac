"""Presets: values with their sources, in a campaign that loads and that the linter has nothing against."""

import re
from pathlib import Path

import pytest
from campaigns import REPOSITORY, fake_checkpoint

from tracka import new_campaign
from tracka.campaign import preset
from tracka.core.errors import UsageError
from tracka.new_campaign import CampaignOptions
from tracka.preflight import linter

PAGE = (REPOSITORY / "docs" / "preflight.md").read_text()


@pytest.mark.parametrize("kind", preset.PRESETS)
def test_a_preset_is_written_with_its_sources_and_satisfies_the_linter(tmp_path: Path, kind: str) -> None:
    made = new_campaign.create(tmp_path / "mine", CampaignOptions(preset=kind))
    text = made.layout.settings.read_text()
    for known in preset.PRESETS[kind].settings:
        assert f"{known.key} = {known.value}   # {known.source}" in text
        assert getattr(made.defaults, known.key) == known.value
    assert made.defaults.policy_type == kind
    assert {check.name: check.status for check in linter.checks(made)}["lint:preset"] == "pass"


@pytest.mark.parametrize("kind", preset.PRESETS)
def test_a_preset_brings_its_checkpoint_where_none_is_named(tmp_path: Path, kind: str) -> None:
    made = new_campaign.create(tmp_path / "mine", CampaignOptions(preset=kind))
    assert {row.policy_path for row in made.rows} == {preset.PRESETS[kind].policy_path}


def test_a_checkpoint_that_is_named_stays(tmp_path: Path) -> None:
    made = new_campaign.create(tmp_path / "mine", CampaignOptions("somebody/smolvla", preset="smolvla"))
    assert {row.policy_path for row in made.rows} == {"somebody/smolvla"}


def test_what_no_source_settles_is_said_and_not_set(tmp_path: Path) -> None:
    made = new_campaign.create(tmp_path / "mine", CampaignOptions(preset="smolvla"))
    assert "# rename_map: it depends on the checkpoint" in made.layout.settings.read_text()
    assert (made.defaults.rename_map, made.defaults.episode_length) == ({}, None)


def test_an_unknown_preset_is_refused_with_the_list_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Use one of pi0, pi05, smolvla"):
        new_campaign.create(tmp_path / "mine", CampaignOptions(preset="pi1"))
    assert not (tmp_path / "mine").exists()


def test_an_unknown_preset_is_said_together_with_an_unknown_suite(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        new_campaign.create(tmp_path / "mine", CampaignOptions(suite="libero_moon", preset="pi1"))
    assert {finding.where for finding in raised.value.findings} == {"--suite", "--preset"}


def test_a_preset_of_another_type_than_the_checkpoint_is_refused(tmp_path: Path) -> None:
    fake_checkpoint(tmp_path / "act")
    with pytest.raises(UsageError, match="the preset is for pi0, but the policy is act"):
        new_campaign.create(tmp_path / "mine", CampaignOptions(str(tmp_path / "act"), preset="pi0"))


def test_the_pages_presets_are_those_of_the_code() -> None:
    lines = re.findall(r"^\| `(\w+)` \| `(\w+) = (\d+)` \| (.*) \|$", PAGE.split("## Presets")[1], re.MULTILINE)
    known = [(kind, item) for kind, found in preset.PRESETS.items() for item in found.settings]
    assert lines == [(kind, item.key, str(item.value), item.source) for kind, item in known]
