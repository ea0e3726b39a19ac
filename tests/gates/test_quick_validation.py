"""`tracka validate --quick`: what it finds, what it leaves out and says so, and that it is never the verdict."""

import json
import subprocess
from pathlib import Path

import campaigns
import pytest
from campaigns import Made

from tracka.core import reading
from tracka.engines import lerobot_eval, video
from tracka.gates import validate

RUN_ID = "long_b1_e6"


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A campaign that was accepted, for readers alone."""
    return campaigns.finished(tmp_path_factory.getbasetemp(), "passed")


@pytest.fixture
def copied(accepted: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    made = campaigns.copied(accepted, tmp_path)
    for name, value in made.environ.items():
        monkeypatch.setenv(name, value)
    return made


def quick(made: Made, *more: str) -> subprocess.CompletedProcess[str]:
    return made.call("validate", "--phase", "all", "--root", str(made.root), "--quick", *more)


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_good_campaign_is_valid_at_a_quick_look_which_says_that_it_is_no_verdict(copied: Made) -> None:
    looked = quick(copied)
    assert (looked.returncode, looked.stderr) == (0, "")
    assert looked.stdout.splitlines() == ["all: valid", f"a quick look, no verdict; left out: {validate.LEFT_OUT}"]


def test_a_quick_look_is_refused_as_the_strict_verdict(copied: Made) -> None:
    looked = quick(copied, "--strict")
    assert (looked.returncode, looked.stdout) == (2, "")
    assert "a quick validation is never the strict verdict" in looked.stderr


def test_it_decodes_no_video_and_hashes_no_file_of_an_attempt(copied: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = reading._open

    def noted(path: Path, *more: object) -> tuple[int, int]:
        opened.append(path.name)
        return real(path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "_open", noted)
    monkeypatch.setattr(video, "decode", lambda path: pytest.fail(f"{path} was decoded"))
    monkeypatch.setattr(lerobot_eval, "read_metrics", lambda *_: pytest.fail("eval_info.json was read"))
    assert validate.validate(copied.spec, quick=True) == []
    assert not {"eval_info.json", "stderr.log", "stdout.log", "eval_episode_0.mp4"} & set(opened)
    assert {"run_manifest.json", "result.json", "identity.json", f"{RUN_ID}.json"} <= set(opened)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("result.json", {"successes": 0}),
        ("result.json", {"success_rate": 1.5}),
        ("run_manifest.json", {"seed": 8}),
        ("attempts/1/identity.json", {"python": "3.11.0"}),
    ],
)
def test_an_edited_record_is_found(copied: Made, name: str, values: dict[str, object]) -> None:
    path = copied.layout.run(RUN_ID).path / name
    edit(path, **values)
    looked = quick(copied)
    assert looked.returncode == 1
    assert f"runs/{RUN_ID}/" in looked.stderr or f"rows/{RUN_ID}.json" in looked.stderr


def test_a_row_of_other_inputs_and_a_failed_one_are_found(copied: Made) -> None:
    copied.configure(f"[rows.{RUN_ID}]\nepisode_length = 9")
    assert "the row passed with another matrix row, settings" in quick(copied).stderr


@pytest.mark.parametrize("name", ["eval/eval_info.json", "eval/videos/libero_object_0/eval_episode_0.mp4"])
def test_what_it_leaves_out_the_complete_validation_finds(copied: Made, name: str) -> None:
    path = copied.layout.run(RUN_ID).attempt(1).path / name
    path.write_bytes(path.read_bytes()[:-9])
    assert quick(copied).returncode == 0
    assert [finding for finding in validate.validate(copied.spec) if name.rpartition("/")[2] in str(finding)]
