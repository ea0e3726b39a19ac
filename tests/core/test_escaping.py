"""Text out of logs: nothing of it steers a terminal, starts a tag or breaks a table; plain text stays as it is."""

import random
import re
from xml.etree import ElementTree

import pytest

from tracka.core import escaping

HOSTILE = {
    "colour": ("\x1b[31mred\x1b[0m", "red"),
    "title": ("\x1b]0;owned\x07after", "after"),
    "clear": ("\x1b[2J\x1b[H\x1bcgone", "gone"),
    "c1": ("\x9b31mred", "31mred"),
    "back": ("good\b\b\b\bevil\x00", "goodevil"),
    "turned": ("abc\u202edcba", "abcdcba"),
    "surrogate": ("a\ud800b\uffff", "ab"),
    "usual": ("a line, ümläute, 日本\n\tand a tab", "a line, ümläute, 日本\n\tand a tab"),
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_what_steers_a_terminal_is_taken_out(text: str, shown: str) -> None:
    assert escaping.plain(text) == shown


@pytest.mark.parametrize("seed", range(20))
def test_any_text_becomes_xml_and_a_cell(seed: int) -> None:
    source = random.Random(seed)
    letters = "\x1b[]mP;0\x07\\|<>&`\n\r\t\x00\x85\u2028aé"
    for _ in range(200):
        text = "".join(source.choices(letters, k=source.randint(0, 30)))
        element = ElementTree.Element("e")
        element.text = escaping.plain(text)
        ElementTree.fromstring(ElementTree.tostring(element, "unicode"))
        cell = escaping.cell(text)
        assert "\n" not in cell and "<" not in cell
        assert not re.search(r"(?<!\\)(?:\\\\)*[|`]", cell)


def test_a_long_text_is_one_short_line() -> None:
    assert escaping.line(" a\nb\t c " + "x" * 1_000_000) == "a b c " + "x" * 494


@pytest.mark.parametrize(
    ("text", "shown"), [("lerobot/pi0", "`lerobot/pi0`"), ("a`b``c", "``` a`b``c ```"), ("<b>", "`<b>`")]
)
def test_code_has_a_fence_that_nothing_in_it_closes(text: str, shown: str) -> None:
    assert escaping.code(text) == shown
