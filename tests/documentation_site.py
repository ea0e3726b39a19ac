"""The documentation's site, built once for all workers of a run, and its links."""

import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import campaigns
from campaigns import REPOSITORY


def built(temporary: Path) -> tuple[Path, subprocess.CompletedProcess[str] | None]:
    """Returns the folder of the site, and how its build ended where this worker has built it."""
    with campaigns.shared(temporary, "documentation") as folder:
        site = folder / "site"
        if site.exists():
            return site, None
        command = [sys.executable, "-m", "documentation", str(site)]
        return site, subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


class _Links(HTMLParser):
    """Notes what a page links to, and what it loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "href" and tag == "a":
                self.links.append(value or "")
            elif name == "src" or (name == "href" and tag == "link"):
                self.loads.append(value or "")


def links(page: Path) -> list[str]:
    """Returns what a page of the site links to."""
    parser = _Links()
    parser.feed(page.read_text())
    return parser.links


def loads(page: Path) -> list[str]:
    """Returns what a browser loads with a page of the site: scripts, styles, pictures."""
    parser = _Links()
    parser.feed(page.read_text())
    return parser.loads


def pages(page: Path) -> Iterator[Path]:
    """Yields the pages of the site to which `page` links."""
    for link in links(page):
        target = unquote(urldefrag(link)[0])
        if target.endswith(".html") and "://" not in target:
            yield (page.parent / target).resolve()
