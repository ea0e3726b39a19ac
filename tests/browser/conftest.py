"""The browser of the tests in this folder, and the campaigns whose pages it opens.

The browser is Debian's chromium; where it is not installed, these tests are skipped. `make test-browser` runs them.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser_pages import NEW, OLD, Opened, films, four_gpus, two_thousand
from campaigns import Made
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, and skips them where there is no chromium."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip("chromium is not installed: apt-get install chromium"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # chromium refuses root a sandbox
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """Returns a function that opens a blank page; its words are those of a context, such as color_scheme."""
    contexts = []

    def new(width: int = 1280, height: int = 900, **words: object) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": height}, **words)  # type: ignore[arg-type]
        contexts.append(context)
        return Opened(context.new_page())

    yield new
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def new(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign of which one row crashed and one stayed below its threshold."""
    return films(tmp_path_factory.getbasetemp(), "new", NEW)


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory, new: Made) -> Path:
    """The page of `new` against an older campaign that won two episodes more."""
    old = films(tmp_path_factory.getbasetemp(), "old", OLD)
    target = new.root / "compared.html"
    ended = new.call("report", str(new.root), "--against", str(old.root), "--output", str(target))
    assert ended.returncode == 0, ended.stderr
    return target


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Made:
    """A campaign of 2,002 episodes, whose page is not written yet."""
    return two_thousand(tmp_path_factory.getbasetemp(), prepared)


@pytest.fixture(scope="session")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign of ten tasks on four pretended GPUs, of which one row crashed and one stayed below its threshold."""
    return four_gpus(tmp_path_factory.getbasetemp())


@pytest.fixture
def report(opened: Callable[..., Opened], new: Made) -> Iterator[Page]:
    """The page of `new`; at the end of a test nothing may have been complained of or asked from elsewhere."""
    seen = opened()
    yield seen.go(new.layout.report_page)
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith((new.root.as_uri(), "data:"))] == []
