"""The JSON schemas of the artifacts, `schemas/<name>.v1.json`, and the findings of holding a value against one."""

import json
import math
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, validators

from . import files
from .errors import Finding, UsageError, short

VERSION = 1


def _is_integer(_: Any, value: Any) -> bool:
    """JSON's integers include 40.0, which a flag of lerobot-eval does not take."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: Any, value: Any) -> bool:
    """No threshold may be NaN: every comparison with it fails, so it would accept anything."""
    return _is_integer(_, value) or (isinstance(value, float) and math.isfinite(value))


_TYPES = Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_number})
_Validator: type[Draft202012Validator] = validators.extend(Draft202012Validator, type_checker=_TYPES)  # type: ignore[no-untyped-call]


@cache
def load(name: str) -> dict[str, Any]:
    """The schema called `name`, as shipped in the package."""
    text = resources.files(__package__).joinpath("schemas", f"{name}.v{VERSION}.json").read_text()
    schema: dict[str, Any] = json.loads(text)
    return schema


def findings(name: str, value: Any, where: str) -> list[Finding]:
    """One finding for each key of `value` that breaks the schema `name`."""
    errors = _Validator(load(name)).iter_errors(value)
    remedy = f"See the schema {name}.v{VERSION}.json"
    ordered = sorted(errors, key=lambda error: error.json_path)
    return [Finding(f"{where}, key {short(error.json_path)}", short(error.message, 200), remedy) for error in ordered]


def read(name: str, path: Path) -> files.Json:
    """The JSON in `path`, whose keys can be relied on. Raises UsageError with everything that breaks the schema."""
    value = files.read_json(path)
    if broken := findings(name, value, str(path)):
        raise UsageError(broken)
    return value


def read_or_empty(name: str, path: Path) -> files.Json:
    """The JSON in `path`, or an empty one where `read` would refuse."""
    try:
        return read(name, path)
    except UsageError:
        return {}


def run_schema() -> dict[str, Any]:
    """The content of a campaign's configs/run_schema.json: the plan's two sections."""
    return {"schema_version": VERSION, "run_manifest": load("run_manifest"), "result": load("result")}
