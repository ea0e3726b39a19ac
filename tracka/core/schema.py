"""Loads the JSON schemas of the artifacts, `schemas/<name>.v1.json`, and returns what in a value breaks one of them."""

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from . import fact_cache, files, reading
from .artifacts import Certificate, EarlyStopRecord, Manifest, Result, Resumed, RowMarker, StepRecord
from .baselines import Baseline
from .errors import Finding, UsageError, shortened
from .fast_schema import TYPES, Predicate, sieve
from .reports import Capabilities, EnvSnapshot, Handoff, PreflightReport
from .verdicts import CampaignVerdict, Registration

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError

VERSION = 1


@cache
def load(name: str) -> dict[str, Any]:
    """Returns the schema called `name` that ships with this package."""
    text = resources.files(__package__).joinpath("schemas", f"{name}.v{VERSION}.json").read_text()
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _sieve(name: str) -> Predicate:
    return sieve(load(name))


@cache
def validator(name: str) -> "Draft202012Validator":
    """Returns jsonschema's validator of the schema `name`.

    It is ten times as slow as the sieve, and jsonschema takes as long to import as half of Track A.
    """
    from jsonschema import Draft202012Validator, validators

    types = {kind: lambda _, value, check=check: check(value) for kind, check in TYPES.items()}
    checker = Draft202012Validator.TYPE_CHECKER.redefine_many(types)
    strict: type[Draft202012Validator] = validators.extend(Draft202012Validator, type_checker=checker)  # type: ignore[no-untyped-call]
    return strict(load(name))


def errors(name: str, value: Any) -> "list[ValidationError]":
    """Returns jsonschema's errors for `value` under the schema `name`, in the order of their keys."""
    return [] if _sieve(name)(value) else sorted(validator(name).iter_errors(value), key=lambda error: error.json_path)


def findings(name: str, value: Any, where: str) -> list[Finding]:
    """Returns one finding for each key of `value` that breaks the schema `name`; `where` says what was checked."""
    remedy = f"See the schema {name}.v{VERSION}.json"
    return [
        Finding(f"{where}, key {shortened(error.json_path)}", shortened(error.message, 200), remedy)
        for error in errors(name, value)
    ]


@overload
def read(name: Literal["run_manifest"], path: Path) -> Manifest: ...
@overload
def read(name: Literal["result"], path: Path) -> Result: ...
@overload
def read(name: Literal["row_marker"], path: Path) -> RowMarker: ...
@overload
def read(name: Literal["resumed"], path: Path) -> Resumed: ...
@overload
def read(name: Literal["parity"], path: Path) -> Certificate: ...
@overload
def read(name: Literal["cli_capabilities"], path: Path) -> Capabilities: ...
@overload
def read(name: Literal["preflight"], path: Path) -> PreflightReport: ...
@overload
def read(name: Literal["env_snapshot"], path: Path) -> EnvSnapshot: ...
@overload
def read(name: Literal["handoff"], path: Path) -> Handoff: ...
@overload
def read(name: Literal["baseline"], path: Path) -> Baseline: ...
@overload
def read(name: Literal["verdict"], path: Path) -> CampaignVerdict: ...
@overload
def read(name: Literal["preregistration"], path: Path) -> Registration: ...
def read(name: str, path: Path) -> Any:
    """Returns the JSON object in `path`, which follows the schema `name`.

    Raises UsageError with everything that breaks the schema.
    """
    return _read(name, path)


def _read(name: str, path: Path) -> files.Json:
    return {**_valid(name, path, reading.state(path))}


@fact_cache.remembered_lately(files.RECENT_FILES)
def _valid(name: str, path: Path, state: reading.State | None) -> files.Json:
    """Returns the JSON object in `path`. `state` tells the file from the same file after a change."""
    value = files.read_json(path)
    if faults := findings(name, value, str(path)):
        raise UsageError(faults)
    return value


def read_or_empty(name: str, path: Path) -> files.Json:
    """Returns the JSON object in `path`, or an empty object where `read` would raise UsageError."""
    try:
        return _read(name, path)
    except UsageError:
        return {}


@overload
def read_or_none(name: Literal["run_manifest"], path: Path) -> Manifest | None: ...
@overload
def read_or_none(name: Literal["result"], path: Path) -> Result | None: ...
@overload
def read_or_none(name: Literal["preflight"], path: Path) -> PreflightReport | None: ...
@overload
def read_or_none(name: Literal["step"], path: Path) -> StepRecord | None: ...
@overload
def read_or_none(name: Literal["row_marker"], path: Path) -> RowMarker | None: ...
@overload
def read_or_none(name: Literal["preregistration"], path: Path) -> Registration | None: ...
@overload
def read_or_none(name: Literal["verdict"], path: Path) -> CampaignVerdict | None: ...
@overload
def read_or_none(name: Literal["early_stop"], path: Path) -> EarlyStopRecord | None: ...
def read_or_none(name: str, path: Path) -> Any:
    """Returns the JSON object in `path`, or None where `read` would raise UsageError."""
    return read_or_empty(name, path) or None


# Run schemas of earlier versions whose artifacts are valid today: a campaign may keep the schema that it was made with.
EARLIER_RUN_SCHEMAS = frozenset(
    {"9865e5e888b2037787869552d127d5c574f79dc722f750de635245d36eebbe36"}  # 0.1.0: no row without a row hash
)


def is_run_schema(value: Any) -> bool:
    """Returns whether a campaign's configs/run_schema.json is today's, or an earlier one that is still valid."""
    return value == run_schema() or files.sha256(files.canonical(value)) in EARLIER_RUN_SCHEMAS


def run_schema() -> dict[str, Any]:
    """Returns the content of a campaign's configs/run_schema.json, with the plan's two sections."""
    return {"schema_version": VERSION, "run_manifest": load("run_manifest"), "result": load("result")}
