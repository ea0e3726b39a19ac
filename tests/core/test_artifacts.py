"""The types of the artifacts: each has the keys of its schema, so that what mypy checks is what validation asks for."""

from collections.abc import Iterator
from importlib import resources
from typing import Any, get_args, get_type_hints, is_typeddict

import pytest

from tracka.bundles import facts
from tracka.core import artifacts, baselines, comparisons, replayed, reports, schema, verdicts

TYPES: dict[str, Any] = {
    "run_manifest": artifacts.Manifest,
    "result": artifacts.Result,
    "row_marker": artifacts.RowMarker,
    "step": artifacts.StepRecord,
    "identity": artifacts.Identity,
    "resumed": artifacts.Resumed,
    "parity": artifacts.Certificate,
    "early_stop": artifacts.EarlyStopRecord,
    "cli_capabilities": reports.Capabilities,
    "preflight": reports.PreflightReport,
    "doctor": reports.DoctorReport,
    "env_snapshot": reports.EnvSnapshot,
    "handoff": reports.Handoff,
    "comparison": comparisons.Comparison,
    "baseline": baselines.Baseline,
    "verdict": verdicts.CampaignVerdict,
    "preregistration": verdicts.Registration,
    "replay": replayed.Replay,
    "bundle": facts.BundleFacts,
}
Asked = dict[str, Any]


def typed(hint: Any) -> Any:
    """Returns the TypedDict in a hint such as list[X], dict[str, X] or X | None; None where there is none."""
    if is_typeddict(hint):
        return hint
    return next((found for each in get_args(hint) if (found := typed(each))), None)


def asked(value: Asked, whole: Asked) -> Asked:
    """Returns the part of a schema that asks for keys: of a list its items, of a reference what it names."""
    if "$ref" in value:
        found: Asked = whole["$defs"][value["$ref"].rsplit("/", 1)[-1]]
        return found
    return asked(value["items"], whole) if "items" in value else value


def pairs(name: str) -> Iterator[tuple[str, Any, Asked]]:
    """Yields the place, the type and the schema of an artifact and of each object in it whose keys the schema asks."""
    whole = schema.load(name)
    yield name, TYPES[name], whole
    for key, hint in get_type_hints(TYPES[name]).items():
        value = asked(whole["properties"][key], whole)
        if "required" in value or "properties" in value:
            yield f"{name}: {key}", typed(hint), value


EVERY = [pytest.param(kind, value, id=where) for name in TYPES for where, kind, value in pairs(name)]


def test_each_schema_but_the_settings_has_a_type():
    folder = resources.files("tracka.core").joinpath("schemas")
    names = {path.name.partition(".")[0] for path in folder.iterdir()}
    assert names - {"campaign"} == set(TYPES)


@pytest.mark.parametrize(("kind", "value"), EVERY)
def test_an_object_whose_keys_a_schema_asks_for_has_a_type(kind: Any, value: Asked):
    assert is_typeddict(kind)


@pytest.mark.parametrize(("kind", "value"), EVERY)
def test_a_type_requires_the_keys_that_its_schema_requires(kind: Any, value: Asked):
    assert kind.__required_keys__ == set(value["required"])


@pytest.mark.parametrize(("kind", "value"), [each for each in EVERY if "properties" in each.values[1]])
def test_a_type_has_the_keys_of_its_schema_and_no_others(kind: Any, value: Asked):
    assert kind.__required_keys__ | kind.__optional_keys__ == set(value["properties"])


@pytest.mark.parametrize("name", TYPES)
def test_a_value_may_be_none_where_its_schema_says_null(name: str):
    whole = schema.load(name)
    for key, hint in get_type_hints(TYPES[name]).items():
        value = whole["properties"][key]
        value = asked(value, whole) if "$ref" in value and "type" not in value else value
        may_be_none = "null" in value.get("type", ()) or None in value.get("enum", ())
        assert (type(None) in get_args(hint)) == may_be_none, key
