"""`tracka plot`: figures of a campaign for papers, the same bytes from the same artifacts."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import campaigns
import pytest
from campaigns import Made
from pages import Page

from tracka.core import files
from tracka.report_page import figure_style, plot_devices, plot_tasks
from tracka.report_page.task_rates import TaskRate
from tracka.report_page.timeline import OTHERS, Lane, Span, Timeline
from tracka.statistics.rate import Count, clopper_pearson, wilson

NAMES = ("success-by-task", "episodes-over-time", "device-use")
INSTRUCTION = "pick up the alphabet soup and the cream cheese box and place both of them in the basket"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return campaigns.below_threshold(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def drawn(closed: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the figures of that campaign, with its own rates as the baseline's."""
    folder = tmp_path_factory.mktemp("drawn")
    ended = closed.call("plot", str(closed.root), "--against", str(closed.root), "--output", str(folder))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [str(folder / f"{name}.{ending}") for name in NAMES for ending in ("svg", "png")]
    return folder


def test_each_figure_is_a_picture_in_both_formats(drawn: Path) -> None:
    for name in NAMES:
        assert (drawn / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (drawn / f"{name}.svg").read_text()[:1000]
    assert len([*drawn.iterdir()]) == 2 * len(NAMES)


def test_the_same_artifacts_give_the_same_bytes_without_a_date(drawn: Path, closed: Made, tmp_path: Path) -> None:
    closed.call("plot", str(closed.root), "--against", str(closed.root), "--output", str(tmp_path))
    for path in sorted(drawn.iterdir()):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    assert not re.search("dc:date|20[0-9]{2}-[0-9]{2}-[0-9]{2}T", (drawn / "success-by-task.svg").read_text())


def test_words_that_the_command_does_not_know_are_refused_all_at_once(closed: Made, tmp_path: Path) -> None:
    options = ("--format", "svg,pdf", "--interval", "wald", "--output", str(tmp_path / "none"))
    ended = closed.call("plot", str(closed.root), *options)
    assert ended.returncode == 2
    assert "--format" in ended.stderr and "--interval" in ended.stderr and not (tmp_path / "none").exists()


def test_a_campaign_that_has_not_run_has_nothing_to_draw(made: Made) -> None:
    ended = made.call("plot", str(made.root))
    assert ended.returncode == 2
    assert "no row has begun" in ended.stderr and "pytest --pyargs tracka.acceptance" in ended.stderr


def test_the_page_links_to_figures_of_its_own_results_alone(copy_of: Callable[[Made], Made], closed: Made) -> None:
    made = copy_of(closed)
    assert made.call("plot", str(made.root), "--format", "svg").returncode == 0
    assert made.call("report", str(made.root)).returncode == 0
    assert plots_on(made) == [f"artifacts/report/plots/{name}.svg" for name in NAMES]
    result = made.layout.run("long_b1_e6").result
    content = files.read_json(result)
    result.unlink()  # linked to the attempt's
    files.write_json(result, content | {"duration_sec": 1.0})
    assert made.call("report", str(made.root)).returncode == 0
    assert plots_on(made) == []


def plots_on(made: Made) -> list[str]:
    links = [attributes.get("href") or "" for tag, attributes in Page(made.layout.report_page).elements if tag == "a"]
    return [link for link in links if "/plots/" in link]


# what a figure shows


@pytest.fixture
def style() -> Iterator[None]:
    with figure_style.applied():
        yield


def rates(number: int, **changed: Any) -> list[TaskRate]:
    """So many tasks in suites of ten, of which each third is below its threshold."""
    made = TaskRate("p", "s", 0, INSTRUCTION, 40, 50, 0.7, 0.8, False)
    return [
        replace(made, suite=f"suite_{task // 10}", task=task, successes=30 if task % 3 == 0 else 40, **changed)
        for task in range(number)
    ]


def legend(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize(("name", "words"), [("wilson", "Wilson"), ("clopper-pearson", "Clopper-Pearson")])
def test_the_legend_names_interval_threshold_and_baseline(name: Any, words: str) -> None:
    figure = plot_tasks.draw(rates(2), name, "older")
    interval = f"rate with 95% {words} interval"
    assert legend(figure) == [interval, "below its threshold", "threshold", "baseline older"]
    assert legend(plot_tasks.draw(rates(2, threshold=None, baseline=None), name)) == [interval]


def test_an_interval_is_that_of_the_statistics() -> None:
    (rate,) = rates(1)
    assert plot_tasks.bounds(rate, "wilson") == (wilson(Count(30, 50)).low, wilson(Count(30, 50)).high)
    exact = clopper_pearson(Count(30, 50))
    assert plot_tasks.bounds(rate, "clopper-pearson") == (exact.low, exact.high)


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("number", [1, 40])
def test_all_text_is_inside_the_figure_and_no_label_covers_another(number: int) -> None:
    figure = plot_tasks.draw(rates(number), "wilson", "older")
    figure.draw_without_rendering()
    labels = [label for axis in figure.axes for label in axis.get_yticklabels()]
    assert len(labels) == number
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.y0)
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))
    counts = [text.get_window_extent() for axis in figure.axes for text in axis.texts]
    whole = figure.bbox
    for box in [*boxes, *counts, figure.legends[0].get_window_extent()]:
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1


@pytest.mark.usefixtures("style")
def test_a_name_is_drawn_as_it_is(tmp_path: Path) -> None:
    hostile = [replace(rate, policy_path=path) for rate in rates(1) for path in ("$x_", "\\frac{\x1b[31m", "日本")]
    figure = plot_tasks.draw(hostile, "wilson", "a$b")
    figure_style.save(figure, tmp_path / "figure.svg", "mark")
    assert [axis.get_title(loc="left") for axis in figure.axes] == [f"suite_0, {p}" for p in ("$x_", "\\frac{", "日本")]


def lanes(spans: Sequence[Span]) -> Timeline:
    return Timeline("2026-01-01T00:00:00Z", 100.0, [Lane("GPU 0", spans)])


@pytest.mark.usefixtures("style")
def test_a_bar_has_the_name_of_its_row_where_there_is_room() -> None:
    spans = [Span("a_long_name", 1, "GPU 0", 0, 60, "pass"), Span("other_name", 1, "GPU 0", 60, 61, "pass")]
    (axis,) = plot_devices.draw(lanes(spans)).axes
    assert [text.get_text() for text in axis.texts] == ["a_long_name", "61% busy"]


@pytest.mark.usefixtures("style")
def test_the_legend_of_the_devices_has_what_was_seen_there() -> None:
    spans = [
        Span("a", 1, "GPU 0", 0, 10, "pass"),
        Span("theirs", 0, "GPU 0", 10, 20, OTHERS),
        Span("b", 1, "GPU 0", 30, 40, "fail", waited_secs=25.0),
    ]
    assert legend(plot_devices.draw(lanes(spans))) == ["passed", "failed", "another campaign's", "a row waits"]
    assert legend(plot_devices.draw(lanes(spans[:1]))) == ["passed"]
