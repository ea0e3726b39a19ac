"""What only the real lerobot-eval and the real LIBERO can show."""

import json
import sys
from pathlib import Path
from typing import Any

import campaigns
import psutil
import pytest

from tracka import build, discover, files, run
from tracka.campaign import Campaign
from tracka.plan import Host

pytestmark = pytest.mark.simulator

ROWS = (
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/tiny-act,1",
    "wide_b2_e3,libero_object,2,3,cpu,11,egl,checkpoints/tiny-act,1",
)
SETTINGS = """
schema_version = 1
baseline = "baseline_b1_e2"
expected_gpus = 0

[build]
"checkpoints/tiny-act" = "tiny_act"

[lerobot_eval]
policy_type = "act"
task_ids = [0]
episode_length = {steps}
observation_height = 128
observation_width = 128

[timeouts]
row_secs = {seconds}
grace_secs = 2
"""


def prepared(root: Path, steps: int, seconds: int, executable: str = "") -> tuple[Campaign, Host]:
    made = campaigns.make(root, ROWS, executable + SETTINGS.format(steps=steps, seconds=seconds))
    spec = made.spec
    build.ensure(spec, "checkpoints/tiny-act")
    capabilities = discover.discover_for(spec)
    return spec, Host("egl", tuple(capabilities["executable"]), capabilities)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_episode_is_recorded_with_the_seed_and_init_state_that_its_slot_really_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKA_SPY", str(tmp_path / "resets.jsonl"))
    spy = f"executable = {json.dumps([sys.executable, str(Path(__file__).with_name('spy_eval.py'))])}"
    spec, host = prepared(tmp_path / "campaign", steps=8, seconds=300, executable=spy)
    result = run.run_row(spec, spec.row("wide_b2_e3"), host)
    assert (result["status"], result["episodes"], result["successes"]) == ("pass", 3, 0), result["error_message"]
    resets: dict[int, list[dict[str, Any]]] = {}
    for reset in lines_of(tmp_path / "resets.jsonl"):
        resets.setdefault(reset["slot"], []).append(reset)
    for record in lines_of(spec.layout.run("wide_b2_e3").episodes):
        witnessed = resets[record["slot"]][record["reset_ordinal"]]
        assert (record["seed"], record["init_state"]) == (witnessed["seed"], witnessed["init_state"])


def test_a_time_out_ends_lerobots_environment_processes_too(tmp_path: Path) -> None:
    spec, host = prepared(tmp_path / "campaign", steps=100_000, seconds=40)
    before = {process.pid for process in psutil.process_iter()}
    result = run.run_row(spec, spec.row("wide_b2_e3"), host)
    assert (result["status"], result["reason"]) == ("fail", "timeout")
    left = [item for item in psutil.process_iter(["cmdline"]) if item.pid not in before and _is_ours(item, tmp_path)]
    assert left == []
    manifests = [files.read_json(spec.layout.run("wide_b2_e3").attempt(number).manifest) for number in (1, 2)]
    assert [(item["batch_size"], item["comparable"]) for item in manifests] == [(2, True), (1, False)]


def _is_ours(process: psutil.Process, folder: Path) -> bool:
    return any("checkpoints/tiny-act" in word for word in process.info["cmdline"] or ()) and (
        psutil.pid_exists(process.pid) and process.cwd().startswith(str(folder))
    )
