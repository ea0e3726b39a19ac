"""Row markers: where a row stands, step by step, and what becomes of a marker that cannot be trusted."""

from collections.abc import Sequence
from typing import Any

import pytest
from campaigns import Made

from tracka.core import files, schema
from tracka.core.errors import Busy
from tracka.runs import row_state

ROW = "long_b1_e6"


def read(made: Made, run_id: str = ROW) -> dict[str, Any]:
    found = row_state.read(made.layout, run_id)
    assert found is not None
    return found


def steps(made: Made) -> list[tuple[str, int]]:
    return [(step["status"], step["attempt"]) for step in read(made)["history"]]


def test_each_row_without_a_marker_gets_a_pending_one(made: Made) -> None:
    row_state.ensure_pending(made.layout, made.spec.enabled)
    assert [read(made, row.run_id)["status"] for row in made.spec.enabled] == ["pending"] * 3
    assert not made.layout.marker("off_b1_e1").exists()


def test_a_pending_marker_has_all_the_plans_keys(made: Made) -> None:
    row_state.ensure_pending(made.layout, [made.spec.row(ROW)])
    found = read(made)
    assert {key: found[key] for key in ("schema_version", "run_id", "retry_index", "gpu_id", "notes")} == {
        "schema_version": 1,
        "run_id": ROW,
        "retry_index": 0,
        "gpu_id": None,
        "notes": "",
    }
    assert (found["started_at_utc"], found["ended_at_utc"], found["result_path"]) == (None, None, None)


def test_pending_never_replaces_a_marker(made: Made) -> None:
    row_state.ensure_pending(made.layout, [made.spec.row(ROW)])
    row_state.advance(made.layout, ROW, "running", 1)
    before = made.layout.marker(ROW).read_bytes()
    row_state.ensure_pending(made.layout, made.spec.enabled)
    assert made.layout.marker(ROW).read_bytes() == before


def test_a_row_that_is_held_elsewhere_gets_no_pending_marker(made: Made) -> None:
    with row_state.lock(made.layout, ROW):
        row_state.ensure_pending(made.layout, made.spec.enabled)
    assert row_state.read(made.layout, ROW) is None
    assert read(made, "wide_b4_e4")["status"] == "pending"


def test_a_row_that_is_held_is_busy_for_others(made: Made) -> None:
    said = pytest.raises(Busy, match=f"row {ROW} is held by process")
    with row_state.lock(made.layout, ROW), said, row_state.lock(made.layout, ROW):
        pass


def test_every_step_is_kept_with_its_attempt(made: Made) -> None:
    row_state.ensure_pending(made.layout, [made.spec.row(ROW)])
    for status, attempt in (("running", 1), ("fail", 1), ("running", 2), ("pass", 2)):
        row_state.advance(made.layout, ROW, status, attempt)
    assert steps(made) == [("pending", 0), ("running", 1), ("fail", 1), ("running", 2), ("pass", 2)]
    assert read(made)["status"] == "pass"
    assert row_state.broken_steps(read(made)) == []
    assert schema.findings("row_marker", read(made), "") == []


def test_running_forgets_the_last_end_and_an_end_keeps_the_start(made: Made) -> None:
    row_state.ensure_pending(made.layout, [made.spec.row(ROW)])
    row_state.advance(made.layout, ROW, "running", 1, gpu_id=3, retry_index=0)
    running = read(made)
    assert (running["gpu_id"], running["ended_at_utc"]) == (3, None)
    row_state.advance(
        made.layout, ROW, "fail", 1, reason="oom", result_path="artifacts/runs/x/result.json", notes="big"
    )
    failed = read(made)
    assert (failed["gpu_id"], failed["reason"], failed["notes"]) == (3, "oom", "big")
    assert failed["started_at_utc"] == running["started_at_utc"]
    assert failed["ended_at_utc"] is not None
    row_state.advance(made.layout, ROW, "running", 2, retry_index=1)
    again = read(made)
    assert (again["ended_at_utc"], again["reason"], again["result_path"]) == (None, None, None)
    assert again["retry_index"] == 1


def test_a_row_that_runs_again_keeps_no_notes_of_its_last_failure(made: Made) -> None:
    row_state.ensure_pending(made.layout, [made.spec.row(ROW)])
    row_state.advance(made.layout, ROW, "running", 1)
    row_state.advance(made.layout, ROW, "fail", 1, reason="oom", notes="out of memory")
    row_state.advance(made.layout, ROW, "running", 2)
    assert read(made)["notes"] == ""


@pytest.mark.parametrize(
    "content",
    [b"", b'{"run_id": ', b"\0\0", b"[]", b"{}", b'{"run_id": "long_b1_e6", "status": "done"}'],
    ids=["empty", "cut", "NULs", "a list", "no keys", "bad status"],
)
def test_a_damaged_marker_is_set_aside_and_its_row_is_pending_again(made: Made, content: bytes) -> None:
    path = made.layout.marker(ROW)
    files.write_atomic(path, content)
    assert row_state.read(made.layout, ROW) is None
    assert path.read_bytes() == content  # who reads does not write
    row_state.ensure_pending(made.layout, [made.spec.row(ROW)])
    assert path.with_name(f"{ROW}.json.damaged").read_bytes() == content
    assert steps(made) == [("pending", 0)]


def test_a_marker_of_another_row_is_not_trusted(made: Made) -> None:
    row_state.ensure_pending(made.layout, [made.spec.row("wide_b4_e4")])
    files.write_atomic(made.layout.marker(ROW), made.layout.marker("wide_b4_e4").read_bytes())
    assert row_state.read(made.layout, ROW) is None


@pytest.mark.parametrize(
    ("statuses", "broken"),
    [
        (["pending"], []),
        (["pending", "running", "pass", "running", "fail", "pending"], []),
        (["pending", "pass"], ["pending -> pass"]),
        (["running", "pass"], ["nothing -> running"]),
        (["pass"], ["nothing -> pass"]),
        (["pending", "running", "pass", "fail"], ["pass -> fail"]),
        (["pending", "running", "running", "pending"], ["running -> running", "running -> pending"]),
    ],
)
def test_steps_that_no_run_makes_are_named(statuses: Sequence[str], broken: Sequence[str]) -> None:
    history = [{"status": status, "attempt": 0, "at_utc": ""} for status in statuses]
    assert row_state.broken_steps({"status": statuses[-1], "history": history}) == broken


def test_a_status_that_its_history_does_not_end_with_is_named() -> None:
    history = [{"status": "pending", "attempt": 0, "at_utc": ""}]
    (text,) = row_state.broken_steps({"status": "pass", "history": history})
    assert text == "the history ends with pending, but the status is pass"
