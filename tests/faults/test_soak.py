"""Rounds of KILL, STOP and CONT over all kinds of processes end in the table of a campaign that nobody disturbed.

`make soak ROUNDS=30` runs them on the real simulator with both engines; SOAK_SEED repeats the seed that was printed.
"""

import os
import random
import secrets
from collections.abc import Callable
from pathlib import Path

import campaigns
import pytest
import soak
from campaigns import Made
from processes import of_campaign
from soak import Soak
from test_simulator_kills import ROWS as REAL_ROWS
from test_simulator_kills import SETTINGS as REAL_SETTINGS

STANDIN_ROWS = (
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    "slow_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    "crash_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
)
BEHAVIOUR = {"baseline_b1_e2": ["ok:1"], "slow_b1_e2": ["slow:0.7"], "crash_b1_e2": ["crash"]}
STANDIN_KINDS = ("controller", "worker", "supervisor", "guard", "evaluation")
REAL_KINDS = {
    "lerobot-eval": STANDIN_KINDS,
    "resident": (*STANDIN_KINDS, "warm process", "guard of the warm process", "engine worker"),
}


def chance() -> random.Random:
    """The dice of one test; the seed is printed, so that it can be given again."""
    seed = int(os.environ.get(soak.SEED, secrets.randbelow(1 << 32)))
    print(f"{soak.SEED}={seed}")
    return random.Random(seed)


def disturbed_table(soaking: Soak, rounds: int) -> dict[str, soak.Line]:
    for _ in range(rounds):
        soaking.round()
    soaking.made.behave(**BEHAVIOUR)
    soaking.finish()
    print(f"{rounds} rounds: {dict(soaking.kinds)}")
    assert of_campaign(soaking.made.root) == []
    return soak.table(soaking.made)


def rounds(default: int) -> int:
    return int(os.environ.get(soak.ROUNDS, default))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_disturbed_sessions_of_stand_ins_end_in_the_table_of_an_undisturbed_one(
    make_campaign: Callable[..., Made], tmp_path: Path
) -> None:
    def made() -> Made:
        campaign = make_campaign(STANDIN_ROWS)
        campaign.behave(**BEHAVIOUR)
        campaign.pass_preflight()
        return campaign

    dice, undisturbed = chance(), made()
    soak.sessions(undisturbed, dice, gates=0)().wait()
    expected = soak.table(undisturbed)
    undisturbed.root.rename(tmp_path / "undisturbed")
    disturbed = made()
    disturbed.behave(**{run_id: ["slow:60"] for run_id in BEHAVIOUR})  # no round has nothing left to disturb
    soaking = Soak(disturbed, dice, soak.sessions(disturbed, dice), STANDIN_KINDS, delay=(0, 1))
    assert soak.differences(disturbed_table(soaking, rounds(2)), expected) == []
    assert {run_id: line["status"] for run_id, line in expected.items()} == {
        "baseline_b1_e2": "pass",
        "slow_b1_e2": "pass",
        "crash_b1_e2": "fail",
    }


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.simulator
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("engine", [pytest.param("lerobot-eval", marks=pytest.mark.repeated), "resident"])
def test_disturbed_sessions_of_the_real_simulator_end_in_the_table_of_an_undisturbed_one(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = REAL_SETTINGS
    if engine == "resident":
        head, build = settings.split("[build]")
        settings = f'{head}engine = "resident"\n\n[resident]\nworkers = 1\n\n[build]{build}'

    def made(name: str) -> Made:
        root = campaigns.make(tmp_path / name / "campaign", REAL_ROWS, settings).root
        campaign = Made(root, {"TRACKA_STANDIN": str(root / "standin.json")})  # by which its processes are found
        monkeypatch.setenv("TRACKA_STANDIN", campaign.environ["TRACKA_STANDIN"])
        campaigns.pass_preflight_of_real_rows(campaign)
        return campaign

    dice, undisturbed = chance(), made("undisturbed")
    assert soak.sessions(undisturbed, dice, gates=0)().wait() == 0
    expected = soak.table(undisturbed)
    disturbed = made("disturbed")
    soaking = Soak(disturbed, dice, soak.sessions(disturbed, dice, gates=0.3), REAL_KINDS[engine], delay=(0, 15))
    found = disturbed_table(soaking, rounds(2))
    assert soak.differences(found, expected) == []
    assert {line["status"] for line in found.values()} == {"pass"}
