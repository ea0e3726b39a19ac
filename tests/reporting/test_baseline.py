"""`tracka baseline`: what an accepted campaign has played, in one file that says when it was changed."""

import stat
from pathlib import Path

import campaigns
import pytest
from campaigns import Made

from tracka.core import files, schema
from tracka.reporting import baseline_file


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return campaigns.finished(tmp_path_factory.getbasetemp(), "passed")


@pytest.fixture(scope="module")
def exported(accepted: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that `tracka baseline promote` makes of an accepted campaign."""
    path = tmp_path_factory.mktemp("baselines") / "passed.json"
    ended = accepted.call("baseline", "promote", str(accepted.root), str(path))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{path}: 10 episodes of 2 rows\n"
    return path


def test_a_baseline_has_each_episode_of_the_compared_rows_and_what_played_it(accepted: Made, exported: Path) -> None:
    baseline = schema.read("baseline", exported)
    assert [row["run_id"] for row in baseline["rows"]] == ["long_b1_e6", "wide_b4_e4"]
    manifest = files.read_json(accepted.layout.run("long_b1_e6").manifest)
    first = baseline["rows"][0]
    assert (first["row_hash"], first["engine"]) == (manifest["row_hash"], "lerobot-eval")
    assert first["checkpoint_sha256"] == manifest["checkpoint"]["tree_sha256"]
    assert first["software_sha256"] == baseline["rows"][1]["software_sha256"] is not None
    lines = [*files.read_lines(accepted.layout.run("long_b1_e6").episodes)]
    names = ("suite", "task", "episode", "init_state", "seed", "reset_ordinal", "success")
    assert [[each[name] for name in names] for each in baseline["episodes"][:6]] == [
        [line[name] for name in names] for line in lines
    ]
    assert {(each["length"], each["fixed_start"], each["repeated"]) for each in baseline["episodes"]} == {
        (280, True, None)
    }


def test_a_baseline_is_small_has_a_line_an_episode_and_may_be_read_by_the_team(exported: Path) -> None:
    text = exported.read_text()
    assert sum(line.lstrip().startswith('{"episode":') for line in text.splitlines()) == 10
    assert exported.stat().st_size < 5000
    assert stat.S_IMODE(exported.stat().st_mode) & ~stat.S_IMODE(exported.parent.stat().st_mode) == 0


def test_a_baseline_is_shown_with_its_checkpoint_its_rates_and_its_software(accepted: Made, exported: Path) -> None:
    ended = accepted.call("baseline", "show", str(exported))
    assert ended.returncode == 0, ended.stderr
    head, checkpoint, played_by, task, total, noise = ended.stdout.splitlines()
    assert head.startswith("campaign: promoted 20") and "by Track A" in head
    sha256 = schema.read("baseline", exported)["rows"][0]["checkpoint_sha256"]
    assert checkpoint == f"checkpoint: checkpoints/fake (sha256 {sha256[:12]})"
    assert played_by.startswith("played by: lerobot-eval with egl; ") and "mujoco " in played_by
    successes = sum(each["success"] for each in schema.read("baseline", exported)["episodes"])
    assert task.startswith(f"libero_object 0: {successes}/10 ") and total.startswith(f"all: {successes}/10 ")
    assert noise == "No episode has been played again, so its noise is unknown."


def test_an_edited_baseline_is_refused_wherever_it_is_read(accepted: Made, exported: Path, tmp_path: Path) -> None:
    edited = tmp_path / "edited.json"
    edited.write_text(exported.read_text().replace('"success":false', '"success":true').replace(":280", ":281"))
    for words in (("baseline", "show", str(edited)), ("compare", str(edited), str(accepted.root))):
        ended = accepted.call(*words)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert f"{edited}, key sha256: the baseline was changed after it was made" in ended.stderr
    broken = tmp_path / "broken.json"
    files.write_json(broken, {"kind": baseline_file.KIND})
    ended = accepted.call("baseline", "show", str(broken))
    assert ended.returncode == 2 and "'episodes' is a required property" in ended.stderr


def test_a_campaign_that_is_not_accepted_is_not_promoted(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    made = campaigns.below_threshold(tmp_path_factory.getbasetemp())
    ended = made.call("baseline", "promote", str(made.root), str(tmp_path / "new.json"))
    assert (ended.returncode, ended.stdout, [*tmp_path.iterdir()]) == (1, "", [])
    head, *findings = ended.stderr.splitlines()
    assert "the campaign is not accepted" in head and any("phase4" in finding for finding in findings)


def test_a_promotion_replaces_an_older_baseline_and_nothing_else(
    accepted: Made, exported: Path, tmp_path: Path
) -> None:
    older, notes = tmp_path / "older.json", tmp_path / "notes.json"
    older.write_bytes(exported.read_bytes().replace(b'"name": "campaign"', b'"name": "older"'))
    notes.write_text("{}")
    baseline = baseline_file.read(exported)
    baseline_file.write(baseline, older)
    assert baseline_file.read(older) == baseline
    for path, what in ((notes, "is not a baseline"), (tmp_path / "none" / "new.json", "does not exist")):
        ended = accepted.call("baseline", "promote", str(accepted.root), str(path))
        assert ended.returncode == 2 and what in ended.stderr
    assert notes.read_text() == "{}"
