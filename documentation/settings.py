"""docs/campaign-toml.md: every key of campaign.toml with what it says, its default and an example, from its schema."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from documentation.markdown import MADE, code, sentence, table
from tracka.core import schema

KINDS = {"array": "list", "object": "table", "string": "text", "boolean": "true or false"}
INTRODUCTION = """
`configs/campaign.toml` says everything about a campaign that is not a column of its matrix. `tracka init` writes it.
`schema_version`, `baseline` and `expected_gpus` must be there; everything else may be left out. A key that is not on
this page is refused before anything starts, together with all other errors. The examples show each key with another
value than its default.

The matrix, `configs/eval_matrix.csv`, has one line for each run, with the columns of
[contracts.md](contracts.md#columns).
"""


@dataclass(frozen=True)
class Table:
    """A table of campaign.toml: its title in brackets, what it is for, its keys, and how it may look in the file."""

    title: str
    note: str
    keys: Mapping[str, Mapping[str, Any]]
    example: str


def page() -> str:
    """Returns the page."""
    made = MADE.format(source="`tracka/core/schemas/campaign.v1.json`")
    return f"# campaign.toml\n\n{made}{INTRODUCTION}\n" + "\n".join(map(_section, tables(schema.load("campaign"))))


def tables(root: Mapping[str, Any]) -> Iterator[Table]:
    """Yields each table of campaign.toml, by its schema; first the keys that are in no table."""
    keys = {name: _whole(root, each) for name, each in root["properties"].items()}
    yield _table("", "", {name: each for name, each in keys.items() if each.get("type") != "object"})
    for name, each in keys.items():
        if each.get("type") != "object":
            continue
        if "examples" in each:  # its keys are names that the user gives
            yield Table(f"[{name}]", each["description"], {}, _named(name, each["examples"][0]))
        elif "properties" in each:
            yield _table(f"[{name}]", each["description"], _keys(root, each))
        else:  # a table for each name
            inner = _keys(root, each["additionalProperties"])
            verdict = inner.pop("verdict")
            yield _table(f"[{name}.NAME]", each["description"], inner, f"[{name}.smoke]")
            yield Table(f"[{name}.NAME.verdict]", verdict["description"], {}, "")


def _keys(root: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {key: _whole(root, each) for key, each in part["properties"].items()}


def _whole(root: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a schema with what it refers to; its own words go first."""
    found = root["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else {}
    return {**found, **{key: each for key, each in part.items() if key != "$ref"}}


def _table(title: str, note: str, keys: Mapping[str, Mapping[str, Any]], example: str = "") -> Table:
    lines = [f"{_key(key)} = {toml(each['examples'][0])}" for key, each in keys.items()]
    return Table(title, note, keys, "\n".join(list(filter(None, [example or title])) + lines))


def _named(name: str, example: Mapping[str, Any]) -> str:
    """Returns a table whose keys the user names, or a table for each of these names."""
    if all(isinstance(each, dict) for each in example.values()):
        return "\n".join(_named(f"{name}.{key}", each) for key, each in example.items())
    return "\n".join([f"[{name}]", *(f"{_key(key)} = {toml(each)}" for key, each in example.items())])


def _section(part: Table) -> str:
    parts = [f"## `{part.title}`\n" if part.title else "## Beside all tables\n"]
    parts += [f"{sentence(part.note)}\n"] if part.note else []
    lines = [
        (
            code(key),
            sentence(each["description"]),
            _values(each),
            code(toml(each["default"])) if "default" in each else "",
        )
        for key, each in part.keys.items()
    ]
    parts += [table(("key", "what it says", "values", "default"), lines)] if lines else []
    parts += [f"```toml\n{part.example}\n```\n"] if part.example else []
    return "\n".join(parts)


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)


def toml(value: Any) -> str:
    """Returns a value as TOML writes it."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_key(key)} = {toml(each)}' for key, each in value.items())} }}"
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, list) else json.dumps(value)


def _values(part: Mapping[str, Any]) -> str:
    if "enum" in part or "const" in part:
        return " or ".join(code(each) for each in part.get("enum", [part.get("const")]))
    low, high = part.get("minimum", part.get("exclusiveMinimum")), part.get("maximum", part.get("exclusiveMaximum"))
    above = "" if low is None else f"{'above' if 'exclusiveMinimum' in part else 'from'} {low}"
    below = "" if high is None else f"{'below' if 'exclusiveMaximum' in part else 'to'} {high}"
    return " ".join(filter(None, (KINDS.get(part["type"], part["type"]), above, below)))
