"""What only the real lerobot-eval and the real LIBERO can show."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import campaigns
import psutil
import pytest
from campaigns import REPOSITORY

from tracka.campaign.campaign import Campaign
from tracka.core import files
from tracka.engines import cli_capabilities
from tracka.runs import run
from tracka.runs.plan import Host

pytestmark = pytest.mark.simulator

ROWS = (
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/tiny-act,1",
    "wide_b2_e3,libero_object,2,3,cpu,11,egl,checkpoints/tiny-act,1",
)
SETTINGS = """
schema_version = 1
baseline = "baseline_b1_e2"
expected_gpus = 0

[lerobot_eval]
policy_type = "act"
task_ids = [0]
episode_length = {steps}
observation_height = {pixels}
observation_width = {pixels}

[timeouts]
row_secs = {seconds}
grace_secs = 2
"""


def prepared(root: Path, policy: Path, executable: str = "", **numbers: int) -> tuple[Campaign, Host]:
    """A campaign of this checkpoint; `numbers` are the pixels of a frame, the steps of an episode, a row's seconds."""
    spec = campaigns.make(root, ROWS, executable + SETTINGS.format(**numbers)).spec
    shutil.copytree(policy, root / "checkpoints" / "tiny-act")
    capabilities = cli_capabilities.discover_for(spec)
    return spec, Host("egl", tuple(capabilities["executable"]), capabilities)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("run_id", "pixels", "steps"),
    [
        pytest.param("baseline_b1_e2", 32, 4, marks=pytest.mark.slow),
        pytest.param("wide_b2_e3", 128, 8, marks=[pytest.mark.slow, pytest.mark.repeated]),
    ],
)
def test_each_episode_is_recorded_with_the_seed_and_init_state_that_its_slot_really_got(
    run_id: str, pixels: int, steps: int, tiny_act: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKA_SPY", str(tmp_path / "resets.jsonl"))
    spy = f"executable = {json.dumps([sys.executable, str(REPOSITORY / 'tests' / 'spy_eval.py')])}"
    spec, host = prepared(tmp_path / "campaign", tiny_act, spy, pixels=pixels, steps=steps, seconds=300)
    row = spec.row(run_id)
    result = run.run_row(spec, row, host)
    told = (result["status"], result["episodes"], result["successes"])
    assert told == ("pass", row.n_episodes, 0), result["error_message"]
    resets: dict[int, list[dict[str, Any]]] = {}
    for reset in lines_of(tmp_path / "resets.jsonl"):
        resets.setdefault(reset["slot"], []).append(reset)
    for record in lines_of(spec.layout.run(run_id).episodes):
        witnessed = resets[record["slot"]][record["reset_ordinal"]]
        assert (record["seed"], record["init_state"]) == (witnessed["seed"], witnessed["init_state"])


@pytest.mark.parametrize(
    ("seconds", "retry_index", "attempts"),
    [
        pytest.param(20, 1, [(2, True)], marks=[pytest.mark.slow, pytest.mark.dose]),
        pytest.param(40, 0, [(2, True), (1, False)], marks=pytest.mark.slow),
    ],
    ids=["once", "and_is_retried"],
)
def test_a_time_out_ends_lerobots_environment_processes_too(
    seconds: int, retry_index: int, attempts: list[tuple[int, bool]], tiny_act: Path, tmp_path: Path
) -> None:
    spec, host = prepared(tmp_path / "campaign", tiny_act, pixels=128, steps=100_000, seconds=seconds)
    before = {process.pid for process in psutil.process_iter()}
    result = run.run_row(spec, spec.row("wide_b2_e3"), host, retry_index=retry_index)
    assert (result["status"], result["reason"]) == ("fail", "timeout")
    left = [item for item in psutil.process_iter(["cmdline"]) if item.pid not in before and _is_ours(item, tmp_path)]
    assert left == []
    folder = spec.layout.run("wide_b2_e3")
    manifests = [files.read_json(folder.attempt(number).manifest) for number in folder.numbers()]
    assert [(item["batch_size"], item["comparable"]) for item in manifests] == attempts


def _is_ours(process: psutil.Process, folder: Path) -> bool:
    return any("checkpoints/tiny-act" in word for word in process.info["cmdline"] or ()) and (
        psutil.pid_exists(process.pid) and process.cwd().startswith(str(folder))
    )
