"""report.html: what a campaign's page says and holds, that no text does harm, and what it costs to write it."""

import base64
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from campaigns import Made, below_threshold, judged
from contracts_page import table, words
from pages import Page

from tracka.core import files
from tracka.report_page import matrix_rows, page, rendering
from tracka.reporting import rejected_rows

HOSTILE = "</script><script>window.hurt=1</script><img src=x onerror=window.hurt=1>\u202e\x1b[31m"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign after all five gates, one of whose rows stayed below its threshold."""
    return below_threshold(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def shown(closed: Made) -> Page:
    return Page(closed.layout.report_page)


def test_phase_5_writes_the_page_with_the_sessions_verdict(closed: Made, shown: Page) -> None:
    assert "not accepted" in shown.text and "2 of 3 rows are accepted; the others: 1 below_threshold." in shown.text
    assert f"page: {closed.root}/report.html" in judged(closed).stdout


def test_the_page_says_of_the_row_that_is_not_accepted_why_and_what_to_do(shown: Page) -> None:
    assert "the success rate is 50.0%, below the threshold of 75%" in shown.text
    assert matrix_rows.REMEDIES["below_threshold"] in shown.text
    assert rejected_rows.STAYS in shown.text and "--lf" not in shown.text


def test_each_row_and_each_episode_is_on_the_page(closed: Made, shown: Page) -> None:
    ids = {attributes.get("id") for _, attributes in shown.elements}
    assert {f"row-{row.run_id}" for row in closed.spec.enabled} <= ids
    played = [
        (row.run_id, line["task"], line["episode"], line["success"])
        for row in closed.spec.enabled
        for line in files.read_lines(closed.layout.run(row.run_id).episodes)
    ]
    keys = ("row", "task", "number", "success")
    assert [tuple(episode[key] for key in keys) for episode in shown.data["episodes"]] == played


def test_a_task_counts_the_episodes_on_the_page_of_all_rows_but_the_baseline(closed: Made, shown: Page) -> None:
    rows = shown.data["rows"]
    assert [run_id for run_id, row in rows.items() if not row["counted"]] == [closed.spec.baseline]
    counted = [episode for episode in shown.data["episodes"] if rows[episode["row"]]["counted"]]
    assert f"{sum(episode['success'] for episode in counted)} of {len(counted)} " in shown.text


def test_every_file_that_the_page_names_is_there_and_nothing_is_of_the_network(closed: Made, shown: Page) -> None:
    named = shown.files()
    assert [path for path in named if not path.exists()] == []
    assert {path.suffix for path in named} >= {".mp4", ".webp"}
    text = closed.layout.report_page.read_text()
    assert re.findall(r"(?:src|href|poster|url\()\W{0,2}(?:https?:)?//", text) == []
    (policy,) = [attributes["content"] for _, attributes in shown.elements if "http-equiv" in attributes]
    assert policy is not None and "default-src 'none'" in policy


def test_each_reason_has_a_remedy() -> None:
    assert set(matrix_rows.REMEDIES) == {words(line["reason"])[0] for line in table("Reasons")}


def test_the_page_can_be_written_again_and_makes_no_poster_twice(copy_of: Callable[[Made], Made], closed: Made) -> None:
    made = copy_of(closed)
    posters = sorted((made.layout.report_files / "posters").iterdir())
    before = [path.stat().st_mtime_ns for path in posters]
    (made.layout.report_files / "posters" / "old.webp").touch()
    assert made.call("report", str(made.root)).stdout.strip() == str(made.layout.report_page)
    again = sorted((made.layout.report_files / "posters").iterdir())
    assert (again, [path.stat().st_mtime_ns for path in again]) == (posters, before)


def test_the_page_of_a_campaign_that_has_not_run_says_so(made: Made) -> None:
    assert made.call("report", str(made.root)).returncode == 0
    text = Page(made.layout.report_page).text
    assert "not finished" in text and "Preflight has not run." in text and "No row has begun." in text


def test_a_single_file_holds_the_videos_that_are_asked_for_and_names_no_file(
    copy_of: Callable[[Made], Made], closed: Made
) -> None:
    made = copy_of(closed)
    counts = {}
    for choice in ("all", "failures", "none"):
        target = made.root / f"{choice}.html"
        ended = made.call("report", str(made.root), "--single-file", "--videos", choice, "--output", str(target))
        assert ended.returncode == 0, ended.stderr
        single = Page(target)
        assert single.files() == []
        counts[choice] = sum(bool(episode["video"]) for episode in single.data["episodes"])
    filmed = [episode for episode in Page(closed.layout.report_page).data["episodes"] if episode["video"]]
    lost = [episode for episode in filmed if not episode["success"]]
    assert counts == {"all": len(filmed), "failures": len(lost), "none": 0}


def test_words_that_the_command_does_not_know_are_refused(made: Made) -> None:
    ended = made.call("report", str(made.root), "--videos", "some")
    assert (ended.returncode, "--videos" in ended.stderr) == (2, True)
    assert made.call("report", str(made.root / "configs")).returncode == 2


def test_a_page_against_another_campaign_has_the_sentence_of_compare_and_every_partner(
    copy_of: Callable[[Made], Made], closed: Made
) -> None:
    made = copy_of(closed)
    ended = made.call("report", str(made.root), "--against", str(closed.root))
    assert ended.returncode == 0, ended.stderr
    compared = Page(made.layout.report_page)
    (*_, sentence) = made.call("compare", str(closed.root), str(made.root)).stdout.splitlines()
    assert sentence in compared.text
    comparison = json.loads(made.call("compare", str(closed.root), str(made.root), "--format", "json").stdout)
    both = [episode for episode in compared.data["episodes"] if episode["partner"]]
    assert len(both) == comparison["pairing"]["pairs"] > 0
    assert all(episode["partner"]["success"] == episode["success"] for episode in both)
    assert [path for path in compared.files() if not path.exists()] == []


def test_hostile_text_stays_text(copy_of: Callable[[Made], Made], closed: Made) -> None:
    made = copy_of(closed)
    folder = made.layout.run("long_b1_e6")
    result = files.read_json(folder.result) | {"status": "fail", "reason": "crash", "error_message": HOSTILE}
    folder.result.unlink()  # linked to the attempt's
    folder.result.write_text(json.dumps(result))
    folder.stderr.unlink()
    folder.stderr.write_text(HOSTILE + "\n")
    lines = [line | {"suite": HOSTILE, "steps": HOSTILE} for line in files.read_lines(folder.episodes)]
    folder.episodes.unlink()
    folder.episodes.write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = Path(shutil.move(made.root, made.root.with_name("a'\"><img src=x onerror=window.hurt=1>")))
    page.write(Made(path, made.environ).spec)
    hurt = Page(path / "report.html")
    assert len(hurt.scripts) == 1 + len(rendering.SCRIPTS)
    assert "window.hurt=1</script>" in hurt.text and "\u202e" not in hurt.text and "\x1b" not in hurt.text
    assert [attributes for _, attributes in hurt.elements if any(name.startswith("on") for name in attributes)] == []
    assert not any(tag == "img" for tag, _ in hurt.elements)
    assert hurt.data["episodes"][2]["suite"].startswith("</script><script>")


def test_our_own_scripts_and_styles_stay_as_they_are_in_a_page() -> None:
    for name in (*rendering.STYLES, *rendering.SCRIPTS):
        assert rendering.escaping.plain(rendering.asset(name)) == rendering.asset(name)
        assert "</" not in rendering.asset(name)


def test_recorded_actions_and_states_lie_in_a_side_file_beside_the_page(ready: Made) -> None:
    ready.behave(long_b1_e6=["filmed:0=0,2"])
    ready.run_row("long_b1_e6")
    written = Page(page.write(ready.spec))
    episodes = written.data["episodes"]
    assert [(episode["success"], episode["steps"]) for episode in episodes[:3]] == [(True, 30), (False, 35), (True, 40)]
    (side,) = {ready.root / episode["trace"]["file"] for episode in episodes}
    name, content = re.fullmatch(r'tracka\.trace\("(\w+)",(.*)\);\n', side.read_text()).groups()  # type: ignore[union-attr]
    assert {episode["trace"]["name"] for episode in episodes} == {name}
    trace = json.loads(content)["1"]
    values = np.frombuffer(base64.b64decode(trace["values"]), "<f4").reshape(trace["steps"], 7)
    output = ready.layout.run("long_b1_e6").attempt(1).output
    assert np.array_equal(values, np.load(output / "actions" / "libero_object_0_1.npy"))
    state = trace["state"]
    values = np.frombuffer(base64.b64decode(state["values"]), "<f4").reshape(state["steps"], len(state["names"]))
    assert np.array_equal(values, np.load(output / "states" / "libero_object_0_1.npy"))
    command = f"tracka replay long_b1_e6 --task 0 --episode 1 --root {ready.root}"
    assert episodes[1]["replay"] == command and not episodes[1]["replayed"]


def test_an_index_lists_each_campaign_with_its_verdict_and_its_page(
    copy_of: Callable[[Made], Made], closed: Made, tmp_path: Path
) -> None:
    made = copy_of(closed)
    folder = made.root.parent
    (folder / "broken" / "configs").mkdir(parents=True)
    (folder / "broken" / "configs" / "campaign.toml").write_text("schema_version = ")
    assert made.call("report", str(folder)).stdout.strip() == str(folder / "report.html")
    index = Page(folder / "report.html")
    links = [attributes["href"] for tag, attributes in index.elements if tag == "a"]
    assert "campaign/report.html" in links and "not accepted" in index.text and "this is not TOML" in index.text
    files.write_text(made.layout.report_page, "made long ago")
    made.call("report", str(folder))
    assert "older than its results" in Page(folder / "report.html").text
