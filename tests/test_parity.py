"""What the parity gate makes of two engines' episodes."""

from pathlib import Path
from typing import Any

import pytest

from tracka import parity, proof
from tracka.errors import UsageError
from tracka.layout import Layout
from tracka.parity import Comparison


def lines(count: int, flipped: int = 0, other_actions: int = 0) -> parity.Played:
    return {
        (0, seed): {
            "task": 0,
            "seed": seed,
            "success": (seed % 2 == 0) != (seed < flipped),
            "steps": 9,
            "actions_sha": f"{seed}{'x' if seed < other_actions else ''}",
        }
        for seed in range(count)
    }


def certificate(found: Comparison, floor: Comparison | None) -> dict[str, Any]:
    class Plan:
        proof_key = "0" * 64

        class row:
            run_id = "baseline"

    return parity.certificate(Plan, found, floor, (lines(10), lines(10)))  # type: ignore[arg-type]


def test_equal_actions_prove_the_engine_without_a_floor() -> None:
    found = parity.compare(lines(10), lines(10))
    assert found.exact and found.differing == () and certificate(found, None)["proven"]


def test_other_actions_with_the_same_outcomes_are_named_and_held_against_the_floor() -> None:
    found = parity.compare(lines(10), lines(10, other_actions=2))
    assert not found.exact and (found.same_outcome, found.same_actions) == (10, 8)
    assert found.differing[0] == "task 0, seed 0: 9 steps, success; 9 steps, success"
    assert certificate(found, parity.compare(lines(10), lines(10, other_actions=3)))["proven"]


def test_outcomes_that_fall_to_one_side_are_no_proof() -> None:
    one_sided = Comparison(40, 30, 0, 10, 0, ())
    assert one_sided.mcnemar_p < 0.01
    assert not certificate(one_sided, Comparison(40, 30, 0, 5, 5, ()))["proven"]


def test_outcomes_that_differ_more_often_than_the_reference_from_itself_are_no_proof() -> None:
    both_sides = Comparison(100, 80, 0, 10, 10, ())
    assert both_sides.mcnemar_p == 1.0
    assert not certificate(both_sides, Comparison(100, 99, 0, 1, 0, ()))["proven"]
    assert certificate(both_sides, Comparison(100, 82, 0, 9, 9, ()))["proven"]


def test_engines_that_played_other_episodes_are_not_compared() -> None:
    with pytest.raises(UsageError, match="only one engine played"):
        parity.compare(lines(3), lines(4))


@pytest.mark.parametrize("content", ["", "{}", '{"task": 1', '{"seed": 3}'])
def test_a_damaged_record_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "episodes.jsonl").write_text(content + "\n")
    with pytest.raises(UsageError, match=r"no record of episodes|a line is no JSON"):
        parity.read(tmp_path / "episodes.jsonl")


def test_a_certificate_stands_for_what_it_was_made_with_alone(tmp_path: Path) -> None:
    keys = {proof.key({"checkpoint": checkpoint, "host": host}) for checkpoint in "ab" for host in "cd"}
    assert len(keys) == 4
    assert proof.unproven(Layout(tmp_path), keys.pop()) == (
        "no parity run on this host with this checkpoint, software and settings"
    )
