"""The page's devices: what ran on which GPU, what waited for what, and from where the page knows it."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import campaigns
import pytest
from campaigns import SETTINGS, Made
from pages import Page

from tracka.core import files
from tracka.execution import gpu, lease
from tracka.report_page import page, timeline
from tracka.report_page.timeline import Span

ROWS = (
    "baseline_b1_e1,libero_object,1,1,0,7,egl,checkpoints/fake,1",
    "first_b1_e1,libero_object,1,1,1,7,egl,checkpoints/fake,1",
    "second_b1_e2,libero_object,1,2,1,7,egl,checkpoints/fake,1",
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign of which the baseline ran on GPU 0 and two rows on GPU 1, the second of them twice."""
    folder = tmp_path_factory.mktemp("ran")
    settings = SETTINGS.replace("baseline_b1_e2", "baseline_b1_e1").replace("expected_gpus = 0", "expected_gpus = 2")
    made = campaigns.make(folder / "campaign", ROWS, settings)
    made.behave(second_b1_e2=["crash", "ok"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**made.environ, gpu.PRETEND: "2", lease.LOCKS: str(folder / "locks")}.items():
            patch.setenv(name, value)
        made.pass_preflight()
        for row in made.spec.enabled:
            made.run_row(row.run_id)
    return made


@pytest.fixture
def shown(ran: Made, copy_of: Callable[[Made], Made], monkeypatch: pytest.MonkeyPatch) -> Made:
    """A copy of that campaign on its own host, which another campaign has used meanwhile."""
    monkeypatch.setenv(lease.LOCKS, str(ran.root.parent / "locks"))
    return copy_of(ran)


def words(made: Made) -> str:
    return Page(page.write(made.spec)).text


def runs(spans: list[Span]) -> list[tuple[str, str, int, str]]:
    return [(span.lane, span.run_id, span.attempt, span.status) for span in spans]


def test_each_gpu_names_its_runs_with_their_outcome(shown: Made) -> None:
    assert runs(timeline.read(shown.spec).spans) == [
        ("GPU 0", "baseline_b1_e1", 1, "pass"),
        ("GPU 1", "first_b1_e1", 1, "pass"),
        ("GPU 1", "second_b1_e2", 1, "fail"),
        ("GPU 1", "second_b1_e2", 2, "pass"),
    ]
    text = words(shown)
    assert re.search(r"GPU 0 ?1 run, busy .*GPU 1 ?3 runs, busy ", text) and "second_b1_e2, attempt 2: pass" in text


def test_the_times_are_those_of_the_journal_where_the_host_has_it(shown: Made) -> None:
    told = timeline.read(shown.spec)
    assert told.source == timeline.WHOLE_SOURCE and timeline.WHOLE_SOURCE in words(shown)
    notes = [json.loads(line) for line in journal().read_text().splitlines()]
    took = [end["at"] - start["at"] for start, end in zip(notes[::2], notes[1::2], strict=True)]
    spans = [span for span in told.spans if span.lane == "GPU 1"]
    assert [span.end - span.begin for span in spans if span.end] == pytest.approx(took, abs=1e-4)


def journal(number: int = 1) -> Path:
    return lease.folder_path() / f"{gpu.PRETENDED}{number}.journal"


def test_a_host_without_the_journal_says_so(shown: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = runs(timeline.read(shown.spec).spans)
    monkeypatch.setenv(lease.LOCKS, str(tmp_path / "elsewhere"))
    told = timeline.read(shown.spec)
    assert (told.source, runs(told.spans)) == (timeline.NO_SOURCE, before)
    assert timeline.NO_SOURCE in words(shown)


def test_a_journal_that_has_lost_rows_is_said_to(shown: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = journal().read_text()
    monkeypatch.setenv(lease.LOCKS, str(tmp_path / "emptied"))
    files.write_text(journal(), "".join(text.splitlines(keepends=True)[2:]))
    told = timeline.read(shown.spec)
    assert told.source == timeline.PART_SOURCE
    assert len(told.spans) == 4


def test_what_another_campaign_ran_meanwhile_is_shown_and_named_as_what_a_row_waited_for(
    shown: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = journal().read_text().splitlines()
    (left, took) = (json.loads(line) for line in lines[1:3])  # the end of a row and the start of the next
    free, theirs = took["at"] - left["at"], {"label": "<b>theirs", "supervisor": 1}
    notes = [
        took | theirs | {"event": event, "at": left["at"] + part * free}
        for event, part in (("start", 0.3), ("end", 0.9))
    ]
    monkeypatch.setenv(lease.LOCKS, str(tmp_path / "shared"))
    files.write_text(journal(), "\n".join([*lines[:2], *map(json.dumps, notes), *lines[2:], ""]))
    set_pending(shown, "second_b1_e2", left["at"] - 60)
    assert ("GPU 1", "<b>theirs", 0, timeline.OTHERS) in runs(timeline.read(shown.spec).spans)
    text = words(shown)
    assert "<b>theirs: another campaign's" in text
    assert "of waiting for GPU 1, where another campaign's <b>theirs ran" in text


def set_pending(made: Made, run_id: str, at: float) -> None:
    """Lets a row's marker say that the row has been waiting since a time."""
    marker = files.read_json(made.layout.marker(run_id))
    marker["history"][0]["at_utc"] = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    files.write_json(made.layout.marker(run_id), marker)


def test_rows_wait_for_the_baseline_that_ran_before_all_of_them(shown: Made) -> None:
    begin = files.read_json(shown.layout.run("baseline_b1_e1").manifest)["start_time_utc"]
    set_pending(shown, "first_b1_e1", datetime.fromisoformat(begin).timestamp() - 60)
    assert "of waiting for the baseline, baseline_b1_e1, which ran" in words(shown)


def test_rows_of_the_cpu_have_no_journal(closed_on_the_cpu: Made) -> None:
    assert timeline.CPU_SOURCE in Page(closed_on_the_cpu.layout.report_page).text


@pytest.fixture(scope="module")
def closed_on_the_cpu(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return campaigns.below_threshold(tmp_path_factory.getbasetemp())
