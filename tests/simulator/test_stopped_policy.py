"""A policy that knows 3 of 20 episodes and has to reach 80% is stopped early, in LIBERO, by both engines."""

from pathlib import Path

import campaigns
import pytest
from campaigns import Made

from tracka.core import files
from tracka.runs import early_stop, episode_progress

pytestmark = [
    pytest.mark.simulator,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.repeated,  # tests of the rule with stand-ins
    pytest.mark.timeout(3600),
]

ROWS = (
    "baseline_b1_e1,libero_object,1,1,cpu,7,egl,checkpoints/nothing,1",
    "knows_3_of_20,libero_object,1,20,cpu,7,egl,checkpoints/some,1",
)
SETTINGS = """
schema_version = 1
baseline = "baseline_b1_e1"
expected_gpus = 0

[build]
"checkpoints/nothing" = "replay none"
"checkpoints/some" = "replay libero_object/0:0,2,4"

[lerobot_eval]
policy_type = "replay"
task_ids = [0]
episode_length = 130
observation_height = 64
observation_width = 64

[verdict]
threshold = 0.8
early = "futility"

[timeouts]
row_secs = 3000
grace_secs = 2
"""
RESIDENT = "\n[resident]\nworkers = 1\nslots = 1\n"


@pytest.fixture(scope="module", params=["lerobot-eval", "resident"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Returns the campaign after its gates, which must not accept it."""
    settings = SETTINGS.replace("[build]", f'engine = "{request.param}"\n\n[build]')
    folder: Path = tmp_path_factory.mktemp("stopped") / "campaign"
    made = Made(campaigns.make(folder, ROWS, settings + RESIDENT * (request.param == "resident")).root, {})
    campaigns.pass_preflight_of_real_rows(made)
    ended = made.pytest("-n0", "-m", "phase3 or phase4")
    assert ended.returncode == 1, ended.stdout
    return made


def test_a_policy_that_knows_3_of_20_is_stopped_within_a_third_of_its_episodes(made: Made) -> None:
    progress = episode_progress.read(made.layout, "knows_3_of_20")
    assert progress is not None
    assert 0 < progress.successes < progress.played <= 20 // 3
    assert made.results("knows_3_of_20") == [("fail", "stopped")]


def test_the_stop_says_by_which_rule_and_with_which_counts_it_came(made: Made) -> None:
    record = files.read_json(made.layout.early_stop)
    assert (record["outcome"], record["rule"], record["expected"]) == ("underpowered", "arithmetic", 20)
    assert "1 of 2 episodes failed" in record["sentence"]
    assert early_stop.standing(made.spec) is not None
