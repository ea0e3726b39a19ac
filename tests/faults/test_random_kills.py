"""Harnesses are killed at random moments, and the table at the end is that of a sweep which nobody disturbed.

After each kill every process is gone within five seconds, and no GPU ever had two rows, by the leases' own journals.
"""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from campaigns import REPOSITORY, SETTINGS, Made
from journals import overlaps
from processes import of_campaign, wait_for_the_end_of
from soak import differences, sessions, table

from tracka.runs import row_state, run


@dataclass(frozen=True)
class Dose:
    """How many kills a test makes over which campaign."""

    seed: int
    kills: int
    gpus: int
    words: Mapping[str, int]  # what rows do, and how many of them

    @property
    def rows(self) -> int:
        return sum(self.words.values())

    def matrix(self) -> list[str]:
        """Rows pinned to the GPUs in turn; which GPU a row had is a column of the table, so none is left to chance."""
        head = "baseline_b1_e2,libero_object,1,2,0,7,egl,checkpoints/fake,1"
        pinned = ((number, number % self.gpus) for number in range(1, self.rows))
        return [head, *(f"row{row:02}_b2_e2,libero_object,2,2,{gpu},7,egl,checkpoints/fake,1" for row, gpu in pinned)]

    def behaviours(self) -> dict[str, Sequence[str]]:
        """What each row does in every attempt, in a fixed mix; the baseline passes."""
        mixed = [word for word, count in self.words.items() for _ in range(count)]
        random.Random(self.seed).shuffle(mixed)
        names = (line.split(",")[0] for line in self.matrix())
        return {name: [word] for name, word in zip(names, mixed, strict=True)} | {"baseline_b1_e2": ["ok"]}


SMALL = {"slow:0.3": 5, "slow:1": 2, "crash": 1, "oom": 1, "short": 1}
LARGE = {"slow:0.3": 24, "slow:1": 8, "crash": 4, "oom": 2, "short": 2}
DOSES = [
    pytest.param(Dose(1, 5, 4, SMALL), marks=[pytest.mark.slow, pytest.mark.dose, pytest.mark.repeated]),
    pytest.param(Dose(20261124, 50, 8, LARGE), marks=[pytest.mark.slow, pytest.mark.long]),
]


@pytest.fixture
def campaign(
    dose: Dose, make_campaign: Callable[..., Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Made]:
    """Makes the campaign anew, after phases 1 and 2; its locks and their journals are its own."""
    monkeypatch.setenv("TRACKA_PRETEND_GPUS", str(dose.gpus))
    monkeypatch.setenv("TRACKA_GPU_LOCKS", str(tmp_path / "locks"))

    def make() -> Made:
        made = make_campaign(dose.matrix(), SETTINGS.replace("row_secs = 60", "row_secs = 120"))
        made.behave(**dose.behaviours())
        made.pass_preflight()
        return made

    return make


def ended(made: Made) -> bool:
    """Whether every row has passed, or failed in the way that it is told to."""
    states = [row_state.read(made.layout, row.run_id) for row in made.spec.enabled]
    return all(state is not None and state["status"] in ("pass", "fail") for state in states) and not any(
        (run.read_result(made.layout, row.run_id) or {"reason": "interrupted"})["reason"] in ("interrupted", "killed")
        for row in made.spec.enabled
    )


def kill_at_random(made: Made, chance: random.Random, kills: int, at_once: str) -> int:
    """Starts harnesses and kills each at a random moment, until all rows have ended or `kills` are done; how many."""
    killed = 0
    while killed < kills and not ended(made):
        harness = sessions(made, chance, int(at_once))()
        time.sleep(chance.uniform(0.2, 4))
        killed += harness.poll() is None
        harness.kill()
        harness.wait()
        wait_for_the_end_of(made.root)
    return killed


def sweep(made: Made, at_once: str) -> None:
    """To its end, undisturbed: what has not passed runs."""
    command = [sys.executable, "-m", "tracka", *made.sweep_words("--resume", "--max-parallel", at_once)]
    subprocess.run(command, cwd=REPOSITORY, capture_output=True)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("dose", DOSES, ids=lambda dose: f"{dose.kills}_kills_seed_{dose.seed}")
def test_a_sweep_killed_many_times_ends_in_the_table_of_one_that_nobody_disturbed(
    dose: Dose, campaign: Callable[[], Made], tmp_path: Path
) -> None:
    made, at_once = campaign(), str(dose.gpus)
    sweep(made, at_once)
    expected = table(made)
    assert len(expected) == dose.rows and {line["status"] for line in expected.values()} == {"pass", "fail"}
    chance, killed, rounds = random.Random(dose.seed), 0, 0
    while killed < dose.kills:
        made.root.rename(tmp_path / f"round{rounds}")
        made, rounds = campaign(), rounds + 1
        killed += kill_at_random(made, chance, dose.kills - killed, at_once)
        sweep(made, at_once)
        assert differences(table(made), expected) == []
        assert of_campaign(made.root) == []
    print(f"{killed} kills in {rounds} rounds of {dose.rows} rows; overlaps: {overlaps(tmp_path / 'locks')}")
    assert overlaps(tmp_path / "locks") == []
    journals = [journal.read_text() for journal in (tmp_path / "locks").glob("*.journal")]
    assert len(journals) == dose.gpus and sum(text.count('"start"') for text in journals) > 2 * dose.rows
