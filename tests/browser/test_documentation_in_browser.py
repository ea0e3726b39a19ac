"""The documentation's site, opened from the disk: its search, both themes, a phone's width, and what axe-core says."""

from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser_pages import Opened
from documentation_site import built
from playwright.sync_api import expect

Open = Callable[..., Opened]
PAGES = ("index", "tutorial", "campaign-toml", "contracts")  # the last two have wide tables
WIDTHS = {"desk": 1280, "phone": 390}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, _ = built(tmp_path_factory.getbasetemp())
    return folder


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ("gated", "Gated models"),
        ("rename_map", "campaign.toml"),
        ("lease", "Glossary"),
        ("underpowered", "Is the policy good enough?"),
    ],
)
def test_a_word_that_is_typed_from_the_start_page_leads_to_its_page(
    opened: Open, site: Path, words: str, title: str
) -> None:
    seen = opened()
    page = seen.go(site / "index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type(words)
    page.keyboard.press("Enter")
    found = page.locator("#search-results ul.search > li > a")
    found.get_by_text(title, exact=True).first.click()
    expect(page.locator("h1")).to_contain_text(title)
    assert [url for url in seen.requests if not url.startswith((site.as_uri(), "data:"))] == []
    assert seen.complaints == []


def test_the_parts_of_the_start_page_and_a_page_of_each_are_two_clicks_away(opened: Open, site: Path) -> None:
    page = opened().go(site / "index.html")
    for part, name in (("How-to", "Use gated models"), ("Reference", "Exit codes"), ("Explanation", "Limits")):
        page.locator(".bd-header").get_by_role("link", name=part).first.click()
        page.get_by_role("main").get_by_role("link", name=name, exact=True).first.click()
        expect(page.locator("h1")).to_be_visible()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_no_page_is_wider_than_its_window(
    opened: Open, site: Path, scheme: str, width: str
) -> None:
    seen = opened(WIDTHS[width], color_scheme=scheme)
    for name in PAGES:
        page = seen.go(site / f"{name}.html")
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]
        violations = Axe().run(page).response["violations"]
        assert [(each["id"], each["nodes"][0]["target"]) for each in violations] == [], name
