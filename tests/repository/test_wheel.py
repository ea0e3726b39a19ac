"""The wheel: the gates run from another repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import distributions
import pytest
from campaigns import Made


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, as an installation has it."""
    out = tmp_path_factory.mktemp("wheel")
    (wheel,) = distributions.build(out, "--wheel").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(out / "site")
    return out / "site"


def test_the_wheel_ships_gates_schemas_and_templates(installed: Path) -> None:
    package = installed / "tracka"
    assert len(list((package / "acceptance").glob("test_phase*.py"))) == 5
    assert (package / "fixtures" / "tiny_act.py").is_file()
    assert (package / "fixtures" / "demonstrations" / "data" / "libero_object.jsonl").is_file()
    assert (package / "fixtures" / "lerobot_policy_replay" / "pyproject.toml").is_file()
    assert list((package / "core" / "schemas").glob("*.json"))
    assert list((package / "reporting" / "templates").glob("*.j2"))
    assert (package / "install" / "data" / "libero_assets.sha256").is_file()


def test_another_repository_runs_the_gates_on_a_campaign_of_its_own(
    installed: Path, made: Made, tmp_path: Path
) -> None:
    environ = {**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{made.environ['PYTHONPATH'].split(os.pathsep)[0]}"}
    words = ["-p", "tracka.plugin", "-p", "tracka.fixtures.gates", "-p", "no:anyio", "-p", "no:hydra_pytest"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "--pyargs", "tracka.acceptance", "--campaign", str(made.root), "-n2"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "verdict: complete, no threshold set" in ended.stdout
