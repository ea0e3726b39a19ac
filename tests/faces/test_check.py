"""`tracka check`: one checkpoint, in seconds, without a campaign."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from campaigns import REPOSITORY, Made


def check(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tracka", "check", *words], capture_output=True, text=True, cwd=REPOSITORY
    )


def lines(ended: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Status by check, without the checkpoint's path."""
    words = (line.split(maxsplit=2) for line in ended.stdout.splitlines() if line[:1] != " ")
    return {name.partition(":")[0]: status for status, name, _ in words}


@pytest.mark.slow  # an import of lerobot
def test_a_sound_checkpoint_passes_every_check(tiny_act: Path) -> None:
    ended = check(str(tiny_act))
    assert ended.returncode == 0, ended.stdout
    assert lines(ended) == {
        "policy_resolve": "pass",
        "weights": "pass",
        "safety": "pass",
        "imports": "pass",
        "statistics": "pass",
        "features": "pass",
        "device": "pass",
        "model": "pass",
    }
    # Its frames are of 128 pixels, which `tracka init` sets.
    assert "robot0_eye_in_hand_image (128 x 128) feeds observation.images.image2" in ended.stdout


def test_a_broken_checkpoint_fails_the_check_that_finds_it_with_the_remedy(tiny_act: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(tiny_act, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:-1])
    ended = check(str(broken))
    assert (ended.returncode, lines(ended)) == (1, {"policy_resolve": "pass", "weights": "fail"})
    assert "Copy the file again" in ended.stdout


def test_a_campaign_is_called_one_and_what_runs_it_is_named(made: Made) -> None:
    ended = made.call("check", str(made.root))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"{made.root}: this is the folder of a campaign, not of a checkpoint. Run the campaign: " in ended.stderr
    other = f"or name a checkpoint, such as a policy_path of {made.layout.matrix}"
    assert f"--campaign {made.root}; {other}" in ended.stderr


def test_what_is_no_checkpoint_fails_with_its_reason(tmp_path: Path) -> None:
    ended = check(str(tmp_path))
    assert (ended.returncode, lines(ended)) == (1, {"policy_resolve": "fail"})
    assert "the checkpoint lacks this file" in ended.stdout
