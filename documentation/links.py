"""Where the links of a page lead on the site: to pages, to files of docs/, or to copies of files of the repository.

A page is the same file in the repository and on the site. So its links are those of the repository, and the ones that
lead elsewhere than into docs/ are rewritten.
"""

import re
from collections.abc import Callable
from pathlib import Path
from posixpath import dirname, join, normpath

REPOSITORY = Path(__file__).resolve().parents[1]
TOP = {"README.md": "overview.md", "CHANGELOG.md": "changelog.md"}  # pages at the top, and their names on the site
CAMPAIGNS = "docs/examples"  # what campaigns wrote: pages there are files to look at
COPIES = "files"
PICTURES = {".gif", ".jpg", ".png", ".svg"}
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(?=(?:#[^)\s]*)?\))")
_FENCE = re.compile(r"(^ *```.*?^ *```)", re.MULTILINE | re.DOTALL)


def on_site(path: str) -> str:
    """Returns the name on the site of a file or folder of the repository.

    A file that is neither a page nor a picture is shown as text.
    """
    if path in TOP:
        return TOP[path]
    if path.startswith("docs/") and not f"{path}/".startswith(f"{CAMPAIGNS}/"):
        return path.removeprefix("docs/")
    if (REPOSITORY / path).is_dir():
        return f"{COPIES}/{path}.md"
    return f"{COPIES}/{path}" if Path(path).suffix in PICTURES else f"{COPIES}/{path}.txt"


def rewritten(page: str, markdown: str) -> str:
    """Returns the text of `page`, a path in the repository, with its links as they are on the site."""
    root = "/" if "/" in on_site(page) else ""  # of the site, for a page in a folder of its own
    return _each_link(markdown, lambda link: root + on_site(_path(page, link)))


def copies(page: str, markdown: str) -> list[str]:
    """Returns the paths in the repository of the files and folders that `page` links to and that need a copy."""
    found: list[str] = []

    def note(link: str) -> str:
        found.append(_path(page, link))
        return link

    _each_link(markdown, note)
    return [path for path in found if on_site(path).startswith(f"{COPIES}/")]


def _path(page: str, link: str) -> str:
    return normpath(join(dirname(page), link))


def _each_link(markdown: str, change: Callable[[str], str]) -> str:
    """Returns the text with each link outside of blocks of code changed."""
    parts = _FENCE.split(markdown)
    return "".join(
        part if index % 2 else _LINK.sub(lambda match: change(match[1]), part) for index, part in enumerate(parts)
    )
