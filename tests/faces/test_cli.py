"""The `tracka` command as a shell sees it: exit codes, what stands on stderr, and what is on disk afterwards."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import campaigns
import pytest
from campaigns import ROWS, SETTINGS, Made, contents, run_words

from tracka.core import files
from tracka.gates import validate
from tracka.runs import row_state, run


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, subprocess.CompletedProcess[str]]:
    """A campaign after `tracka run` in a shell whose umask lets everybody read, and how that ended; for readers, and
    for copies."""
    made = campaigns.make(tmp_path_factory.mktemp("ran") / "campaign")
    made.behave(long_b1_e6=["ok:3"])
    before = os.umask(0o022)
    try:
        return made, made.tracka(*run_words(made))
    finally:
        os.umask(before)


@pytest.fixture
def again(ran: tuple[Made, subprocess.CompletedProcess[str]], tmp_path: Path) -> Made:
    """A copy of that campaign."""
    return campaigns.copied(ran[0], tmp_path)


# run


def test_a_run_that_passes_exits_with_0_and_leaves_its_evidence(
    ran: tuple[Made, subprocess.CompletedProcess[str]],
) -> None:
    made, ended = ran
    assert (ended.returncode, ended.stdout) == (0, "long_b1_e6: pass, 3 of 6 episodes succeeded\n"), ended.stderr
    folder = made.layout.run("long_b1_e6")
    assert files.read_json(folder.result)["success_rate"] == 0.5
    assert files.read_json(folder.manifest)["env"]["CUDA_VISIBLE_DEVICES"] == ""
    assert files.read_json(made.layout.marker("long_b1_e6"))["status"] == "pass"


def test_a_run_folder_holds_the_plans_files_and_no_litter(ran: tuple[Made, subprocess.CompletedProcess[str]]) -> None:
    assert sorted(path.name for path in ran[0].layout.run("long_b1_e6").path.iterdir()) == [
        "attempts",
        "episodes.jsonl",
        "result.json",
        "run_manifest.json",
        "stderr.log",
        "stdout.log",
    ]


def test_everything_that_a_run_leaves_is_private_to_the_user(
    ran: tuple[Made, subprocess.CompletedProcess[str]],
) -> None:
    made, _ = ran
    ours = [made.layout.artifacts, *made.layout.artifacts.rglob("*")]
    assert any(path.suffix == ".mp4" for path in ours)  # of the child too
    assert [str(path) for path in ours if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_a_run_that_fails_exits_with_1_and_leaves_its_evidence(made: Made) -> None:
    made.behave(long_b1_e6=["crash"])
    ended = made.tracka(*run_words(made))
    assert ended.returncode == 1
    assert ended.stdout.startswith("long_b1_e6: fail")
    assert files.read_json(made.layout.run("long_b1_e6").result)["reason"] == "crash"


@pytest.mark.parametrize("index", ["0", "1"])
def test_a_run_is_tried_once_and_its_retry_index_is_recorded_as_given(made: Made, index: str) -> None:
    made.behave(long_b1_e6=["crash", "ok:3"])
    made.call(*run_words(made, "--retry-index", index, "--dry-run"))
    dry = files.read_json(made.layout.run("long_b1_e6").manifest)
    assert made.call(*run_words(made, "--retry-index", index)).returncode == 1
    assert made.started() == ["long_b1_e6"]
    manifest = files.read_json(made.layout.run("long_b1_e6").manifest)
    marker = files.read_json(made.layout.marker("long_b1_e6"))
    assert [each["retry_index"] for each in (dry, manifest, marker)] == [int(index)] * 3


def test_a_backend_that_preflight_did_not_choose_is_refused_with_2_and_starts_nothing(ready: Made) -> None:
    before = contents(ready.layout.artifacts)
    for more in ((), ("--dry-run",)):
        ended = ready.call(*run_words(ready, *more, mujoco_gl="osmesa"))
        assert ended.returncode == 2
        assert "error: --mujoco-gl osmesa: preflight, the check of this host, decided for egl (" in ended.stderr
        assert "Pass --mujoco-gl egl, or run preflight again" in ended.stderr
    assert contents(ready.layout.artifacts) == before


def test_without_a_backend_that_renders_no_run_starts_and_the_blocker_is_named(ready: Made) -> None:
    report = files.read_json(ready.layout.preflight_report)
    files.write_json(
        ready.layout.preflight_report, report | {"mujoco_gl_effective": None, "blocker": "rendering: no GL"}
    )
    ended = ready.call(*run_words(ready))
    assert (ended.returncode, ready.started()) == (2, [])
    assert "preflight found no backend that renders: rendering: no GL" in ended.stderr


def test_a_run_says_whether_a_preflight_has_confirmed_its_backend(ready: Made) -> None:
    assert ready.call(*run_words(ready, "--dry-run")).stderr == ""
    report = files.read_json(ready.layout.preflight_report)
    files.write_json(ready.layout.preflight_report, report | {"status": "blocked", "blocker": "gpus: 0 visible"})
    assert "warning: preflight is blocked: gpus: 0 visible" in ready.call(*run_words(ready, "--dry-run")).stderr
    ready.layout.preflight_report.unlink()
    doubt = "warning: no preflight has run here, so nothing confirms that egl renders on this host"
    assert doubt in ready.call(*run_words(ready, "--dry-run")).stderr


@pytest.fixture
def elsewhere(ready: Made, tmp_path: Path) -> Path:
    """A folder to stand in that has a folder of the matrix's name, too: `checkpoints/fake`, with other weights."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(ready.root / "checkpoints", folder / "checkpoints")
    (folder / "checkpoints" / "fake" / "note.txt").write_text("another checkpoint")
    return folder


@pytest.mark.parametrize(
    "word", ["checkpoints/fake", "{root}/checkpoints/fake", "{root}/checkpoints/../checkpoints/fake/"]
)
def test_a_folder_of_the_matrix_is_the_matrixs_wherever_the_run_is_called(
    ready: Made, elsewhere: Path, word: str
) -> None:
    words = run_words(ready, policy_path=word.format(root=ready.root))
    assert ready.call(*words, cwd=elsewhere).returncode == 0
    manifest = files.read_json(ready.layout.run("long_b1_e6").manifest)
    assert (manifest["policy_path"], manifest["checkpoint"]["folder"]) == ("checkpoints/fake", "checkpoints/fake")
    assert validate.row_contract_findings(ready.spec, ready.spec.row("long_b1_e6"), "evidence") == []


def test_another_folder_is_relative_to_where_the_user_stands(ready: Made, elsewhere: Path) -> None:
    assert ready.call(*run_words(ready, policy_path="./checkpoints/fake"), cwd=elsewhere).returncode == 0
    manifest = files.read_json(ready.layout.run("long_b1_e6").manifest)
    assert manifest["policy_path"] == str(elsewhere / "checkpoints" / "fake")


def test_a_run_folder_that_exists_is_refused_with_2_and_nothing_is_written(again: Made) -> None:
    before, started = contents(again.layout.runs), again.started()
    ended = again.tracka(*run_words(again))
    assert (ended.returncode, ended.stdout) == (2, "")
    where = again.layout.run("long_b1_e6").path
    assert f"error: {where}: the run folder exists. Choose another run id, or pass --allow-overwrite" in ended.stderr
    assert (contents(again.layout.runs), again.started()) == (before, started)
    assert files.read_json(again.layout.marker("long_b1_e6"))["status"] == "pass"


def test_somebody_elses_folder_in_the_way_is_refused_and_left_alone(made: Made) -> None:
    files.write_text(made.layout.run("long_b1_e6").path / "notes.txt", "mine")
    assert made.call(*run_words(made)).returncode == 2
    assert contents(made.layout.runs) == {"long_b1_e6": None, "long_b1_e6/notes.txt": b"mine"}
    assert made.started() == []


def test_overwriting_runs_again_and_keeps_the_first_attempt(again: Made) -> None:
    assert again.call(*run_words(again, "--allow-overwrite")).returncode == 0
    assert again.started() == ["long_b1_e6"] * 2
    assert again.layout.run("long_b1_e6").numbers() == [1, 2]


def test_a_dry_run_writes_a_flagged_manifest_and_starts_nothing(made: Made) -> None:
    ended = made.call(*run_words(made, "--dry-run"))
    assert ended.returncode == 0, ended.stderr
    assert "--env.task=libero_object" in ended.stdout
    assert list(contents(made.layout.runs)) == ["long_b1_e6", "long_b1_e6/run_manifest.json"]
    manifest = files.read_json(made.layout.run("long_b1_e6").manifest)
    assert (manifest["dry_run"], manifest["outcome"]) == (True, None)
    assert made.started() == []
    assert not made.layout.marker("long_b1_e6").exists()


def test_a_dry_preflight_says_what_it_would_check_and_writes_nothing(made: Made) -> None:
    ended = made.call(*made.preflight_words("--dry-run", gpu_ids="0,1"))
    assert ended.returncode == 0
    assert "would check 2 GPUs, render libero_object with egl, resolve checkpoints/fake" in ended.stdout
    assert not made.layout.preflight.exists()


def test_a_dry_run_says_the_command_that_the_real_run_has(made: Made) -> None:
    said = made.call(*run_words(made, "--dry-run")).stdout
    made.call(*run_words(made))
    assert said.strip() == " ".join(files.read_json(made.layout.run("long_b1_e6").manifest)["command"])


def test_a_dry_run_neither_blocks_itself_nor_the_real_run(made: Made) -> None:
    for _ in range(2):
        assert made.call(*run_words(made, "--dry-run")).returncode == 0
    assert made.call(*run_words(made)).returncode == 0
    assert files.read_json(made.layout.run("long_b1_e6").manifest)["dry_run"] is False


def test_a_dry_run_of_a_run_that_exists_is_refused_and_changes_nothing(again: Made) -> None:
    before = contents(again.layout.runs)
    assert again.call(*run_words(again, "--dry-run")).returncode == 2
    assert again.call(*run_words(again, "--dry-run", "--allow-overwrite")).returncode == 0
    assert contents(again.layout.runs) == before


def test_bad_values_are_refused_together_with_2_before_anything_is_written(made: Made) -> None:
    ended = made.tracka(*run_words(made, run_id="../x", task_suite="moon", gpu_id="-7", mujoco_gl="wgl"))
    assert ended.returncode == 2
    for column in ("run_id", "task_suite", "gpu_id", "mujoco_gl"):
        assert f"error: command line, column {column}: " in ended.stderr
    assert not made.layout.artifacts.exists()


@pytest.mark.parametrize("changed", [{"batch_size": "0"}, {"n_episodes": "x"}, {"seed": "-1"}, {"retry_index": "2"}])
def test_numbers_out_of_range_are_refused_with_2(made: Made, changed: dict[str, str]) -> None:
    ended = made.call(*run_words(made, **changed))
    assert ended.returncode == 2
    assert f"--{next(iter(changed)).replace('_', '-')}" in ended.stderr


def test_a_missing_checkpoint_exits_with_1_and_the_folder_it_looked_for(made: Made) -> None:
    ended = made.call(*run_words(made, policy_path="checkpoints/none"))
    assert ended.returncode == 1
    assert (
        f"error: checkpoints/none: there is no folder {made.root}/checkpoints/none. Copy the checkpoint" in ended.stderr
    )
    assert made.started() == []


def test_a_flag_that_lerobot_eval_lacks_exits_with_3_and_its_name(make_campaign: Callable[..., Made]) -> None:
    made = make_campaign(ROWS, SETTINGS.replace("[timeouts]", "flags = { 'eval.colour' = 1 }\n[timeouts]"))
    ended = made.call(*run_words(made))
    assert ended.returncode == 3
    assert "error: --eval.colour: lerobot " in ended.stderr
    assert "has no such flag. Remove the flag from campaign.toml" in ended.stderr
    assert not made.layout.runs.exists()


def test_a_row_that_runs_elsewhere_exits_with_5(made: Made) -> None:
    with row_state.lock(made.layout, "long_b1_e6"):
        ended = made.call(*run_words(made))
    assert ended.returncode == 5
    assert "row long_b1_e6 is held by process" in ended.stderr


def test_the_timeout_on_the_command_line_stands_over_the_campaigns(make_campaign: Callable[..., Made]) -> None:
    made = make_campaign(ROWS, SETTINGS + "[rows.long_b1_e6]\ntimeout_secs = 50\n")
    made.call(*run_words(made, "--dry-run", "--timeout-secs", "7"))
    assert files.read_json(made.layout.run("long_b1_e6").manifest)["timeout_secs"] == 7


def test_a_run_takes_its_other_settings_from_the_campaign_around_it(make_campaign: Callable[..., Made]) -> None:
    made = make_campaign(ROWS, SETTINGS + "[rows.long_b1_e6]\ntask_ids = [4, 2]\n")
    assert made.call(*run_words(made)).returncode == 0
    result = run.read_result(made.layout, "long_b1_e6")
    assert result is not None
    assert sorted(task["task_id"] for task in result["per_task"]) == [2, 4]


# validate


def test_validate_passes_what_is_there_and_names_what_is_not(ready: Made) -> None:
    assert ready.call("validate", "--phase", "phase2", "--root", str(ready.root)).returncode == 0
    ended = ready.call("validate", "--phase", "phase3", "--root", str(ready.root))
    assert ended.returncode == 1
    assert f"{ready.layout.handoff('phase3')}: the handoff of phase3 does not exist. Run phase3: pytest" in ended.stderr


def test_validate_fails_a_phase_whose_predecessor_is_missing(ready: Made) -> None:
    ready.layout.handoff("phase1").unlink()
    ended = ready.call("validate", "--phase", "phase2", "--root", str(ready.root))
    assert ended.returncode == 1
    assert str(ready.layout.handoff("phase1")) in ended.stderr


def test_validate_refuses_an_unknown_phase_with_2(made: Made) -> None:
    ended = made.tracka("validate", "--phase", "phase6", "--root", str(made.root))
    assert ended.returncode == 2
    assert "error: --phase: 'phase6' is unknown. Use one of phase1, phase2" in ended.stderr


def test_validate_refuses_what_is_no_campaign_with_2(tmp_path: Path, made: Made) -> None:
    ended = made.call("validate", "--phase", "all", "--root", str(tmp_path / "none"))
    assert ended.returncode == 2
    assert "this is not a campaign: there is no such folder. Name a campaign's folder" in ended.stderr


# collect


def collect_words(made: Made, folder: Path) -> list[str]:
    names = {"summary-csv": "all.csv", "summary-md": "all.md", "failures-csv": "failures.csv"}
    return [
        *("collect", "--runs-root", str(made.layout.runs)),
        *(word for option, name in names.items() for word in (f"--{option}", str(folder / name))),
    ]


def test_collect_writes_its_three_tables_and_exits_with_0(made: Made, tmp_path: Path) -> None:
    ended = made.call(*collect_words(made, tmp_path / "out"))
    assert (ended.returncode, ended.stdout) == (0, f"3 runs in {tmp_path}/out/all.csv\n"), ended.stderr
    assert sorted(contents(tmp_path / "out")) == ["all.csv", "all.md", "failures.csv"]


def test_collect_into_the_baselines_summary_writes_what_phase_3_accepts(ready: Made) -> None:
    baseline = ready.spec.baseline
    names = [
        word
        for kind in ("csv", "md")
        for word in (f"--summary-{kind}", str(ready.layout.summary / f"baseline_summary.{kind}"))
    ]
    assert ready.call("collect", "--runs-root", str(ready.layout.runs), *names).returncode == 0
    assert validate.contract_findings(ready.spec, "phase3", "baseline_summary") == []
    lines = (ready.layout.summary / "baseline_summary.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["run_id", baseline]


def test_collect_refuses_a_broken_campaign_with_2_and_writes_nothing(made: Made, tmp_path: Path) -> None:
    made.layout.settings.write_text("not TOML")
    ended = made.call(*collect_words(made, tmp_path / "out"))
    assert ended.returncode == 2
    assert "campaign.toml: this is not TOML" in ended.stderr
    assert not (tmp_path / "out").exists()


# discover


def test_discover_asks_the_campaigns_own_program(made: Made) -> None:
    ended = made.tracka("discover", "--artifacts-dir", str(made.layout.state), "--python-bin", sys.executable)
    assert ended.returncode == 0, ended.stderr
    assert "--eval.batch_size" in files.read_json(made.layout.capabilities)["supported_flags"]


def test_a_dry_discover_names_the_program_and_writes_nothing(made: Made) -> None:
    words = ("discover", "--artifacts-dir", str(made.layout.state), "--python-bin", sys.executable, "--dry-run")
    ended = made.call(*words)
    assert ended.returncode == 0
    assert "lerobot_eval.py" in ended.stdout
    assert not made.layout.artifacts.exists()


def test_discover_with_a_python_that_does_not_exist_exits_with_3(made: Made) -> None:
    ended = made.call("discover", "--artifacts-dir", str(made.layout.state), "--python-bin", "/none/python")
    assert ended.returncode == 3
    assert "error: --python-bin: the program '/none/python' does not exist. Name an installed Python" in ended.stderr
    assert not made.layout.capabilities.exists()


def test_discover_in_a_folder_without_lerobot_eval_exits_with_3(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(python.parent))
    bare = tmp_path / "bare" / "artifacts" / "state"
    ended = made.call("discover", "--artifacts-dir", str(bare), "--python-bin", str(python))
    assert ended.returncode == 3
    assert f"error: {python.parent}/lerobot-eval: lerobot-eval is not installed. Run `make setup`" in ended.stderr
    assert not (bare / "cli_capabilities.json").exists()


def test_discover_with_a_program_that_fails_exits_with_3(made: Made, tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    program = python.with_name("lerobot-eval")
    program.write_text("#!/bin/sh\necho 'ImportError: no torch' >&2\nexit 1\n")
    program.chmod(0o755)
    bare = tmp_path / "bare" / "artifacts" / "state"
    ended = made.call("discover", "--artifacts-dir", str(bare), "--python-bin", str(python))
    assert ended.returncode == 3
    assert f"error: {program}: lerobot-eval --help printed no help, exit code 1: ImportError: no torch" in ended.stderr
    assert not (bare / "cli_capabilities.json").exists()


# all


@pytest.mark.parametrize("command", ["init", "schema", "discover", "preflight", "run", "collect", "validate", "power"])
def test_every_command_has_help_and_refuses_an_unknown_option_with_2(made: Made, command: str) -> None:
    assert made.call(command, "--help").returncode == 0
    assert made.call(command, "--colour").returncode == 2


def test_help_and_an_unknown_option_are_the_same_in_a_shell(made: Made) -> None:
    for words in (["run", "--help"], ["run", "--colour"]):
        here, there = made.call(*words), made.tracka(*words)
        assert (there.returncode, bool(there.stdout), bool(there.stderr)) == (
            here.returncode,
            bool(here.stdout),
            bool(here.stderr),
        )


def test_no_error_is_a_traceback(made: Made) -> None:
    shutil.rmtree(made.root / "configs")
    for words in (run_words(made), ["validate", "--phase", "all", "--root", str(made.root)]):
        assert "Traceback" not in made.call(*words).stderr


def test_collect_refuses_one_file_for_two_tables_with_2(made: Made) -> None:
    target = made.root / "table"
    words = ("--summary-csv", str(target), "--summary-md", str(target))
    ended = made.call("collect", "--runs-root", str(made.layout.runs), *words)
    assert ended.returncode == 2 and "two tables have the same file" in ended.stderr
    assert not target.exists()


def test_preflight_wants_the_gpus_of_the_campaign_around_it(make_campaign: Callable[..., Made]) -> None:
    made = make_campaign(settings=SETTINGS.replace("expected_gpus = 0", "expected_gpus = 2"))
    ended = made.call(*made.preflight_words())
    assert ended.returncode == 1
    assert "fail  gpus: 0 visible, 2 expected; missing: GPU 0, GPU 1" in ended.stdout


def test_a_dry_preflight_and_a_dry_collect_write_nothing(made: Made) -> None:
    before = contents(made.root)
    ended = made.call(*made.preflight_words("--dry-run"))
    assert ended.returncode == 0 and "preflight.json" in ended.stdout
    tables = ("--summary-csv", str(made.root / "a.csv"), "--summary-md", str(made.root / "a.md"))
    ended = made.call("collect", "--runs-root", str(made.layout.runs), *tables, "--dry-run")
    assert ended.returncode == 0 and "would write 3 runs" in ended.stdout
    assert contents(made.root) == before
