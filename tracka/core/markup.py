"""Text from elsewhere, such as a log's last line, made harmless where it is shown: terminal, table, page, JUnit."""

import re

# Escape sequences of terminals, then every other control character but tab and newline, and marks that turn text round.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])?")
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def plain(text: str) -> str:
    """`text` without what steers a terminal and what XML forbids; tabs and newlines stay."""
    return _CONTROL.sub("", _SEQUENCE.sub("", text))


def line(text: str, most: int = 500) -> str:
    """`text` as one plain line of at most `most` characters."""
    return " ".join(plain(text[: 4 * most]).split())[:most]


def cell(text: str) -> str:
    """`text` as one cell of a Markdown table that shows it as it is: no markup, no HTML, no further cell."""
    shown = plain(text)
    for sign, instead in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "\\`"), ("\n", " ")):
        shown = shown.replace(sign, instead)
    return shown


def code(text: str) -> str:
    """`text` as code in a line of Markdown, whose fence is longer than any within."""
    shown = plain(text).replace("\n", " ")
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {shown} {fence}" if longest else f"`{shown}`"
