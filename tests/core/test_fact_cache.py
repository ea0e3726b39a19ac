"""What one check remembers: an answer for as long as the check lasts, and none beyond it."""

from pathlib import Path

import pytest
from campaigns import Made

from tracka.core import fact_cache, files
from tracka.core.errors import Finding, UsageError
from tracka.gates import validate


def test_an_answer_is_remembered_inside_the_block_and_read_anew_after_it() -> None:
    calls: list[str] = []

    @fact_cache.remembered
    def read(name: str) -> int:
        calls.append(name)
        return len(calls)

    with fact_cache.scope():
        with fact_cache.scope():
            assert [read("a"), read("a"), read("b")] == [1, 1, 2]
        assert read("a") == 1  # the block around it still lasts
    assert [read("a"), read("a")] == [3, 4]
    with fact_cache.scope():
        assert read("a") == 5


def test_a_checkpoint_that_changes_between_two_checks_is_found_by_the_second(ready: Made) -> None:
    ready.run_row("baseline_b1_e2")
    assert stale(ready) == []
    ready.change_weights()
    (finding,) = stale(ready)
    assert "another matrix row, settings, checkpoint or software" in finding.what


def stale(made: Made) -> list[Finding]:
    """What a whole check of phase 3 says of the baseline's result."""
    found = validate.phase_findings(made.spec, "phase3")
    return [finding for finding in found if finding.where.endswith("result.json")]


def test_of_what_each_row_has_only_the_last_answers_are_remembered() -> None:
    calls: list[str] = []

    @fact_cache.remembered_lately(2)
    def read(name: str) -> int:
        calls.append(name)
        return len(calls)

    with fact_cache.scope():
        assert [read(name) for name in "aabac"] == [1, 1, 2, 1, 3]
        assert read("b") == 4  # it was forgotten for "c"; "a" was asked for after it
        assert read("a") == 5
    assert [read("a"), read("a")] == [6, 7]


def test_a_file_that_changes_while_a_check_lasts_is_read_anew_and_no_answer_is_shared(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"number": 1})
    with fact_cache.scope():
        files.read_json(path)["number"] = 2
        assert files.read_json(path) == {"number": 1}
        files.write_json(path, {"number": 3})
        assert files.read_json(path) == {"number": 3}
        path.unlink()
        with pytest.raises(UsageError, match="does not exist"):
            files.read_json(path)
