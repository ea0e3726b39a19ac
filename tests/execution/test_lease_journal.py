"""The journal of a GPU's leases, as it is read: runs in order, and nothing that another user writes there does harm."""

import json
import os
from pathlib import Path

import pytest

from tracka.execution import lease, lease_journal
from tracka.execution.lease_journal import Hold

UUID = "GPU-pretended-0"


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the GPU's journal, which is not there yet."""
    monkeypatch.setenv(lease.LOCKS, str(tmp_path))
    return tmp_path / f"{UUID}.journal"


def note(event: str, label: str, supervisor: int, at: object) -> str:
    return json.dumps({"event": event, "label": label, "pid": supervisor + 1, "supervisor": supervisor, "at": at})


def test_each_run_has_its_label_its_begin_and_its_end(journal: Path) -> None:
    notes = [
        note("start", "a", 1, 10.5),
        note("end", "a", 1, 20.25),
        note("start", "b", 2, 21),
        note("end", "b", 2, 30),
    ]
    journal.write_text("\n".join([*notes, note("start", "c", 3, 31), ""]))
    assert lease_journal.read(UUID) == [Hold("a", 10.5, 20.25), Hold("b", 21, 30), Hold("c", 31, None)]


def test_a_run_whose_supervisor_was_killed_ended_when_the_next_began(journal: Path) -> None:
    journal.write_text("\n".join([note("start", "a", 1, 10), note("start", "b", 2, 20), note("end", "a", 1, 25)]))
    assert lease_journal.read(UUID) == [Hold("a", 10, 20), Hold("b", 20, None)]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no note",
        "[]",
        "[" * 5000,
        note("start", "x", 1, "now"),
        note("start", "x", 1, float("nan")),
        note("y", "x", 1, 2),
    ],
    ids=["empty", "text", "list", "nested", "time in words", "no number", "unknown event"],
)
def test_a_line_that_is_no_note_is_left_out(journal: Path, line: str) -> None:
    journal.write_text("\n".join([line, note("start", "a", 1, 10), line, note("end", "a", 1, 20), line]))
    assert lease_journal.read(UUID) == [Hold("a", 10, 20)]


def test_a_label_is_one_short_plain_line(journal: Path) -> None:
    journal.write_text(note("start", "\x1b[31ma\nb" + "c" * 1000, 1, 10))
    (hold,) = lease_journal.read(UUID) or []
    assert hold.label == f"a b{'c' * 97}"


def test_a_host_without_the_journal_has_none(journal: Path) -> None:
    assert [lease_journal.read(uuid) for uuid in (UUID, None, "../precious")] == [None] * 3


def test_neither_a_link_nor_a_pipe_is_read(journal: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.journal").write_text(note("start", "a", 1, 10))
    journal.symlink_to(tmp_path / "precious.journal")
    assert lease_journal.read(UUID) is None
    journal.unlink()
    os.mkfifo(journal)
    assert lease_journal.read(UUID) is None


def test_of_a_journal_that_is_too_long_the_end_is_read(journal: Path) -> None:
    filler = "".join(note("start", "o" * 9000, 1, 1) + "\n" for _ in range(lease_journal.MOST_BYTES // 8000))
    journal.write_text(filler + note("start", "a", 1, 10))
    holds = lease_journal.read(UUID) or []
    assert holds[-1] == Hold("a", 10, None) and len(holds) < lease_journal.MOST_BYTES / 9000 + 1
