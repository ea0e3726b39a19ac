"""The harness is killed at random moments while the real lerobot-eval runs the real simulator, and resumed until done.

Every episode then has the outcome that is known beforehand, and the killed attempts are kept as what they are.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY, Made
from processes import wait_for_the_end_of

from tracka import campaign, files, validate

pytestmark = pytest.mark.simulator

KILLS, SEED = 4, 20261124
ROWS = (
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/some,1",
    "other_b2_e2,libero_object,2,2,cpu,7,egl,checkpoints/some,1",
)
SETTINGS = """
schema_version = 1
baseline = "baseline_b1_e2"
expected_gpus = 0

[build]
"checkpoints/some" = "replay libero_object/0:1 libero_object/1:0"

[lerobot_eval]
policy_type = "replay"
task_ids = [0]
episode_length = 120
observation_height = 64
observation_width = 64

[rows.other_b2_e2]
task_ids = [1]

[timeouts]
row_secs = 900

[known_answers.baseline_b1_e2]
0 = [1]

[known_answers.other_b2_e2]
1 = [0]
"""


def sweep(made: Made) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tracka", *made.sweep_words("--resume", "--max-parallel", "2")]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=quiet, stderr=quiet)


@pytest.mark.timeout(1800)
def test_a_sweep_of_the_real_simulator_that_is_killed_and_resumed_tells_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = campaigns.make(tmp_path / "campaign", ROWS, SETTINGS).root
    made = Made(root, {"TRACKA_STANDIN": str(root / "standin.json")})  # by which its processes are found; none is used
    monkeypatch.setenv("TRACKA_STANDIN", made.environ["TRACKA_STANDIN"])
    prepared = made.pytest("-n0", "-m", "phase1 or phase2")
    assert prepared.returncode == 0, prepared.stdout
    chance = random.Random(SEED)
    for _ in range(KILLS):
        harness = sweep(made)
        time.sleep(chance.uniform(1, 30))
        harness.kill()
        harness.wait()
        wait_for_the_end_of(root)
    assert sweep(made).wait() == 0
    spec = campaign.load(root)
    for row in spec.enabled:
        findings = [
            item for name in ("result", "evidence", "known_answer") for item in validate.row_holds(spec, row, name)
        ]
        assert findings == []
        *killed, last = [files.read_json(spec.layout.run(row.run_id).attempt(k).result) for k in numbers(spec, row)]
        assert {result["reason"] for result in killed} <= {"interrupted", None} and last["status"] == "pass"
    assert sum(len(numbers(spec, row)) for row in spec.enabled) > len(ROWS)  # some were killed in the midst


def numbers(spec: campaign.Campaign, row: campaign.Row) -> list[int]:
    return spec.layout.run(row.run_id).numbers()
