"""Episodes of the real lerobot-eval that are recorded: they are the plain ones, and can be played again to the bit."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import campaigns
import numpy as np
import pytest
from campaigns import REPOSITORY

from tracka.campaign.campaign import Campaign
from tracka.core import files
from tracka.engines import cli_capabilities, recorded_arrays, video
from tracka.runs import evidence, replays, run
from tracka.runs.plan import Host

pytestmark = [pytest.mark.simulator, pytest.mark.slow]

PLAIN, RECORDED = "plain_b1_e2", "recorded_b1_e2"
ROWS = tuple(f"{run_id},libero_goal,1,2,cpu,1000,egl,checkpoints/replay,1" for run_id in (PLAIN, RECORDED))
CHOICE = "libero_goal/9:1"  # of the task's first two episodes the second succeeds, after a reset that came before
SETTINGS = f"""
schema_version = 1
baseline = "{PLAIN}"
expected_gpus = 0

[lerobot_eval]
policy_type = "replay"
task_ids = [9]
episode_length = 76
observation_height = 128
observation_width = 128

[rows.{RECORDED}]
record_actions = true
"""


@dataclass(frozen=True)
class Played:
    """A campaign whose two rows have played the same episodes, one of them with a record."""

    spec: Campaign

    def output(self, run_id: str) -> Path:
        return self.spec.layout.run(run_id).attempt(1).output

    def metrics(self, run_id: str) -> dict[str, Any]:
        """Returns what lerobot-eval says of the task's episodes; the paths of videos are the rows' own."""
        (task,) = json.loads((self.output(run_id) / "eval_info.json").read_text())["per_task"]
        return {name: value for name, value in task["metrics"].items() if "paths" not in name}

    def lines(self) -> list[files.Json]:
        return files.read_lines(self.output(RECORDED) / "episodes.jsonl")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    root = tmp_path_factory.mktemp("recorded") / "campaign"
    spec = campaigns.make(root, ROWS, SETTINGS).spec
    build = [sys.executable, "-m", "fixtures.replay", str(root / "checkpoints" / "replay"), CHOICE]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    capabilities = cli_capabilities.discover_for(spec)
    host = Host("egl", tuple(capabilities["executable"]), capabilities)
    for run_id in (PLAIN, RECORDED):
        result = run.run_row(spec, spec.row(run_id), host)
        assert result["status"] == "pass", result["error_message"]
    return Played(spec)


def test_a_recorded_row_plays_the_plain_rows_episodes_to_the_bit(played: Played) -> None:
    assert played.metrics(PLAIN) == played.metrics(RECORDED)
    assert played.metrics(RECORDED)["successes"] == [False, True]
    films = {
        run_id: [path.read_bytes() for path in played.spec.layout.run(run_id).attempt(1).videos()]
        for run_id in (PLAIN, RECORDED)
    }
    assert films[PLAIN] == films[RECORDED] and len(films[PLAIN]) == 2


def test_a_record_has_the_actions_and_the_robots_states_of_each_step(played: Played) -> None:
    for line in played.lines():
        for kind, size in ((recorded_arrays.ACTIONS, 7), (recorded_arrays.STATES, 9)):
            path = recorded_arrays.path(played.output(RECORDED), kind, "libero_goal", 9, line["episode"])
            assert recorded_arrays.read(path, line[f"{kind}_sha"]).shape == (line["steps"], size)
    assert [(line["init_state"], line["seed"], line["reset_ordinal"]) for line in played.lines()] == [
        (0, 1000, 0),
        (1, 1001, 1),
    ]
    states = np.load(recorded_arrays.path(played.output(RECORDED), recorded_arrays.STATES, "libero_goal", 9, 1))
    assert np.abs(states[-1] - states[0]).max() > 0.05  # the hand has moved


def test_the_manifests_command_is_the_plain_rows_and_the_evidence_is_sound(played: Played) -> None:
    manifests = [files.read_json(played.spec.layout.run(run_id).manifest) for run_id in (PLAIN, RECORDED)]
    assert {manifest["row_hash"] for manifest in manifests} == {manifests[0]["row_hash"]}
    plain, recorded = ([word for word in each["command"] if "output_dir" not in word] for each in manifests)
    assert plain == recorded and "listener" in manifests[1] and "listener" not in manifests[0]
    assert evidence.refusals(played.spec, played.spec.row(RECORDED)) == []


def test_a_success_and_a_failure_are_played_again_to_the_bit_whatever_came_before_them(played: Played) -> None:
    episodes = replays.recorded(played.spec.layout, RECORDED)
    again = {replay["episode"]: replay for replay in replays.play(played.spec, episodes[::-1], seconds=900)}
    outcomes = {number: (replay["played"]["success"], replay["same_bits"]) for number, replay in again.items()}
    assert outcomes == {0: (False, True), 1: (True, True)}
    for episode in episodes:
        film = played.spec.layout.run(RECORDED).attempt(1).output / "videos" / "libero_goal_9"
        frames = video.frame_count(film / f"eval_episode_{episode.line['episode']}.mp4")
        assert video.frame_count(episode.film) >= frames > 0
