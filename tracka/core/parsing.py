"""Turns JSON and TOML that somebody else wrote into plain values, or says in one sentence why it must not.

Guarantees: whatever the text, the only error is `Malformed`, with the line where one is known. A value that is returned
is nested at most `DEEPEST` levels, so that code may walk it by recursion; its whole numbers have at most `DIGITS`
digits, so that they can be shown and turned into floats; its texts can be written as UTF-8 and used as names of files.
Readers differ in what they take of a key that is there twice, of a byte order mark and of UTF-16, so all are refused.
"""

import contextlib
import json
import math
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from .errors import shortened

DEEPEST = 64
DIGITS = 40  # tokenizers write 10**30 for "no limit"
TOML_WHOLE = 1 << 63  # TOML's own limit
_LONG_NUMBER = re.compile(rf"\d{{{DIGITS + 1},}}")


class Malformed(ValueError):
    """Raised for a text that is not the JSON or TOML that Track A takes."""


def text_fault(word: str) -> str | None:
    """Returns why a word of a command line is no text that files can hold; None where it is."""
    if "\0" in word:
        return "it has a NUL byte"
    try:
        word.encode()
    except UnicodeEncodeError:
        return "it is not text in UTF-8"
    return None


def json_value(data: bytes | str, not_finite: bool = False, any_text: bool = False) -> Any:
    """Returns the value of a JSON text.

    With `not_finite` the constants NaN and Infinity are taken, as Python does; with `any_text` texts may hold NUL and
    lone surrogates, as vocabularies of tokenizers do. Raises Malformed.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        value = (_LENIENT if not_finite else _STRICT).decode(text)
    except UnicodeDecodeError as error:
        raise Malformed(f"it is not UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise Malformed(f"{error.msg}, line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise Malformed(f"it is nested deeper than {DEEPEST} levels, {_deepest_line(text)}") from None
    except ValueError as error:
        raise Malformed(f"{error}{_line_of(text, error)}") from None
    # Most texts cannot break the guarantees, so that their values need no walk.
    if "\\u" in text or text.count("{") + text.count("[") > DEEPEST:
        _require_plain(value, any_text=any_text)
    return value


def printed_values(text: str, start: str = "{", not_finite: bool = False) -> Iterator[Any]:
    """Yields the JSON values that a child printed, one a line: of the lines that begin with `start`.

    A line that was cut off, as by the child's end, has none. `not_finite` is as `json_value` takes it.
    """
    for line in text.splitlines():
        if line.startswith(start):
            with contextlib.suppress(Malformed):
                yield json_value(line, not_finite)


def toml_table(data: bytes) -> dict[str, Any]:
    """Returns the table of a TOML text. Raises Malformed."""
    try:
        text = data.decode()
        _require_short_keys(text)
        table = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Malformed(f"it is not UTF-8: {error.reason}, line {line}") from None
    except RecursionError:
        raise Malformed(f"it is nested deeper than {DEEPEST} levels, {_deepest_line(text)}") from None
    except tomllib.TOMLDecodeError as error:
        last = f"at line {text.count(chr(10)) + 1}, the last"
        raise Malformed(str(error).replace("at end of document", last)) from None
    except ValueError as error:  # a number, a date or a time that Python cannot hold
        raise Malformed(f"{shortened(error)}{_line_of(text, error)}") from None
    _require_plain(table, TOML_WHOLE)
    return table


def _object_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object from its pairs. Raises ValueError for a repeated key."""
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in value if names.count(name) > 1)
        raise ValueError(f"a key occurs twice, {shortened(repr(twice))}")
    return value


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {shortened(digits, 20)} is too large")
    return number


def _constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


_STRICT = json.JSONDecoder(
    object_pairs_hook=_object_of_unique_keys, parse_int=_whole, parse_float=_finite, parse_constant=_constant
)
_LENIENT = json.JSONDecoder(object_pairs_hook=_object_of_unique_keys, parse_int=_whole)


def _require_short_keys(text: str) -> None:
    """Raises Malformed for a line whose key has more parts than a value may have levels.

    tomllib takes a time that grows with the parts of a table's name times the keys in the table.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.partition("=")[0].count(".") > DEEPEST and line.lstrip()[:1] not in "\"'#":
            raise Malformed(f"a key has more than {DEEPEST} parts, line {number}")


def _require_plain(value: Any, whole: int = 10**DIGITS, any_text: bool = False) -> None:
    """Raises Malformed with the key where a value breaks a guarantee of this module; `whole` bounds whole numbers."""
    pending: list[tuple[Any, int, str]] = [(value, 1, "")]
    while pending:
        item, level, key = pending.pop()
        if level > DEEPEST + 1:
            raise Malformed(f"it is nested deeper than {DEEPEST} levels, key {shortened(key or 'at the top')}")
        if isinstance(item, dict):
            for name, part in item.items():
                _require_text("" if any_text else name, key)
                pending.append((part, level + 1, f"{key}.{name}" if key else name))
        elif isinstance(item, list):
            pending += [(part, level + 1, key) for part in item]
        elif isinstance(item, str):
            _require_text("" if any_text else item, key)
        elif isinstance(item, int) and not -whole <= item < whole:
            raise Malformed(f"a number has more bits than a number may have, key {shortened(key)}")


def _require_text(text: str, key: str) -> None:
    if "\0" in text:
        raise Malformed(f"a text holds a NUL character, key {shortened(key or 'at the top')}")
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        where = shortened(ascii(key or "at the top"))
        raise Malformed(f"a text holds half of a character (a lone surrogate), key {where}")


def _deepest_line(text: str) -> str:
    """Returns which line opens the most brackets, as `line 3`: where nesting has no end, that line is to blame."""
    counts = (line.count("[") + line.count("{") for line in text.split("\n"))
    number, _ = max(enumerate(counts, 1), key=lambda counted: counted[1])
    return f"line {number}"


def _line_of(text: str, error: ValueError) -> str:
    """Returns the line of an error that names none, where its cause can be found: a long number, or a key in quotes."""
    return next((f", line {text.count(chr(10), 0, place) + 1}" for place in _places(text, str(error))), "")


def _places(text: str, message: str) -> Iterator[int]:
    if "digit" in message and (number := _LONG_NUMBER.search(text)):
        yield number.start()
    if "is not JSON" in message:
        yield text.find(message.split()[0])
    if "is too large" in message:
        yield text.find(message.split()[2].removesuffix("..."))
    if quoted := re.search(r"twice, (['\"].*['\"])", message):
        yield max(text.rfind(f'"{quoted[1][1:-1]}"'), 0)
