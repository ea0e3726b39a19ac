"""The resident engine as a program, beside lerobot-eval itself, on the real simulator."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from campaigns import REPOSITORY

from fixtures.parity import environ
from tracka import engine, parity, video

pytestmark = pytest.mark.simulator

FLAGS = {
    "policy.device": "cpu",
    "env.type": "libero",
    "env.task": "libero_object",
    "env.task_ids": "[1]",
    "env.episode_length": 24,
    "env.observation_height": 128,
    "env.observation_width": 128,
    "policy.n_action_steps": 10,
    "eval.batch_size": 2,
    "eval.n_episodes": 4,
    "seed": 7,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies") / "act"
    subprocess.run([sys.executable, REPOSITORY / "fixtures" / "tiny_act.py", folder], check=True, env=environ())
    return folder


def play(module: str, checkpoint: Path, folder: Path, **more: object) -> subprocess.CompletedProcess[str]:
    named = FLAGS | {"policy.path": checkpoint, "output_dir": folder} | more
    words = [f"--{name.replace('__', '.')}={value}" for name, value in named.items()]
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environ(), cwd=REPOSITORY
    )


def test_it_plays_lerobot_evals_episodes_to_the_bit_and_leaves_its_evidence(checkpoint: Path, tmp_path: Path) -> None:
    for module, name in (("tracka.probes.reference", "reference"), ("tracka.resident", "resident")):
        ended = play(module, checkpoint, tmp_path / name, **({} if name == "reference" else {"resident.slots": 3}))
        assert ended.returncode == 0, ended.stderr[-3000:]
    found = parity.compare(*(parity.read(tmp_path / name / "episodes.jsonl") for name in ("reference", "resident")))
    assert found.exact and found.episodes == 4
    theirs, ours = (engine.read_metrics(tmp_path / name, ()) for name in ("reference", "resident"))
    assert ours.warnings == () and ours.tasks == theirs.tasks
    assert all(video.frame_count(path) == 7 for path in (tmp_path / "resident" / "videos").rglob("*.mp4"))
    told = json.loads((tmp_path / "resident" / "timings.json").read_text())
    assert told["fallbacks"] == [] and told["looks"] == 12


def test_flags_that_it_cannot_obey_end_it_with_2_and_all_of_them_named(checkpoint: Path, tmp_path: Path) -> None:
    ended = play(
        "tracka.resident", checkpoint, tmp_path / "eval", **{"eval.recording": "true", "env.hard_reset": "false"}
    )
    assert ended.returncode == 2
    assert "eval.recording" in ended.stderr and "env.hard_reset" in ended.stderr
    assert not (tmp_path / "eval").exists()
