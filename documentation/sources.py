"""Lays out what the site is built from: the pages of docs/ with the order of docs/index.md, and what they link to.

docs/index.md is the only place that says where a page belongs: each of its sections becomes a page with a list, and a
part of the navigation. Sphinx warns of a page that is in no section.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from documentation import links

DOCS = links.REPOSITORY / "docs"
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_ENTRY = re.compile(r"^\* \[([^\]]+)\]\(([^)#]+)\)", re.MULTILINE)
_FOLDER = "---\norphan: true\nnosearch: true\n---\n# {name}\n\nA folder of the repository.\n\n{lines}\n"


def write(folder: Path) -> None:
    """Writes all sources of the site into `folder`, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("*.md", "examples"))
    for path in pages():
        text = (links.REPOSITORY / path).read_text()
        (folder / links.on_site(path)).write_text(links.rewritten(path, text))
        for linked in links.copies(path, text):
            _copy(linked, folder)
    _write_order(folder)


def pages() -> list[str]:
    """Returns the paths in the repository of all pages that people have written or the code has made."""
    found = [*sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("decisions/*.md"))]
    return [*links.TOP, *(path.relative_to(links.REPOSITORY).as_posix() for path in found)]


def sections(index: str) -> dict[str, str]:
    """Returns the title of each section of docs/index.md with its text."""
    _, *parts = _SECTION.split(index)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def entries(text: str) -> list[tuple[str, str]]:
    """Returns the title of each page in the list of a section, and the page."""
    return _ENTRY.findall(text)


def _write_order(folder: Path) -> None:
    index = folder / "index.md"
    text = index.read_text()
    names = {title: f"section-{title.lower()}" for title in sections(text)}
    for title, listed in sections(text).items():
        (folder / f"{names[title]}.md").write_text(f"# {title}\n{listed.rstrip()}\n\n{_toctree(entries(listed))}")
    index.write_text(f"{text.rstrip()}\n\n{_toctree(list(names.items()))}")


def _toctree(titles: list[tuple[str, str]]) -> str:
    lines = "".join(f"{title} <{page.removesuffix('.md')}>\n" for title, page in titles)
    return f"```{{toctree}}\n:hidden:\n\n{lines}```\n"


def _copy(path: str, folder: Path) -> None:
    """Copies a file of the repository; of a folder all files, beside a page that lists them.

    A file that is not there is not copied: Sphinx warns of the link to it.
    """
    place, target = links.REPOSITORY / path, folder / links.on_site(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if place.is_file():
        shutil.copyfile(place, target)
    if not place.is_dir():
        return
    inside = [f"{path}/{name}" for name in _files(place)]
    for each in inside:
        _copy(each, folder)
    lines = (f"* [{each}](/{links.on_site(each)})" for each in inside)
    target.write_text(_FOLDER.format(name=path, lines="\n".join(lines)))


def _files(place: Path) -> Iterator[str]:
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place)
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parts):
            yield name.as_posix()
