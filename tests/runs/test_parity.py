"""What the parity gate makes of two engines' episodes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tracka.campaign.layout import Layout
from tracka.core import files
from tracka.core.artifacts import FastStart
from tracka.core.errors import UsageError
from tracka.engines import comparison, parity_certificate
from tracka.engines.comparison import Comparison, PlayedEpisodes
from tracka.runs import fast_parity, parity, plan

CHUNK = 4
Change = Callable[[dict[str, Any], Any], None]


def play(folder: Path, count: int, *changes: Change, of: Callable[[int], bool] = lambda number: True) -> PlayedEpisodes:
    """Writes and reads `count` episodes of nine steps, the even ones solved; those that `of` names are changed."""
    (folder / "actions").mkdir(parents=True)
    lines = []
    for number in range(count):
        actions = np.random.RandomState(number).uniform(-1, 1, (9, 7)).astype(np.float32)
        line: dict[str, Any] = {
            "suite": "libero_object",
            "task": 0,
            "episode": number,
            "success": number % 2 == 0,
            "steps": 9,
            "sum_reward": float(number % 2 == 0),
            "first_state_sha": f"first{number}",
            "final_state_sha": f"last{number}",
            "observations": {str(step): f"seen{number}.{step}" for step in range(9)},
        }
        for change in changes if of(number) else ():
            change(line, actions)
        np.save(folder / "actions" / f"libero_object_0_{number}.npy", actions)
        lines.append(line | {"actions_sha": files.sha256(actions.tobytes())})
    (folder / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return comparison.read(folder)


def negated(line: dict[str, Any], actions: Any) -> None:
    actions *= -1


def nudged(size: float, step: int = 0) -> Change:
    def change(line: dict[str, Any], actions: Any) -> None:
        actions[step, 2] += size

    return change


def put(key: str, value: Any) -> Change:
    def change(line: dict[str, Any], actions: Any) -> None:
        line[key] = value

    return change


def seen(step: int, value: str | None) -> Change:
    def change(line: dict[str, Any], actions: Any) -> None:
        line["observations"].pop(str(step))
        if value is not None:
            line["observations"][str(step)] = value

    return change


@pytest.fixture
def compared(tmp_path: Path) -> Callable[..., Comparison]:
    """Two plays of four episodes, the second changed."""

    def compare(*changes: Change) -> Comparison:
        return comparison.compare(play(tmp_path / "a", 4), play(tmp_path / "b", 4, *changes), CHUNK)

    return compare


def verdict(found: Comparison, again: Comparison | None) -> dict[str, Any]:
    return parity_certificate.judgement(
        {
            "compared": parity_certificate.comparison_counts(found),
            "repeated": parity_certificate.comparison_counts(again) if again else None,
            "differing": [str(each) for each in found.first_differences],
            "evidence": "",
        }
    )


# two plays


def test_equal_episodes_are_the_same_and_prove_the_engine(compared: Callable[..., Comparison]) -> None:
    found = compared()
    assert found.exact and found.first_differences == () and (found.same, found.same_begin) == (4, 4)
    assert verdict(found, None) == {
        "proven": True,
        "exact": True,
        "evidence": "4 of 4 episodes are the same to the bit: "
        "init state, observations, actions, reward, success and final state",
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (put("first_state_sha", "x"), "the init state differs"),
        (seen(0, "x"), "the observation differs at step 0"),
        (seen(4, "x"), "the observation differs at step 4"),
        (seen(0, None), "the observation differs at step 0 (not recorded)"),
        (nudged(1e-6), "the action differs at step 0, by "),
        (nudged(0.5, step=7), "the action differs at step 7, by 0.5"),
        (negated, "the action differs at step 0, by "),
        (put("steps", 8), "the number of steps differs (9 and 8)"),
        (put("success", False), "the success differs (True and False)"),
        (put("sum_reward", 0.5), "the reward differs (1.0 and 0.5)"),
        (put("final_state_sha", "x"), "the final state differs"),
    ],
)
def test_the_first_quantity_that_differs_is_named(
    compared: Callable[..., Comparison], change: Change, told: str
) -> None:
    found = compared(change)
    assert found.same < 4 and str(found.first_differences[0]).startswith(f"libero_object task 0, episode 0: {told}")


def test_of_several_differences_the_cause_is_named(compared: Callable[..., Comparison]) -> None:
    found = compared(seen(4, "x"), nudged(0.1, step=5), put("final_state_sha", "x"))
    assert found.first_differences[0].quantity == "observation"


def test_a_look_that_one_engine_alone_took_is_no_difference(compared: Callable[..., Comparison]) -> None:
    assert compared(*(seen(step, None) for step in range(9) if step not in (0, CHUNK, 2 * CHUNK))).exact


def test_actions_that_are_no_numbers_differ_by_more_than_anything(compared: Callable[..., Comparison]) -> None:
    assert compared(nudged(float("nan"))).first_chunk == comparison.BEYOND


def test_engines_that_played_other_episodes_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only one engine played"):
        comparison.compare(play(tmp_path / "a", 3), play(tmp_path / "b", 4))


@pytest.mark.parametrize("content", ["", "{}", '{"task": 1', '{"seed": 3}'])
def test_a_damaged_record_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "episodes.jsonl").write_text(content and content + "\n")
    with pytest.raises(UsageError, match=r"record of episodes|the line is not JSON"):
        comparison.read(tmp_path)


@pytest.mark.parametrize("how", ["gone", "cut", "other"])
def test_actions_that_are_not_those_of_the_record_are_said(tmp_path: Path, how: str) -> None:
    first, second = play(tmp_path / "a", 1), play(tmp_path / "b", 1, negated)
    path = second[0, 0].actions_file
    if how == "other":
        np.save(path, np.zeros((9, 7), np.float32))
    else:
        path.write_bytes(path.read_bytes()[:50]) if how == "cut" else path.unlink()
    with pytest.raises(UsageError, match=r"cannot be read|not the actions of episodes.jsonl"):
        comparison.compare(first, second)


# the verdict


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The verdict on eight episodes whose second play by lerobot-eval, and whose play by the engine, are changed."""

    def judge(own: tuple[Change, ...], engines: tuple[Change, ...], count: int = 8) -> dict[str, Any]:
        reference = play(tmp_path / "reference", count)
        again = play(tmp_path / "again", count, *own)
        resident = play(tmp_path / "resident", count, *engines)
        return verdict(comparison.compare(reference, resident, CHUNK), comparison.compare(reference, again, CHUNK))

    return judge


Judge = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("change", [negated, nudged(1e-7), put("final_state_sha", "x"), seen(4, "x")])
def test_where_lerobot_eval_repeats_itself_nothing_but_the_same_bits_proves(judged: Judge, change: Change) -> None:
    told = judged((), (change,))
    assert not told["proven"] and "lerobot-eval repeats itself to the bit; libero_object task 0" in told["evidence"]


def test_two_episodes_with_other_actions_and_the_same_outcomes_prove_nothing(judged: Judge) -> None:
    assert not judged((), (negated,), 2)["proven"]


def test_a_first_chunk_within_lerobot_evals_own_spread_proves_and_says_what_it_would_have_seen(judged: Judge) -> None:
    told = judged((nudged(1e-4),), (nudged(2e-4),))
    assert told["proven"] and not told["exact"]
    assert "first chunks differ by 0.0002, and more than 0.0003 would have been refused" in told["evidence"]


@pytest.mark.parametrize("change", [negated, nudged(1e-3)])
def test_a_first_chunk_beyond_lerobot_evals_own_spread_is_refused(judged: Judge, change: Change) -> None:
    told = judged((nudged(1e-4),), (change,))
    assert not told["proven"] and "lerobot-eval's own by 0.0001" in told["evidence"]


def test_another_beginning_than_lerobot_evals_is_refused_whatever_comes_after(judged: Judge) -> None:
    told = judged((nudged(1e-4, step=6),), (put("first_state_sha", "x"),))
    assert not told["proven"] and "8 episodes begin differently" in told["evidence"]


def test_where_lerobot_eval_draws_anew_each_time_outcomes_decide(judged: Judge) -> None:
    told = judged((nudged(0.9),), (nudged(0.8),))
    assert told["proven"] and "4 of 8 succeed, and any of 0, 8 would have been refused" in told["evidence"]


def test_outcomes_beyond_those_of_lerobot_eval_are_refused(judged: Judge) -> None:
    told = judged((nudged(0.9),), (nudged(0.8), put("success", False)))
    assert not told["proven"] and "0 of 8 succeed, 8 of 16 in lerobot-eval" in told["evidence"]


def test_where_nothing_could_show_a_difference_nothing_is_proven(judged: Judge) -> None:
    told = judged((nudged(0.9),), (nudged(0.8),), 2)
    assert not told["proven"] and "no compared quantity could have shown a difference" in told["evidence"]


def test_more_than_half_of_the_outcomes_other_than_lerobot_evals_own_is_refused(judged: Judge) -> None:
    def swapped(line: dict[str, Any], actions: Any) -> None:
        line["success"] = not line["success"]

    told = judged((nudged(0.9),), (nudged(0.8), swapped))
    assert not told["proven"] and "8 of 8 outcomes differ, 0 of 8 of lerobot-eval's own" in told["evidence"]


@pytest.fixture
def certified(tmp_path: Path) -> Path:
    """A certificate that proves two episodes, with the records of both engines beside it."""
    played = {name: play(tmp_path / name, 2) for name in ("reference", "resident")}
    row = SimpleNamespace(run_id="row", task_suite="libero_object")
    plan: Any = SimpleNamespace(proof_key="0" * 64, row=row, task_ids=(0,), batch_size=1, chunk=CHUNK)
    recorded = {str(path.relative_to(tmp_path)): files.sha256_file(path) for path in files.walk_files(tmp_path)}
    path = tmp_path / parity_certificate.NAME
    files.write_json(path, parity.certificate(plan, parity._judgement(played, CHUNK), {}, {}, recorded))
    return path


def test_a_certificate_holds_beside_its_own_records_and_whatever_else_lies_there(certified: Path) -> None:
    play(certified.parent / "again", 2, negated)  # of an earlier refusal
    assert parity_certificate.read(certified, "0" * 64)["exact"]
    assert list(parity.contradictions(certified)) == []


def test_a_record_that_is_missing_or_edited_is_named(certified: Path) -> None:
    shutil.rmtree(certified.parent / "resident" / "actions")
    with (certified.parent / "reference" / "episodes.jsonl").open("a") as file:
        file.write("\n")
    assert list(parity.contradictions(certified)) == [
        "resident/actions/libero_object_0_0.npy is missing",
        "resident/actions/libero_object_0_1.npy is missing",
        "reference/episodes.jsonl has changed since it was recorded",
    ]


@pytest.mark.parametrize("content", [b"", b"[]\n", b"{", b"\xff"])
def test_a_certificate_with_a_damaged_record_proves_nothing_and_is_made_again(certified: Path, content: bytes) -> None:
    assert parity._is_proven(certified, "0" * 64)
    record = certified.parent / "reference" / "episodes.jsonl"
    record.unlink()
    record.write_bytes(content)
    assert list(parity.contradictions(certified)) == ["reference/episodes.jsonl has changed since it was recorded"]
    assert not parity._is_proven(certified, "0" * 64)
    certificate = files.read_json(certified)
    certificate["files"]["reference/episodes.jsonl"] = files.sha256_file(record)  # edited to fit
    files.write_json(certified, certificate)
    assert not parity._is_proven(certified, "0" * 64)


def test_records_edited_together_with_their_hashes_contradict_the_numbers(certified: Path) -> None:
    path = certified.parent / "resident" / "episodes.jsonl"
    path.write_text(path.read_text().replace('"steps": 9', '"steps": 8', 1))
    certificate = files.read_json(certified)
    certificate["files"]["resident/episodes.jsonl"] = files.sha256_file(path)
    files.write_json(certified, certificate)
    assert list(parity.contradictions(certified)) == [
        "the certificate's compared does not match its records",
        "the certificate's differing does not match its records",
    ]


def test_a_certificate_of_no_episodes_proves_nothing() -> None:
    assert not verdict(parity.NOTHING, None)["proven"]


def test_a_certificate_stands_for_what_it_was_made_with_alone(tmp_path: Path) -> None:
    keys = {parity_certificate.key({"checkpoint": checkpoint, "host": host}) for checkpoint in "ab" for host in "cd"}
    assert len(keys) == 4
    assert parity_certificate.unproven_reason(Layout(tmp_path), keys.pop()) == (
        "no parity run on this host with this checkpoint, software, settings and way of calling the policy"
    )


def test_another_code_of_the_engine_is_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = parity_certificate.key({})
    monkeypatch.setattr(parity_certificate, "code_hash", lambda *_: "other")
    assert parity_certificate.key({}) != before


# fast mode beside exact mode


def modes(folder: Path, *changes: Change) -> dict[str, PlayedEpisodes]:
    exact, again = (play(folder / name, 60) for name in (fast_parity.EXACT, fast_parity.AGAIN))
    return {
        fast_parity.EXACT: exact,
        fast_parity.AGAIN: again,
        fast_parity.FAST: play(folder / fast_parity.FAST, 60, put("precision", "fast"), *changes),
    }


START: FastStart = {
    "exact_key": "0" * 64,
    "exact_proven": True,
    "exact_evidence": "the same to the bit",
    "type": "bfloat16",
    "margin": 0.05,
}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((nudged(0.01),), "first chunks differ by 0.07% of the actions' size in the mean"),
        ((nudged(0.5),), "first chunks: actions differ by"),
        ((nudged(float("nan")),), "first chunks: actions differ by"),
        ((seen(0, "x"),), "60 of 60 episodes do not begin alike"),
        ((put("success", False),), "30 losses and 0 gains, exact McNemar"),
        ((put("precision", "exact"),), "exact mode answered wherever fast mode was asked for, so nothing is shown of"),
        ((put("precision", "fast and exact"),), "fast mode answered some episodes only"),
    ],
)
def test_a_certificate_of_fast_mode_says_what_its_episodes_say(
    tmp_path: Path, changes: tuple[Change, ...], told: str
) -> None:
    compared, fast = fast_parity.judged(modes(tmp_path, *changes), CHUNK, START)
    found = parity_certificate.judgement({**compared, "fast": fast, "evidence": ""})
    assert told in found["evidence"] and not found["exact"]


def test_exact_mode_is_named_as_ever_and_fast_mode_by_a_name_of_its_own() -> None:
    def campaign(settings: dict[str, Any], engine: str = "resident") -> Any:
        return SimpleNamespace(engine=engine, resident=settings, is_resident=engine == "resident")

    fast = {"precision": "fast", "fast_episodes": 7, "fast_margin": 0.1, "noise": "episode"}
    assert plan.deciding(campaign(fast)) == {"precision": "fast", "noise": "episode"}
    assert plan.deciding(campaign({"precision": "exact"})) == plan.deciding(campaign({})) == {}
