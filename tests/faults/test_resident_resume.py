"""Rows of the resident engine on the real simulator are killed at random moments and go on with what is missing.

The result, the actions and the states are then those of a row that nobody disturbed.
"""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import campaigns
import psutil
import pytest
from campaigns import REPOSITORY, Made
from processes import wait_for_the_end_of, wait_until

from tracka.core import files
from tracka.engines import episode_lines
from tracka.gates import validate

pytestmark = [
    pytest.mark.simulator,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.repeated,  # the soak kills such rows too
]

SEED, KILLS = 20261130, 3
ROW = "object_b2_e9"
ROWS = (f"{ROW},libero_object,2,9,cpu,7,egl,checkpoints/act,1",)
SETTINGS = f"""
schema_version = 1
baseline = "{ROW}"
expected_gpus = 0
engine = "resident"

[resident]
workers = 1
slots = 2

[build]
"checkpoints/act" = "tiny_act"

[lerobot_eval]
policy_type = "act"
n_action_steps = 10
episode_length = 60
observation_height = 64
observation_width = 64
task_ids = [1]

[timeouts]
row_secs = 900
"""


def campaign(root: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    root = campaigns.make(root, ROWS, SETTINGS).root
    made = Made(root, {"TRACKA_STANDIN": str(root / "standin.json")})  # by which its processes are found; none is used
    monkeypatch.setenv("TRACKA_STANDIN", made.environ["TRACKA_STANDIN"])
    campaigns.pass_preflight_of_real_rows(made)
    return made


def sweep(made: Made) -> subprocess.Popen[bytes]:
    words = made.sweep_words("--resume", "--max-parallel", "1")
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-m", "tracka", *words], cwd=REPOSITORY, stdout=quiet, stderr=quiet)


def lines(made: Made, attempt: int) -> list[dict[str, Any]]:
    return episode_lines.whole(made.layout.run(ROW).attempt(attempt).output / "episodes.jsonl")


def own(made: Made) -> int:
    """How many episodes the last attempt has played by itself so far."""
    numbers = made.layout.run(ROW).numbers()
    return len(own_episodes(made, numbers[-1])) if numbers else 0


def wait_for_attempt(made: Made, number: int) -> None:
    """Waits until this attempt has played an episode by itself, or has no episode to play."""
    wait_until(lambda: number in made.layout.run(ROW).numbers() and (own(made) > 0 or len(outcomes(made)) == 9), 300)


def own_episodes(made: Made, attempt: int) -> list[tuple[int, int]]:
    return [(line["task"], line["episode"]) for line in lines(made, attempt) if "attempt" not in line]


def sums(made: Made, attempt: int) -> list[float]:
    info = json.loads((made.layout.run(ROW).attempt(attempt).output / "eval_info.json").read_text())
    return list(info["per_task"][0]["metrics"]["sum_rewards"])


def outcomes(made: Made) -> Mapping[tuple[int, int], Mapping[str, object]]:
    """What the last attempt's lines say of each episode, but for when and in which attempt it was played."""
    numbers = made.layout.run(ROW).numbers()
    left_out = {"at_secs", "attempt"}
    found = {(line["task"], line["episode"]): line for line in lines(made, numbers[-1])}
    return {name: {k: v for k, v in line.items() if k not in left_out} for name, line in found.items()}


def engine(made: Made) -> psutil.Process:
    """The program of the row, which hands the row to the warm process."""
    folder = made.layout.run(ROW).attempt(made.layout.run(ROW).numbers()[-1])
    word = f"--output_dir={folder.output.relative_to(made.root)}"
    return next(each for each in psutil.process_iter(["cmdline"]) if word in (each.info["cmdline"] or ()))


@pytest.mark.timeout(1800)
def test_a_row_that_is_killed_at_random_ends_as_one_that_nobody_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = campaign(tmp_path / "quiet", monkeypatch)
    assert sweep(quiet).wait() == 0
    made, chance = campaign(tmp_path / "campaign", monkeypatch), random.Random(SEED)
    for kill in range(KILLS):
        harness, before = sweep(made), len(made.layout.run(ROW).numbers())
        wait_for_attempt(made, before + 1)
        time.sleep(chance.uniform(0, 0.5))
        if kill == 0:  # the row's program alone: the retry is the harness's own
            engine(made).send_signal(signal.SIGKILL)
            wait_for_attempt(made, before + 2)
        harness.kill()
        harness.wait()
        wait_for_the_end_of(made.root)
    assert sweep(made).wait() == 0
    assert outcomes(made) == outcomes(quiet) and len(outcomes(made)) == 9
    last = made.layout.run(ROW).numbers()[-1]
    played = [own_episodes(made, number) for number in range(1, last + 1)]
    assert sorted(chain(*played)) == [(1, number) for number in range(9)]  # none was played twice
    assert last > 2 and len(played[-1]) < 9
    assert sums(made, last) == sums(quiet, 1)
    for name in ("result", "evidence", "videos"):
        assert [*validate.row_contract_findings(made.spec, made.spec.row(ROW), name)] == []
    task, episode = played[0][0]
    replayed = made.tracka("replay", ROW, "--task", str(task), "--episode", str(episode), "--root", str(made.root))
    assert replayed.returncode == 0 and "to the bit" in replayed.stdout, replayed.stdout + replayed.stderr
    assert files.read_json(made.layout.run(ROW).result)["episodes"] == 9
