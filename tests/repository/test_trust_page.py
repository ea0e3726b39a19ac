"""The page of faults that make another policy of a checkpoint, and the tests that break checkpoints, agree."""

import re

import pytest
import test_adapter
import test_device_placement
import test_model_tensors
import test_normalizer
import test_views
import test_weights
from campaigns import REPOSITORY

PAGE = (REPOSITORY / "docs" / "trust.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
CASES = {
    "Weights": [
        *test_weights.BROKEN,
        *test_adapter.BROKEN,
        *test_model_tensors.BROKEN,
        *test_adapter.TENSORS,
        *test_weights.LINES,
    ],
    "Statistics": [*test_normalizer.BROKEN],
    "Views": [*test_views.WRONG],
    "Devices": [*test_device_placement.BROKEN],
}


@pytest.mark.parametrize("section", CASES)
def test_every_fault_that_is_tried_has_its_line(section: str) -> None:
    assert re.findall(r"^\| `(\w+)` \|", SECTIONS[section], re.M) == CASES[section]


def test_what_a_loader_prints_is_on_the_page_as_it_is_looked_for() -> None:
    from tracka.engines import load_warnings

    assert [sign for sign in load_warnings.SIGNS if f"`{sign}`" not in PAGE] == []
