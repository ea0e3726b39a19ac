"""runbook.md and results.md: what ran, how to run it again, what came out."""

import re
import shlex

import pytest
from campaigns import Made

from tracka.core import files
from tracka.reporting import report

SETUP = (
    "python3.12 -m tracka setup --env-name vla_pi0 --python-version 3.12 --artifacts-dir tasks/x/artifacts/preflight"
)


@pytest.fixture
def partial(ready: Made) -> Made:
    """A campaign whose rows have all run, one of them in vain."""
    ready.behave(long_b1_e6=["crash"], wide_b4_e4=["oom", "ok:1"])
    for row in ready.spec.enabled:
        ready.run_row(row.run_id)
    report.write(ready.spec)
    return ready


def section(made: Made, heading: str) -> str:
    """The runbook's text under a heading."""
    (text,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", made.layout.runbook.read_text(), re.MULTILINE | re.DOTALL)
    return str(text)


def test_the_runbook_tells_the_set_ups_that_were_run(ready: Made) -> None:
    log = ready.layout.preflight / "setup.log"
    failed = SETUP.replace("vla_pi0", "broken")
    log.write_text(f"2026-01-01T00:00:00Z begins: {failed}\nerror: no space\n")
    with log.open("a") as file:
        for day in (1, 2):  # the second finds nothing to install
            file.write(f"2026-01-0{day}T00:00:00Z begins: {SETUP}\n2026-01-0{day}T00:01:00Z made .venv-x: {SETUP}\n")
    report.write(ready.spec)
    text = section(ready, "Set-up")
    assert text.count(SETUP) == 1 and failed not in text and "source .venv-x/bin/activate" in text
    log.write_text("this environment came from elsewhere\n")
    report.write(ready.spec)
    assert "`tracka setup` did not make this environment" in section(ready, "Set-up")


def test_baseline_and_sweep_are_told_apart_each_with_the_commands_that_ran(partial: Made) -> None:
    for heading, run_ids in {"Baseline": ["baseline_b1_e2"], "Sweep": ["long_b1_e6", "wide_b4_e4"]}.items():
        commands = [line for line in section(partial, heading).splitlines() if line.startswith("cd ")]
        assert [line.rpartition("replays/")[2] for line in commands] == run_ids
        for line, run_id in zip(commands, run_ids, strict=True):
            command = files.read_json(partial.layout.run(run_id).manifest)["command"]
            ran = [word for word in command if not word.startswith("--output_dir")]
            assert [word for word in ran if word not in shlex.split(line)] == []


def test_what_failed_has_its_reason_and_a_command_that_runs_it_alone(partial: Made) -> None:
    text = section(partial, "To rerun failed rows")
    (command,) = [line for line in text.splitlines() if line.startswith("tracka sweep")]
    assert "--rows long_b1_e6 " in command and "`long_b1_e6`: crash" in text
    partial.behave()
    ended = partial.tracka(*shlex.split(command)[1:])
    assert ended.returncode == 0, ended.stderr
    assert partial.started()[-1] == "long_b1_e6"


def test_the_sweep_of_the_runbook_names_every_enabled_row(partial: Made) -> None:
    (command,) = [line for line in section(partial, "Sweep").splitlines() if line.startswith("tracka sweep")]
    assert "--rows baseline_b1_e2,long_b1_e6,wide_b4_e4 " in command


def test_the_runbook_says_what_may_be_pruned_and_what_that_saves(partial: Made) -> None:
    (partial.layout.run("wide_b4_e4").attempt(2).output / "long.mp4").write_bytes(bytes(3_000_000))
    report.write(partial.spec)
    text = section(partial, "Disk")
    whole, videos = map(float, re.findall(r"([\d.]+) MB", text))
    assert (whole >= videos, videos) == (True, 3.0)
    assert "-name '*.mp4' -delete" in text


def test_the_results_tell_checkpoint_backend_places_and_caveats(partial: Made) -> None:
    text = partial.layout.results.read_text()
    tree = files.read_json(partial.layout.run("wide_b4_e4").manifest)["checkpoint"]["tree_sha256"]
    for words in (tree, "`MUJOCO_GL=egl`", "summary/all_runs.csv", "`long_b1_e6`: crash"):
        assert words in text
    assert "`wide_b4_e4` ran with batch size 2 instead of 4" in text
    assert "3 of 3 enabled rows ran, 2 are complete" in text
