"""Makes text from other programs, such as a log's last line, harmless in a terminal, a table, a page and JUnit."""

import re

# Escape sequences of terminals; then all other control characters except tab and newline, and marks that reverse the
# direction of text.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])?")
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def plain(text: str) -> str:
    """Returns `text` without terminal control sequences and characters that XML forbids. Tabs and newlines stay."""
    return _CONTROL.sub("", _SEQUENCE.sub("", text))


def line(text: str, most: int = 500) -> str:
    """Returns `text` as one plain line of at most `most` characters."""
    return " ".join(plain(text[: 4 * most]).split())[:most]


def cell(text: str) -> str:
    """Returns `text` as one cell of a Markdown table, shown literally: it cannot start markup, HTML or another cell."""
    literal = plain(text)
    for raw, escaped in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "\\`"), ("\n", " ")):
        literal = literal.replace(raw, escaped)
    return literal


# What begins emphasis, a link or strikethrough; an underscore inside a word begins nothing.
_INLINE = re.compile(r"[*\[\]~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BLOCK = re.compile(r"^(\s*)(?:([#>+=-])|(\d+)([.)])(?=\s|$))")  # at the beginning: a heading, a quotation or a list


def literal(text: str) -> str:
    """Returns `text` for one line or one cell of a Markdown page, shown literally wherever it stands.

    Unlike that of `cell`, it cannot become emphasis, a link, a picture, a heading or a list either.
    """
    return _BLOCK.sub(r"\1\3\\\2\4", _INLINE.sub(r"\\\g<0>", cell(text)))


def code(text: str) -> str:
    """Returns `text` as inline Markdown code, with a fence of backticks longer than any in the text."""
    shown = plain(text).replace("\n", " ")
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {shown} {fence}" if longest else f"`{shown}`"
