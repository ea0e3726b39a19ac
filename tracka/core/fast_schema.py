"""Compiles a JSON schema into a fast check for the many values that follow it; jsonschema judges the rest and explains.

Guarantees: a value that passes the sieve is valid for jsonschema too, with the types in `TYPES`; a schema with a
keyword that is not known here is refused, never applied in part.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Predicate = Callable[[Any], bool]
Schema = Mapping[str, Any]


def is_integer(value: Any) -> bool:
    """Returns whether `value` is an int. JSON's integers include 40.0, which a flag of lerobot-eval does not take."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Returns whether `value` is a finite number.

    A threshold of NaN would accept anything: every comparison with NaN is false.
    """
    return is_integer(value) or (isinstance(value, float) and math.isfinite(value))


TYPES: dict[str, Predicate] = {
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool),
    "integer": is_integer,
    "null": lambda value: value is None,
    "number": is_number,
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
}
# Python types all of whose values have a JSON type. A float may be no number, so it is not here.
EXACT: dict[str, frozenset[type]] = {
    "array": frozenset({list}),
    "boolean": frozenset({bool}),
    "integer": frozenset({int}),
    "null": frozenset({type(None)}),
    "number": frozenset({int}),
    "object": frozenset({dict}),
    "string": frozenset({str}),
}
# What restricts no value; `then` is applied together with its `if`.
ANNOTATIONS = {"$schema", "$defs", "title", "description", "default", "examples", "then"}


def sieve(schema: Schema, root: Schema | None = None) -> Predicate:
    """Returns a function that is true only for values that follow `schema`; references are looked up in `root`.

    Raises KeyError for a keyword that is not known here.
    """
    whole = schema if root is None else root
    checks = [_KEYWORDS[word](schema, whole) for word in schema if word not in ANNOTATIONS]
    return checks[0] if len(checks) == 1 else _every(checks)


def _every(checks: Sequence[Predicate]) -> Predicate:
    def check(value: Any) -> bool:
        for predicate in checks:  # noqa: SIM110  a generator would take twice the time
            if not predicate(value):
                return False
        return True

    return check


def _type(schema: Schema, _: Schema) -> Predicate:
    names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    exact = frozenset[type]().union(*(EXACT[name] for name in names))
    checks = [TYPES[name] for name in names]
    return lambda value: type(value) in exact or any(check(value) for check in checks)


def _equal(left: Any, right: Any) -> bool:
    """Returns whether two values are equal in JSON, where true is not 1.

    Our schemas list single values only, and of arrays the empty one.
    """
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def _enum(schema: Schema, _: Schema) -> Predicate:
    allowed = schema["enum"]
    if all(isinstance(item, str) for item in allowed):
        words = frozenset(allowed)
        return lambda value: isinstance(value, str) and value in words
    return lambda value: any(_equal(value, item) for item in allowed)


def _const(schema: Schema, _: Schema) -> Predicate:
    constant = schema["const"]
    return lambda value: _equal(value, constant)


def _pattern(schema: Schema, _: Schema) -> Predicate:
    search = re.compile(schema["pattern"]).search
    return lambda value: not isinstance(value, str) or search(value) is not None


def _minimum(schema: Schema, _: Schema) -> Predicate:
    least = schema["minimum"]
    return lambda value: not is_number(value) or value >= least


def _maximum(schema: Schema, _: Schema) -> Predicate:
    most = schema["maximum"]
    return lambda value: not is_number(value) or value <= most


def _above(schema: Schema, _: Schema) -> Predicate:
    below = schema["exclusiveMinimum"]
    return lambda value: not is_number(value) or value > below


def _below(schema: Schema, _: Schema) -> Predicate:
    above = schema["exclusiveMaximum"]
    return lambda value: not is_number(value) or value < above


def _min_length(schema: Schema, _: Schema) -> Predicate:
    return lambda value: not isinstance(value, str) or len(value) >= schema["minLength"]


def _min_items(schema: Schema, _: Schema) -> Predicate:
    return lambda value: not isinstance(value, list) or len(value) >= schema["minItems"]


def _unique(schema: Schema, _: Schema) -> Predicate:
    """Returns a check that accepts unique strings and whole numbers.

    An array with other items is left to jsonschema.
    """
    return lambda value: (
        not isinstance(value, list)
        or (all(type(item) in (int, str) for item in value) and len(set(value)) == len(value))
    )


def _items(schema: Schema, root: Schema) -> Predicate:
    item = sieve(schema["items"], root)
    return lambda value: not isinstance(value, list) or all(map(item, value))


def _required(schema: Schema, _: Schema) -> Predicate:
    names = frozenset(schema["required"])
    return lambda value: not isinstance(value, dict) or names <= value.keys()


def _properties(schema: Schema, root: Schema) -> Predicate:
    checks = [(name, sieve(property_schema, root)) for name, property_schema in schema["properties"].items()]

    def check(value: Any) -> bool:
        if isinstance(value, dict):
            for name, predicate in checks:
                if name in value and not predicate(value[name]):
                    return False
        return True

    return check


def _additional(schema: Schema, root: Schema) -> Predicate:
    declared, additional = schema.get("properties", {}).keys(), schema["additionalProperties"]
    check: Predicate = (lambda _: additional) if isinstance(additional, bool) else sieve(additional, root)
    return lambda value: (
        not isinstance(value, dict) or all(check(value[name]) for name in value if name not in declared)
    )


def _names(schema: Schema, root: Schema) -> Predicate:
    name = sieve(schema["propertyNames"], root)
    return lambda value: not isinstance(value, dict) or all(map(name, value))


def _reference(schema: Schema, root: Schema) -> Predicate:
    return sieve(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)


def _all_of(schema: Schema, root: Schema) -> Predicate:
    return _every([sieve(part, root) for part in schema["allOf"]])


def _certain(schema: Schema, root: Schema) -> Predicate:
    """Returns a sieve that rejects only invalid values, as a condition (`if`, `not`) needs.

    Raises KeyError for uniqueItems, since `_unique` also rejects valid arrays, which jsonschema judges.
    """
    if "uniqueItems" in str(schema):
        raise KeyError("uniqueItems inside a condition")
    return sieve(schema, root)


def _if(schema: Schema, root: Schema) -> Predicate:
    condition, then = _certain(schema["if"], root), sieve(schema["then"], root)
    return lambda value: not condition(value) or then(value)


def _not(schema: Schema, root: Schema) -> Predicate:
    condition = _certain(schema["not"], root)
    return lambda value: not condition(value)


_KEYWORDS: dict[str, Callable[[Schema, Schema], Predicate]] = {
    "$ref": _reference,
    "additionalProperties": _additional,
    "allOf": _all_of,
    "const": _const,
    "enum": _enum,
    "exclusiveMaximum": _below,
    "exclusiveMinimum": _above,
    "if": _if,
    "items": _items,
    "maximum": _maximum,
    "minItems": _min_items,
    "minLength": _min_length,
    "minimum": _minimum,
    "not": _not,
    "pattern": _pattern,
    "properties": _properties,
    "propertyNames": _names,
    "required": _required,
    "type": _type,
    "uniqueItems": _unique,
}
