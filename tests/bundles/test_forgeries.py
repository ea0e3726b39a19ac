"""Forgeries: what is edited consistently is found wherever arithmetic can find it; the rest is named as the limit."""

import itertools
import random
from pathlib import Path

import forgeries
import pytest
from campaigns import REPOSITORY
from forger import Forger
from forgeries import LIMIT, TABLE, Forgery
from stored_campaign import campaign_copy

from tracka.bundles import bundle, verification
from tracka.bundles.bundle import BundleOptions

PAGE = REPOSITORY / "docs" / "evidence.md"
FEW = TABLE[::9]


def verified(root: Path) -> tuple[str, list[str]]:
    """Returns the verdict on the bundle of a campaign, and the findings."""
    file = bundle.write(root, BundleOptions(output=root.parent / "bundle.tar"))
    with verification.opened(file) as bundle_file:
        found = verification.verify(bundle_file)
    return found.verdict, [str(finding) for finding in found.findings]


def forged(folder: Path, *edits: Forgery) -> tuple[str, list[str]]:
    """Returns what is found of a campaign with these forgeries, whose maker has made all the rest anew."""
    forger = Forger(campaign_copy(folder))
    for edit in edits:
        edit.edit(forger)
    forger.seal()
    return verified(forger.root)


def judge(folder: Path, forgery: Forgery) -> None:
    verdict, findings = forged(folder, forgery)
    if forgery.found is LIMIT:
        assert (verdict, findings) == ("accepted", [])
    else:
        assert [finding for finding in findings if forgery.found in finding], findings
        assert verdict == "not accepted"


def test_the_campaign_is_accepted_and_so_is_one_that_is_only_made_anew(tmp_path: Path) -> None:
    assert verified(campaign_copy(tmp_path / "as_it_was")) == ("accepted", [])
    assert forged(tmp_path / "sealed") == ("accepted", [])


@pytest.mark.parametrize("forgery", FEW, ids=lambda forgery: forgery.name)
def test_a_forgery_is_found_or_named_as_the_limit(forgery: Forgery, tmp_path: Path) -> None:
    judge(tmp_path, forgery)


@pytest.mark.slow
@pytest.mark.parametrize("forgery", [each for each in TABLE if each not in FEW], ids=lambda forgery: forgery.name)
def test_each_other_forgery_is_found_or_named_as_the_limit(forgery: Forgery, tmp_path: Path) -> None:
    judge(tmp_path, forgery)


def test_a_campaign_whose_row_failed_once_is_accepted(tmp_path: Path) -> None:
    forger = Forger(campaign_copy(tmp_path))
    forgeries.first_attempt_failed(forger)
    assert verified(forger.root) == ("accepted", [])


ALONE = [each for each in TABLE if each.found is not LIMIT]
PAIRS = [
    (first, second)
    for first, second in random.Random(29).sample(list(itertools.combinations(ALONE, 2)), 120)
    if first.rows.isdisjoint(second.rows)
]


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0].name}-{pair[1].name}")
def test_two_forgeries_together_are_found_too(pair: tuple[Forgery, Forgery], tmp_path: Path) -> None:
    verdict, findings = forged(tmp_path, *pair)
    assert verdict == "not accepted"
    assert any(each.found in finding for each in pair for finding in findings if each.found), findings


def test_there_are_forty_forgeries_and_each_limit_is_named_on_the_page() -> None:
    assert len(TABLE) >= 40
    page = PAGE.read_text()
    assert [forgery.name for forgery in TABLE if f"`{forgery.name}`" not in page] == []
