"""The harness is killed at random moments while the real lerobot-eval runs the real simulator, and resumed until done.

Every episode then has the outcome that is known beforehand, and the killed attempts are kept as what they are.
"""

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY, Made
from processes import wait_for_the_end_of, wait_until

from tracka.campaign import campaign
from tracka.core import files
from tracka.gates import validate

pytestmark = pytest.mark.simulator

SEED = 20261124
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


BOTH = ("baseline_b1_e2", "other_b2_e2")
BUILT = "Built vec env"  # lerobot-eval's words when all is imported and nothing played
# Kills, what a row must have said before one, and up to how many seconds it then takes.
SLOW, DOSE = pytest.mark.slow, pytest.mark.dose
DOSES = [
    pytest.param(1, BUILT, 2, BOTH[:1], marks=[SLOW, DOSE]),
    pytest.param(4, "", 30, BOTH, marks=[SLOW, pytest.mark.long, pytest.mark.repeated]),  # the soak kills more
]


def sweep(made: Made, rows: Sequence[str]) -> subprocess.Popen[bytes]:
    words = made.sweep_words("--resume", "--max-parallel", "2", "--rows", ",".join(rows))
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-m", "tracka", *words], cwd=REPOSITORY, stdout=quiet, stderr=quiet)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kills", "said", "seconds", "rows"), DOSES, ids=["once", "often"])
def test_a_sweep_of_the_real_simulator_that_is_killed_and_resumed_tells_the_truth(
    kills: int, said: str, seconds: float, rows: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = campaigns.make(tmp_path / "campaign", ROWS, SETTINGS).root
    made = Made(root, {"TRACKA_STANDIN": str(root / "standin.json")})  # by which its processes are found; none is used
    monkeypatch.setenv("TRACKA_STANDIN", made.environ["TRACKA_STANDIN"])
    campaigns.pass_preflight_of_real_rows(made)
    spec, chance = made.spec, random.Random(SEED)
    for _ in range(kills):
        harness = sweep(made, rows)
        wait_until(lambda: said in words(spec, rows), 300)
        time.sleep(chance.uniform(1, seconds))
        harness.kill()
        harness.wait()
        wait_for_the_end_of(root)
    assert sweep(made, rows).wait() == 0
    for row in map(spec.row, rows):
        findings = [
            item
            for name in ("result", "evidence", "known_answer")
            for item in validate.row_contract_findings(spec, row, name)
        ]
        assert findings == []
        *killed, last = [files.read_json(spec.layout.run(row.run_id).attempt(k).result) for k in numbers(spec, row)]
        assert {result["reason"] for result in killed} <= {"interrupted", None} and last["status"] == "pass"
    assert sum(len(numbers(spec, spec.row(name))) for name in rows) > len(rows)  # some were killed in the midst


def words(spec: campaign.Campaign, rows: Sequence[str]) -> str:
    """What all attempts at these rows have printed."""
    folders = [spec.layout.run(run_id).attempt(number) for run_id in rows for number in numbers(spec, spec.row(run_id))]
    return "".join(folder.stdout.read_text() for folder in folders if folder.stdout.exists())


def numbers(spec: campaign.Campaign, row: campaign.Row) -> list[int]:
    return spec.layout.run(row.run_id).numbers()
