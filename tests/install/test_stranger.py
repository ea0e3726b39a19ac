"""A user without a checkout: the wheel in a fresh environment, `tracka setup`, and the gates outside of a repository.

`lerobot-eval` is a stand-in; lerobot, LIBERO and everything else of the environment are real.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import campaigns
import distributions
import pytest
from campaigns import REPOSITORY, SETTINGS, STANDIN, Made
from packaging.utils import canonicalize_name
from packaging.version import Version

from tracka.install import own_package, user_lock

LOCK_TEXT = (REPOSITORY / "requirements.lock").read_text()
PINS = re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK_TEXT, re.MULTILINE)
LOCK = {name: Version(version) for name, version in PINS}
UNREACHABLE = ("Failed to fetch", "error sending request", "No matching distribution found for filelock")
STANDINS = {"PYTHONPATH": str(STANDIN)}  # comes after a campaign's variables, which name this repository too
LONG, WIDE = "long_b1_e6", "wide_b4_e4"
THRESHOLD = "\n[thresholds]\nmin_success_rate = 0.9\n\n[thresholds.rows]\nbaseline_b1_e2 = 0.0\n"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Stranger:
    """A user's environment and the folder in which the user stands, without a repository around it."""

    venv: Path
    folder: Path

    def run(self, program: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment as an activated shell does, with nothing of this repository in sight."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TRACKA_"))}
        kept |= {"PATH": f"{self.venv / 'bin'}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(self.venv)}
        kept.pop("PYTHONPATH", None)
        command = [str(self.venv / "bin" / program), *words]
        return subprocess.run(command, cwd=self.folder, env=kept | variables, capture_output=True, text=True)

    def campaign(self, name: str, settings: str = "") -> Made:
        """Makes a campaign with a stand-in for lerobot-eval that runs in this environment."""
        text = SETTINGS.replace(json.dumps(sys.executable), json.dumps(str(self.venv / "bin" / "python")))
        return campaigns.make(self.folder / name, settings=text + settings)

    def gates(self, made: Made, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs the gates as the documentation has them, from the user's folder."""
        variables: Mapping[str, str] = {**made.environ, **STANDINS}
        return self.run("pytest", "--pyargs", "tracka.acceptance", "--campaign", made.root.name, *words, **variables)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with wheel and source distribution."""
    return distributions.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def stranger(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    """A user who has installed the wheel and run `tracka setup`; both environments are removed at the end."""
    top = tmp_path_factory.mktemp("stranger")
    user = Stranger(top / "env", top / "work")
    user.folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(user.venv)], check=True)
    installed = user.run("pip", "install", str(next(dist.glob("*.whl"))))
    if any(words in installed.stderr + installed.stdout for words in UNREACHABLE):
        pytest.skip("did not run: no package index can be reached")
    assert installed.returncode == 0, installed.stderr
    made = user.run("tracka", "setup")
    if any(words in made.stderr for words in UNREACHABLE):
        pytest.skip("did not run: no package index can be reached")
    assert made.returncode == 0, made.stdout + made.stderr
    yield user
    shutil.rmtree(top)


def frozen(user: Stranger) -> dict[str, Version]:
    """Returns the versions in the environment by their names, as `tracka setup` has recorded them."""
    lines = (user.venv / "share" / "tracka" / "pip_freeze.txt").read_text().splitlines()
    pairs = (line.partition("==") for line in lines)
    return {canonicalize_name(name): Version(version) for name, _, version in pairs}


@pytest.mark.dose
def test_the_environment_has_the_versions_of_the_lock(stranger: Stranger) -> None:
    there = frozen(stranger)
    users = user_lock.versions(user_lock.for_users(LOCK_TEXT, own_package.requirements()))
    assert {name: there.get(name) for name in users} == {name: LOCK[canonicalize_name(name)] for name in users}
    assert there.keys() - users.keys() == {"tracka", "pip", "lerobot-policy-replay"}


@pytest.mark.dose
def test_the_gates_accept_a_campaign_outside_of_a_repository(stranger: Stranger) -> None:
    """One row fails, then `--lf` runs it alone; the pages name commands that work where the user stands."""
    made = stranger.campaign("failing", THRESHOLD)
    made.behave(**{LONG: ["exit:1", "exit:1", "ok:6"], WIDE: ["ok:4"]})
    failed = stranger.gates(made, "-n", "2")
    assert failed.returncode == 1 and f"test_row[{LONG}]" in failed.stdout, failed.stdout + failed.stderr
    started = made.started()
    again = stranger.gates(made, "-n", "2", "--lf")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "verdict: accepted (strict validation of all phases)" in again.stdout
    assert made.started()[len(started) :] == [LONG]
    words = ("validate", "--phase", "all", "--root", "failing", "--strict")
    strict = stranger.run("tracka", *words, **{**made.environ, **STANDINS})
    assert strict.returncode == 0, strict.stderr
    pages = "".join(path.read_text() for path in (made.layout.runbook, made.layout.plan, made.layout.todo))
    assert f"pytest --pyargs tracka.acceptance --campaign {made.root}" in pages
    assert "pytest acceptance" not in pages and "make setup" not in pages
    assert "tracka setup" in made.layout.runbook.read_text()


@pytest.mark.dose
def test_the_five_commands_of_the_page_lead_to_an_accepted_campaign(stranger: Stranger) -> None:
    """The first two have run: the fixture is what they leave. Of the rest only lerobot-eval is another."""
    page = (REPOSITORY / "docs" / "install.md").read_text()
    (block,) = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    install, setup, init, gates, report = map(str.split, block.splitlines())
    assert install[:2] == ["pip", "install"] and setup == ["tracka", "setup"]
    campaigns.fake_checkpoint(stranger.folder / "outputs" / "my_policy")
    assert stranger.run(*init).returncode == 0
    settings = stranger.folder / "my-campaign" / "configs" / "campaign.toml"
    made = stranger.campaign("stand-in")
    (executable,) = [line for line in made.layout.settings.read_text().splitlines() if line.startswith("executable")]
    settings.write_text(f"{executable}\n{settings.read_text()}")
    made.behave(**{f"object_t{task}_b10_e50": ["ok:50"] for task in range(10)})
    variables = {**made.environ, **STANDINS, "TRACKA_PRETEND_GPUS": "1"}
    variables["TRACKA_GPU_LOCKS"] = str(stranger.folder / "locks")
    ended = stranger.run(*gates, **variables)
    assert ended.returncode == 0 and "verdict: accepted" in ended.stdout, ended.stdout + ended.stderr
    assert stranger.run(*report, **variables).returncode == 0
    third = stranger.run(*gates, "-m", "phase3", **variables)
    assert third.returncode == 0 and "phase3: pass" in third.stdout, third.stdout
    for words in (("bundle", "my-campaign"), ("verify", "my-campaign.tar"), ("summary", "my-campaign")):
        ended = stranger.run("tracka", *words, **variables)
        assert ended.returncode == 0, f"{words}: {ended.stdout}{ended.stderr}"


def test_a_conftest_of_three_lines_loads_the_gates_where_plug_ins_are_not_loaded_by_themselves(
    stranger: Stranger,
) -> None:
    made = stranger.campaign("third")
    page = (REPOSITORY / "docs" / "install.md").read_text()
    (conftest,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (made.root.parent / "conftest.py").write_text(conftest)
    words = ("--pyargs", "tracka.acceptance", "--campaign", "third", "--collect-only", "-q")
    ended = stranger.run("pytest", *words, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", PYTEST_PLUGINS="xdist,pytest_timeout")
    (made.root.parent / "conftest.py").unlink()
    assert ended.returncode == 0 and f"test_row[{WIDE}]" in ended.stdout, ended.stdout + ended.stderr


def test_a_second_set_up_installs_nothing(stranger: Stranger) -> None:
    ended = stranger.run("tracka", "setup")
    assert ended.returncode == 0 and ended.stdout.startswith("nothing to do: "), ended.stdout + ended.stderr


def test_another_environment_is_made_with_a_copy_of_this_track_a(stranger: Stranger) -> None:
    ended = stranger.run("tracka", "setup", "--venv", "second")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"Next: source {stranger.folder / 'second'}/bin/activate" in ended.stdout
    second = Stranger(stranger.folder / "second", stranger.folder)
    assert {name: version for name, version in frozen(second).items() if name != "pip"} == {
        name: version for name, version in frozen(stranger).items() if name != "pip"
    }
    asked = second.run(
        "python", "-c", "import tracka, tracka.acceptance as gates; print(tracka.__file__, gates.__file__)"
    )
    assert asked.stdout.count(str(second.venv)) == 2, asked.stderr
    assert second.run("tracka", "init", "there", "--smoke").returncode == 0
    shutil.rmtree(second.venv)


def test_a_source_distribution_is_installed_as_the_wheel_is(dist: Path, tmp_path: Path) -> None:
    user = Stranger(tmp_path / "env", tmp_path)
    subprocess.run([sys.executable, "-m", "venv", str(user.venv)], check=True)
    installed = user.run("pip", "install", str(next(dist.glob("*.tar.gz"))))
    if any(words in installed.stderr + installed.stdout for words in UNREACHABLE):
        pytest.skip("did not run: no package index can be reached")
    assert installed.returncode == 0, installed.stderr
    planned = user.run("tracka", "setup", "--dry-run")
    assert f"would complete {user.venv} with {user.venv}/bin/python" in planned.stdout, planned.stderr
