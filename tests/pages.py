"""Reads the pages that `tracka report` writes, as a test sees them: elements, addresses, data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib import parse

VOID = {"meta", "link", "input", "img", "br"}
PLACES = ("href", "src", "poster")


@dataclass
class Page(HTMLParser):
    """A parsed page: its text outside scripts and styles, its elements with their attributes, and its data."""

    path: Path
    text: str = ""
    elements: list[tuple[str, Mapping[str, str | None]]] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text())
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.text += data

    @property
    def data(self) -> dict[str, Any]:
        """The data that the page's own script reads."""
        value: dict[str, Any] = json.loads(self.scripts[0])
        return value

    def files(self) -> list[Path]:
        """Returns the files that the page names in its elements and its data, but for those of data URIs."""
        found = [attributes.get(name) for _, attributes in self.elements for name in PLACES]
        for episode in self.data["episodes"]:
            both = [episode, episode["partner"] or {}, {"video": (episode["trace"] or {}).get("file")}]
            found += [each.get(name) for each in both for name in ("video", "poster")]
        return [self.path.parent / parse.unquote(each) for each in found if each and each[0] != "#" and ":" not in each]
