"""Each kind of failure under its own name, the same in every file that a reader or a program may look into."""

import csv
import xml.etree.ElementTree as ElementTree

import campaigns
import pytest
from campaigns import Made

from tracka.core import files

ENDS = {
    "flood": ("flood", "the evaluation printed more than a log may hold"),
    "bad_action": ("nan_action", "the policy returned an action that is not a number"),
    "crash": ("crash:the hand is gone", "exit code 1: RuntimeError: the hand is gone"),
    "timeout": ("hang", "so Track A ended it"),
    "oom": ("oom", "CUDA out of memory"),
}
ROWS = (
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    *(f"{reason}_row,libero_object,1,1,cpu,7,egl,checkpoints/fake,1" for reason in ENDS),
)
SETTINGS = f"""
{campaigns.SETTINGS}
[rows.timeout_row]
timeout_secs = 2

[limits]
log_mib = 1
"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign after all gates, each of whose rows but the baseline fails in its own way."""
    words = {f"{reason}_row": [word] for reason, (word, _) in ENDS.items()}
    return campaigns.finished(tmp_path_factory.getbasetemp(), "reasons", ROWS, SETTINGS, **words)


def properties(made: Made, run_id: str) -> dict[str | None, str | None]:
    """What the JUnit report tells of a row."""
    cases = ElementTree.parse(made.root.parent / "junit.xml").iter("testcase")
    (case,) = (case for case in cases if case.get("name") == f"test_row[{run_id}]")
    assert case.find("failure") is not None
    return {item.get("name"): item.get("value") for item in case.iter("property")}


@pytest.mark.parametrize("reason", ENDS)
def test_a_failure_has_the_same_name_and_message_everywhere(judged: Made, reason: str) -> None:
    run_id, layout = f"{reason}_row", judged.layout
    folder = layout.run(run_id)
    for place in (folder, *map(folder.attempt, folder.numbers())):
        assert files.read_json(place.manifest)["outcome"] == {"status": "fail", "reason": reason}
        assert files.read_json(place.result)["reason"] == reason
        assert ENDS[reason][1] in files.read_json(place.result)["error_message"]
    state = files.read_json(layout.marker(run_id))
    assert (state["status"], state["reason"]) == ("fail", reason) and ENDS[reason][1] in state["notes"]
    with (layout.summary / "failures.csv").open(newline="") as file:
        assert {line["run_id"]: line["reason"] for line in csv.DictReader(file)}[run_id] == reason
    assert f"- `{run_id}`: {reason}" in layout.results.read_text()
    assert properties(judged, run_id)["reason"] == reason


def test_a_row_that_passed_says_so_in_its_manifest(judged: Made) -> None:
    manifest = files.read_json(judged.layout.run("baseline_b1_e2").manifest)
    assert manifest["outcome"] == {"status": "pass", "reason": None}


def test_a_run_that_floods_its_log_is_ended_at_its_limit(judged: Made) -> None:
    folder = judged.layout.run("flood_row")
    sizes = [folder.attempt(number).stdout.stat().st_size for number in folder.numbers()]
    assert len(sizes) == 2 and all(1 << 20 < size < 3_300_000 for size in sizes)  # the stand-in prints that much
