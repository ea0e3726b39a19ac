"""The page for the summary of a CI job: what a session appends, what `tracka summary` prints, what is left out."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import campaigns
import pytest
from campaigns import Made
from markdown_it import MarkdownIt

from tracka.core import escaping
from tracka.exports import step_summary

HOSTILE = "[a](javascript:x) ![p](http://x) <img src=x onerror=y> | `*b* __c__ ~~d~~ \x1b[31m"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign after all five gates, one of whose rows stayed below its threshold."""
    return campaigns.below_threshold(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def shown(closed: Made) -> str:
    return Path(closed.environ["GITHUB_STEP_SUMMARY"]).read_text()


def rendered(text: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


def test_a_session_appends_one_page_with_its_verdict_first(closed: Made, shown: str) -> None:
    head, _, sentence, *_ = shown.splitlines()
    assert head == f"## {closed.root.name}: not accepted"
    assert sentence == "**2 of 3 rows are accepted; the others: 1 below_threshold.**"
    assert shown.count("## campaign: ") == 1


def test_each_row_is_a_line_with_its_counts_and_why_it_is_not_accepted(closed: Made, shown: str) -> None:
    table = rendered(shown).partition("Rows</h3>")[2].partition("</table>")[0]
    assert [table.count(f"<td>{row.run_id}</td>") for row in closed.spec.enabled] == [1, 1, 1]
    (line,) = [line for line in shown.splitlines() if line.startswith("| wide_b4_e4 |")]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[2:7] == ["pass", "below_threshold", "2 of 4", "50.0% (15.0 to 85.0)", "cpu"]


def test_each_task_has_its_rate_over_all_compared_rows(shown: str) -> None:
    (line,) = [line for line in shown.splitlines() if line.startswith("| libero_object 0 |")]
    assert "pick up the alphabet soup" in line and "| 2 of 10 | 20.0% (5.7 to 51.0) |" in line


def test_the_command_prints_the_page_of_the_last_session(closed: Made, shown: str) -> None:
    ended = closed.call("summary", str(closed.root))
    assert (ended.returncode, ended.stdout) == (0, shown)


def test_the_command_appends_to_a_file_that_it_is_given(closed: Made, shown: str, tmp_path: Path) -> None:
    target = tmp_path / "reports" / "summary.md"
    target.parent.mkdir()
    target.write_text("of another step\n")
    assert closed.call("summary", str(closed.root), "--output", str(target)).stdout == f"{target}\n"
    assert target.read_text() == f"of another step\n{shown}"


def test_against_another_campaign_it_has_the_sentence_of_compare_and_the_flipped_episodes(
    closed: Made, copy_of: Callable[[Made], Made]
) -> None:
    other = copy_of(closed)
    other.behave(wide_b4_e4=["episodes:0=2,3"])
    assert other.run_row("wide_b4_e4", campaigns.RerunPolicy(allow_overwrite=True, resume=False))["successes"] == 2
    ended = closed.call("summary", str(closed.root), "--against", str(other.root))
    places = (str(other.root), str(closed.root))
    sentence = closed.call("compare", *places).stdout.splitlines()[-1]
    assert ended.returncode == 0, ended.stderr
    assert escaping.literal(sentence) in ended.stdout
    flips = json.loads(closed.call("compare", *places, "--format", "json").stdout)["flips"]
    assert f"{len(flips)} episodes have flipped:" in ended.stdout and len(flips) > 2
    shown_flips = [line for line in ended.stdout.splitlines() if line.startswith(("| gain |", "| loss |"))]
    assert [(line.split()[1], int(line.split()[6])) for line in shown_flips] == [
        (flip["change"], flip["episode"]) for flip in flips
    ]


def test_the_baseline_of_the_verdict_is_compared_without_being_asked_for(
    closed: Made, copy_of: Callable[[Made], Made]
) -> None:
    made = copy_of(closed)
    made.configure(f'[verdict]\nbaseline = "{closed.root}"\nmargin = 0.5')
    shown = made.call("summary", str(made.root)).stdout
    assert f"### Against {closed.root}" in shown and "B is not shown to be worse than A" in shown
    assert "| 2 of 10 | 20.0% (5.7 to 51.0) | 75% |" in shown


def test_a_baseline_that_cannot_be_compared_is_named_by_a_session_and_refused_by_the_command(
    closed: Made, copy_of: Callable[[Made], Made]
) -> None:
    made = copy_of(closed)
    made.configure('[verdict]\nbaseline = "nowhere"\nmargin = 0.5')
    page = step_summary.of_session(made.spec, accepted=False)
    assert "nowhere: the path does not exist" in page and "### Rows" in page
    ended = made.call("summary", str(made.root))
    assert (ended.returncode, "nowhere: the path does not exist" in ended.stderr) == (2, True)


def test_a_campaign_that_has_not_run_says_so_and_a_missing_folder_is_made(made: Made, tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "summary.md"
    assert made.call("summary", str(made.root), "--output", str(target)).returncode == 0
    shown = target.read_text()
    assert shown.startswith(f"## {made.root.name}: not finished\n") and shown.count("| not_run |") == 3


def test_what_cannot_be_compared_is_refused_with_2(closed: Made) -> None:
    ended = closed.call("summary", str(closed.root), "--against", str(closed.root / "nothing"))
    assert (ended.returncode, "the path does not exist" in ended.stderr, ended.stdout) == (2, True, "")


def test_no_text_becomes_markup(closed: Made) -> None:
    html = rendered(step_summary.page(closed.spec, notes=[HOSTILE, f"# {HOSTILE}"]))
    assert html.count("[a](javascript:x) ![p](http://x) &lt;img src=x onerror=y&gt; | `*b* __c__ ~~d~~</li>") == 2
    assert "<a" not in html and "<img" not in html and html.count("<h") == html.count("<h2") + html.count("<h3")


@pytest.mark.parametrize("seed", range(10))
def test_any_text_is_shown_as_it_is_in_a_line_and_in_a_cell(seed: int) -> None:
    source = random.Random(seed)
    letters = "*_[]()!~#>+-=1.)\\|<>&`:/ aé"
    for _ in range(100):
        text = " ".join("".join(source.choices(letters, k=source.randint(1, 20))).split())
        shown = escaping.literal(text)
        expected = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        assert rendered(f"* {shown}") == f"<ul>\n<li>{expected}</li>\n</ul>\n" or not text
        assert f"<td>{expected}</td>" in rendered(f"| a |\n| --- |\n| {shown} |")


def test_what_does_not_fit_is_left_out_as_whole_lines_and_the_page_says_so() -> None:
    text = "".join(f"line {number} with an ü\n" for number in range(1000))
    part = step_summary.cut(text, 2000)
    *kept, empty, last = part.splitlines()
    assert len(part.encode()) <= 2000 and kept == text.splitlines()[: len(kept)] and empty == ""
    assert last == f"Cut here: {1000 - len(kept)} more lines do not fit into a summary of 1024 KiB."
    assert step_summary.cut(text, len(text.encode())) == text


def test_a_file_never_grows_beyond_what_github_takes(tmp_path: Path) -> None:
    target = tmp_path / "summary.md"
    target.write_text("x" * 400)
    for _ in range(3):
        step_summary.append(target, "a line\n" * 100, most=1000)
    assert 900 < target.stat().st_size <= 1000
