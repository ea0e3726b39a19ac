"""A small install: what `tracka verify` needs, and nothing that runs a policy or a simulator."""

import os
import subprocess
import sys
from pathlib import Path

import distributions
import pytest
from stored_campaign import campaign_copy

from tracka.bundles import bundle
from tracka.bundles.bundle import BundleOptions

MOST_MEGABYTES = 60
UV = Path(sys.executable).with_name("uv")


def run(*words: object, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, words)], cwd=cwd, env=environ or None, capture_output=True, text=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel and what it asks for without extras."""
    folder = tmp_path_factory.mktemp("small")
    (wheel,) = distributions.build(folder, "--wheel").glob("*.whl")
    made = run(UV, "venv", "--python", Path(sys.executable).resolve(), folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stderr
    installed = run(UV, "pip", "install", "--python", folder / "venv" / "bin" / "python", wheel, cwd=folder)
    if "Failed to fetch" in installed.stderr or "error sending request" in installed.stderr:
        pytest.skip("no package index can be reached")
    assert installed.returncode == 0, installed.stderr
    return folder / "venv"


@pytest.mark.slow
def test_the_install_is_small(small: Path) -> None:
    size = sum(path.lstat().st_size for path in small.rglob("*") if not path.is_symlink())
    assert size / 1e6 < MOST_MEGABYTES
    packages = {path.name.partition("-")[0] for path in (small / "lib" / "python3.12" / "site-packages").iterdir()}
    assert not packages & {"torch", "lerobot", "mujoco", "numpy", "scipy", "av", "pytest"}


@pytest.mark.slow
@pytest.mark.parametrize("with_videos", [True, False])
def test_a_bundle_is_verified_there(small: Path, tmp_path: Path, with_videos: bool) -> None:
    options = BundleOptions(output=tmp_path / "bundle.tar", with_videos=with_videos)
    file = bundle.write(campaign_copy(tmp_path / "stored"), options)
    environ = {"HOME": str(tmp_path), "PATH": os.defpath}
    ended = run(small / "bin" / "tracka", "verify", file, cwd=tmp_path, **environ)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith("verdict: accepted\n")
    assert "it needs" not in ended.stdout  # no contract was left unheld for want of a package


@pytest.mark.slow
def test_what_is_forged_is_found_there_too(small: Path, tmp_path: Path) -> None:
    from forger import Forger
    from forgeries import videos_of_two_episodes_exchanged

    forger = Forger(campaign_copy(tmp_path / "stored"))
    videos_of_two_episodes_exchanged(forger)
    forger.seal()
    file = bundle.write(forger.root, BundleOptions(output=tmp_path / "bundle.tar"))
    ended = run(small / "bin" / "tracka", "verify", file, cwd=tmp_path, HOME=str(tmp_path), PATH=os.defpath)
    assert ended.returncode == 1 and "the video has 101 frames, but the episode has 120" in ended.stderr
