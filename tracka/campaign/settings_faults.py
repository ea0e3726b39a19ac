"""Says in plain words what in a campaign.toml breaks its schema: where, what is wrong, and what may stand there.

Guarantees: one finding for each fault, all at once. A line is named only where the text has one place for the key.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import close_match, installation, reading, schema
from ..core.errors import Finding, shortened

if TYPE_CHECKING:
    from jsonschema import ValidationError

Keys = tuple[str | int, ...]  # from the top of the file to a value; a number is a place in a list
Part = Mapping[str, Any]  # a part of the schema
NAME = "campaign"
KINDS = {
    "array": "a list",
    "object": "a table",
    "string": "a text in quotes",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
}
LISTED = f"{installation.page('campaign-toml.md')} has every key"
_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_KEY_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


def findings(table: Mapping[str, Any], path: Path) -> list[Finding]:
    """Returns a finding for each key of `table`, the content of the file `path`, that breaks the schema."""
    if not (errors := schema.errors(NAME, table)):
        return []
    lines = _lines(path)
    told = [_finding(path, lines, *fault) for error in errors for fault in _faults(error)]
    return list(dict.fromkeys(told))  # jsonschema reports each missing key by itself, and `_faults` all of them


def _finding(path: Path, lines: Mapping[Keys, int], keys: Keys, what: str, remedy: str) -> Finding:
    places = (lines.get(keys[:length]) for length in range(len(keys), 0, -1))
    line = next(filter(None, places), None)
    where = f"{path}, line {line}" if line else str(path)
    return Finding(f"{where}, key {dotted(keys)}" if keys else where, what, remedy)


def dotted(keys: Keys) -> str:
    """Returns keys as TOML writes them in one line, such as lerobot_eval.task_ids[0]."""
    words = [f"[{key}]" if isinstance(key, int) else f".{_quoted(key)}" for key in keys]
    return shortened("".join(words).removeprefix("."))


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else repr(key)


def _faults(error: "ValidationError") -> Iterator[tuple[Keys, str, str]]:
    """Yields the keys, what is wrong with their value, and the remedy."""
    keys: Keys = tuple(error.absolute_path)
    value: Any = error.instance
    if "propertyNames" in error.absolute_schema_path:
        yield _wrong_name(keys, value, str(error.validator))
    elif error.validator == "additionalProperties":
        known = _part(keys).get("properties", {})
        yield from (_unknown_key(keys, key, known) for key in value if key not in known)
    elif error.validator == "required":
        yield from (_missing_key(keys, key) for key in _part(keys)["required"] if key not in value)
    else:
        yield _wrong_value(keys, value, str(error.validator))


def _unknown_key(keys: Keys, key: str, known: Part) -> tuple[Keys, str, str]:
    table = f"the table [{dotted(keys)}]" if keys else "campaign.toml"
    remedy = _right_table(key) or close_match.asked_name(key, known)
    listed = f"The keys there are {', '.join(known)}. " if keys and len(known) <= 8 else ""
    return (*keys, key), f"{table} has no key {shortened(key)!r}", f"{remedy}{listed}{LISTED}"


def _right_table(key: str) -> str:
    """Returns the sentence that names where a key belongs that stands in another table; empty for an unknown key."""
    top = schema.load(NAME)["properties"]
    if key in top:
        return f"Move {key} to the top of the file, above the first table. " if _is_plain(top[key]) else ""
    homes = [f"[{name}]" for name, part in top.items() if key in _whole(part).get("properties", {})]
    return f"It is a key of {' and of '.join(homes)}: move it there. " if homes else ""


def _is_plain(part: Part) -> bool:
    return _whole(part).get("type") != "object"


def _missing_key(keys: Keys, key: str) -> tuple[Keys, str, str]:
    part = _part((*keys, key))
    return (*keys, key), "the key is missing", f"Write {_quoted(key)} = {_example(part)}, for example. {LISTED}"


def _wrong_name(keys: Keys, name: str, validator: str) -> tuple[Keys, str, str]:
    if validator == "not":
        what = f"{shortened(name)!r} is decided by the matrix, or by a key of its own"
        return (*keys, name), what, f"Take it out of [{dotted(keys)}]. {LISTED}"
    part = _part(keys)
    (example, *_) = part["propertyNames"].get("examples") or list(part["examples"][0])
    what = f"{shortened(name)!r} cannot be a name in [{dotted(keys)}]"
    return (*keys, name), what, f"Use a name such as {_quoted(example)}. {LISTED}"


def _wrong_value(keys: Keys, value: Any, validator: str) -> tuple[Keys, str, str]:
    part, shown = _part(keys), shortened(_shown(value), 80)
    what, example = f"{shown} is not {_allowed(part)}", f"write {_example(part)}, for example. {LISTED}"
    of_validators = {
        "enum": (what, f"{close_match.asked_name(value, part.get('enum', ()))}{LISTED}"),
        "minItems": ("the list is empty", f"Leave the key out, or {example}"),
        "minLength": ("the text is empty", f"Leave the key out, or {example}"),
        "uniqueItems": (f"{shown} has an element twice", f"Write each element once. {LISTED}"),
        "pattern": (f"{shown} has a form that cannot stand here", f"W{example[1:]}"),
    }
    return keys, *of_validators.get(validator, (what, f"W{example[1:]}"))


def _allowed(part: Part) -> str:
    """Returns what a value may be, such as `a whole number from 1 up`."""
    if "enum" in part:
        return f"one of {', '.join(part['enum'])}"
    if "const" in part:
        return str(part["const"])
    kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
    low, high = part.get("minimum", part.get("exclusiveMinimum")), part.get("maximum", part.get("exclusiveMaximum"))
    above = "" if low is None else f" {'above' if 'exclusiveMinimum' in part else 'from'} {low}"
    up = " up" if above.startswith(" from") and high is None else ""
    below = "" if high is None else f" {'and below' if 'exclusiveMaximum' in part else 'up to'} {high}"
    return f"{', '.join(KINDS[kind] for kind in kinds)}{above}{up}{below}"


def _example(part: Part) -> str:
    """Returns a value that may stand where `part` of the schema holds, as TOML writes it."""
    if "examples" in part:
        return _shown(part["examples"][0])
    if "minimum" in part or "exclusiveMinimum" in part:
        return str(part.get("minimum", 0.5))
    return {"string": "'text'", "object": "a table"}.get(str(part.get("type")), "another value")


def _shown(value: Any) -> str:
    """Returns a value as a message quotes it, near to what TOML writes."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_quoted(key)} = {_shown(each)}' for key, each in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return repr(value) if isinstance(value, str) else str(value)


def _part(keys: Keys) -> Part:
    """Returns the part of the schema that the value at `keys` has to follow."""
    part = _whole(schema.load(NAME))
    for key in keys:
        part = part["properties"][key] if key in part.get("properties", {}) else _unnamed_part(part, key)
        part = _whole(part)
    return part


def _unnamed_part(part: Part, key: str | int) -> Part:
    """Returns the part for an element of a list, or for a key that the user names, with an example of such a value."""
    inner = part["items" if isinstance(key, int) else "additionalProperties"]
    examples = [list(each.values() if isinstance(each, dict) else each)[:1] for each in part.get("examples", ())]
    return {"examples": examples[0], **_whole(inner)} if examples else inner


def _whole(part: Part) -> Part:
    """Returns a part of the schema with what it refers to; its own words go first."""
    shared = schema.load(NAME)["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else {}
    return {**shared, **part}


def _lines(path: Path) -> dict[Keys, int]:
    """Returns the lines of the keys and tables in a file: of those that stand on one line alone."""
    try:
        text = reading.content(path, reading.SETTINGS).decode(errors="replace")
    except OSError:
        return {}
    lines: dict[Keys, list[int]] = {}
    table: Keys = ()
    for number, line in enumerate(text.split("\n"), 1):
        if header := _HEADER.fullmatch(line):
            table = _key_parts(header[1])
            lines.setdefault(table, []).append(number)
        elif key := _KEY.match(line):
            lines.setdefault((*table, *_key_parts(key[1])), []).append(number)
    return {keys: numbers[0] for keys, numbers in lines.items() if len(numbers) == 1}


def _key_parts(text: str) -> Keys:
    return tuple(part.strip("\"'") for part in _KEY_PART.findall(text))
