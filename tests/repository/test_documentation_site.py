"""The documentation's site: built without a warning, each page two clicks away, and nothing loaded from a network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from campaigns import REPOSITORY
from documentation_site import built, links, loads, pages

from documentation import sources

MADE = {"genindex", "search"}  # pages of Sphinx itself


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, ended = built(tmp_path_factory.getbasetemp())
    if ended is not None:
        assert (ended.returncode, ended.stderr) == (0, "")
    return folder


def test_every_page_of_the_repository_is_on_the_site_two_clicks_from_its_start(site: Path) -> None:
    start = site / "index.html"
    first = set(pages(start))
    reached = first | {page for each in first if each.exists() for page in pages(each)}
    there = {page.resolve() for page in site.rglob("*.html") if page.stem not in MADE and "_static" not in page.parts}
    assert len(there) > len(sources.pages()) > 30
    assert there - reached - {start} == set()


def test_the_start_page_of_the_repository_names_every_page_once() -> None:
    index = (REPOSITORY / "docs" / "index.md").read_text()
    listed = [target for text in sources.sections(index).values() for _, target in sources.entries(text)]
    named = [target.removeprefix("../") if target.startswith("../") else f"docs/{target}" for target in listed]
    assert sorted(named) == sorted(set(sources.pages()) - {"docs/index.md"})


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    every = {each for page in site.rglob("*.html") for each in loads(page)}
    assert {each.partition("?")[0] for each in every} >= {"searchindex.js", "_images/known-answers.png"}
    assert {each for each in every if re.match(r"(\w+:)?//", each)} == set()
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"""(?:@import|url\()\s*["']?(?:https?:)?//[^)]*""", styles) == []


def test_links_to_files_of_the_repository_lead_to_copies_that_are_there(site: Path) -> None:
    downloads = [link for link in links(site / "known-answers.html") if "_downloads" in link]
    assert any(link.endswith("known-answers.txt") for link in downloads)
    assert all((site / link).is_file() for link in downloads)
    assert (site / "files" / "fixtures" / "lerobot_policy_replay.html").is_file()


FAULTS = {  # what is added to a page -> what the build says
    "[a](nowhere.md)": "target not found: 'nowhere.md'",
    "[a](contracts.md#nowhere)": "local id not found in doc 'contracts': 'nowhere'",
    "[a](#nowhere)": "target not found: 'nowhere'",
    "[a](../nowhere.py)": "target not found: 'files/nowhere.py.txt'",
    "![a](images/nowhere.png)": "image file not readable: images/nowhere.png",
}


@pytest.mark.slow
def test_links_that_lead_nowhere_and_a_page_without_a_place_fail_the_build(tmp_path: Path) -> None:
    for name in ("docs", "documentation"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    for path in REPOSITORY.iterdir():
        if path.name not in ("docs", "documentation", "reports"):
            (tmp_path / path.name).symlink_to(path)
    with (tmp_path / "docs" / "tables.md").open("a") as page:
        page.write("\n\n".join(["", *FAULTS, ""]))
    (tmp_path / "docs" / "lost.md").write_text("# Lost\n")
    ended = subprocess.run([sys.executable, "-m", "documentation"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    said = ended.stderr.splitlines()
    wanted = {*FAULTS.values(), "lost.md: WARNING: document isn't included in any toctree"}
    assert {each for each in wanted if not any(each in line for line in said)} == set()
    assert len(said) == len(wanted)
