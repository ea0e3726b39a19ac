"""`tracka.api`: the names that the plan gives its functions and dataclasses."""

import importlib

import pytest
from contracts_page import table, words

from tracka import api

LINES = table("Functions and dataclasses")


@pytest.mark.parametrize("line", LINES, ids=lambda line: words(line["the plan's name"])[0])
def test_a_name_of_the_plan_is_imported_from_the_api_and_is_what_the_page_says(line: dict[str, str]) -> None:
    (name,), (place,) = words(line["the plan's name"]), words(line["lives in"])
    module, _, attribute = place.rpartition(".")
    assert getattr(api, name) is getattr(importlib.import_module(f"tracka.{module}"), attribute)


def test_the_api_has_no_other_name() -> None:
    assert sorted(api.__all__) == sorted(words(line["the plan's name"])[0] for line in LINES)
