"""The examples for CI: their files follow the schemas of GitHub and GitLab, and their commands do what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import campaigns
import pytest
import yaml
from campaigns import OTHER_WEIGHTS, REPOSITORY, SETTINGS, Made

EXAMPLES = REPOSITORY / "examples"
SCHEMAS = {"github-nightly.yml": "vendor.github-workflows", "gitlab-nightly.yml": "vendor.gitlab-ci"}
TIER = "\n[tiers.nightly]\nepisodes = 20\n\n[rows.wide_b4_e4]\ntask_ids = [1]\n"
DOCTOR, NIGHT = "tracka doctor", "examples/nightly.sh my-policy"


def checked(file: Path, schema: str) -> subprocess.CompletedProcess[str]:
    """Holds a file against a schema that the checker brings along, so that no network is asked."""
    program = Path(sys.executable).with_name("check-jsonschema")
    return subprocess.run([program, "--builtin-schema", schema, file], capture_output=True, text=True)


def commands(name: str) -> list[str]:
    """Returns the commands that the file of an example gives to a shell, in their order."""
    read: dict[str, Any] = yaml.safe_load((EXAMPLES / name).read_text())
    if name.startswith("gitlab"):
        return list(read["nightly"]["script"])
    return [step["run"] for step in read["jobs"]["my-policy"]["steps"] if "run" in step]


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_file_follows_the_schema_of_its_ci(name: str) -> None:
    ended = checked(EXAMPLES / name, SCHEMAS[name])
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [("github-nightly.yml", "runs-on:", "runs-at:"), ("gitlab-nightly.yml", "when: always", "when: sometimes")],
)
def test_a_file_with_a_wrong_key_would_be_found(tmp_path: Path, name: str, good: str, bad: str) -> None:
    text = (EXAMPLES / name).read_text()
    (tmp_path / name).write_text(text.replace(good, bad))
    assert text.count(good) == 1 and checked(tmp_path / name, SCHEMAS[name]).returncode == 1


def test_the_files_run_the_commands_that_the_tests_run() -> None:
    of_runner = 'echo "$HOME/tracka/.venv/bin" >> "$GITHUB_PATH"'
    assert commands("github-nightly.yml") == [of_runner, DOCTOR, NIGHT]
    assert commands("gitlab-nightly.yml") == [DOCTOR, NIGHT]


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_files_that_ci_keeps_are_those_that_a_night_leaves(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    for path in ("artifacts/tiers/nightly", "report-nightly.html"):
        assert f"tasks/my-policy/{path}" in text
    assert "reports/nightly.xml" in text and "baselines/my-policy.json" in text


def night(repository: Path, made: Made) -> subprocess.CompletedProcess[str]:
    """Runs the night's command as a job's shell does."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, **made.environ, "PATH": programs, "PYTHONPATH": str(repository), "WORKERS": "2"}
    return subprocess.run(["bash", "-ec", NIGHT], cwd=repository, env=environ, capture_output=True, text=True)


@pytest.mark.slow
def test_one_night_promotes_the_next_passes_and_a_worse_checkpoint_fails_with_the_sentence(repository: Path) -> None:
    made = campaigns.make(repository / "tasks" / "my-policy", settings=SETTINGS + TIER)
    made.behave(long_b1_e6=["ok:6"], wide_b4_e4=["ok:4"])
    first = night(repository, made)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.endswith("baselines/my-policy.json: 10 episodes of 2 rows\n")
    second = night(repository, made)
    assert second.returncode == 0, second.stdout + second.stderr
    assert re.search(r"B is not shown to be worse than A: 0 losses and 0 gains in \d+ pairs", second.stdout)
    (made.root / "checkpoints" / "fake" / "model.safetensors").write_bytes(OTHER_WEIGHTS)
    made.behave(long_b1_e6=["ok:1"], wide_b4_e4=["ok:4"])
    third = night(repository, made)
    assert third.returncode == 1, third.stdout + third.stderr
    assert re.search(r"B is worse than A: 5 losses and 0 gains in \d+ pairs", third.stdout)
    assert (repository / "tasks" / "my-policy" / "report-nightly.html").is_file()
    assert (repository / "reports" / "nightly.xml").is_file()
