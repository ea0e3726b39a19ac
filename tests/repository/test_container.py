"""container/Containerfile: its steps run, and what they leave sets a campaign up and draws without a GPU.

Buildah builds the image without a registry: its base is Debian and a Python 3.12 of this machine. As root with buildah
and mmdebstrap (apt-get install buildah mmdebstrap) and a package index; elsewhere the test says that it did not run.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import distributions
import pytest
from campaigns import REPOSITORY

from tracka.core.lerobot_facts import LEROBOT_VERSION

IMAGE, BASE = "localhost/tracka-test", "localhost/tracka-test-base"
ISOLATION = ("--isolation", "chroot")
LIBRARIES = "ca-certificates,libssl3,libffi8,zlib1g,libbz2-1.0,liblzma5,libsqlite3-0,libreadline8,libuuid1"
BASE_FILE = "FROM scratch\nCOPY rootfs/ /\nENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
pytestmark = [pytest.mark.slow, pytest.mark.repeated, pytest.mark.timeout(3600)]


def run(*words: object, cwd: Path) -> str:
    ended = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True)
    assert ended.returncode == 0, f"{words}\n{ended.stdout[-3000:]}{ended.stderr[-3000:]}"
    return ended.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of the built image, which is removed at the end with its base."""
    missing = [name for name in ("buildah", "mmdebstrap") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"did not run: needs root, and the programs {', '.join(missing) or 'are here'}")
    folder = tmp_path_factory.mktemp("container")
    (folder / "rootfs").mkdir()
    run("mmdebstrap", "--variant=minbase", f"--include={LIBRARIES}", "bookworm", "base.tar", cwd=folder)
    run("tar", "--extract", "--file=base.tar", "--directory=rootfs", cwd=folder)
    shutil.copytree(sys.base_prefix, folder / "rootfs" / "usr" / "local", symlinks=True, dirs_exist_ok=True)
    if CERTIFICATES.is_file():
        shutil.copy(CERTIFICATES, folder / "rootfs" / str(CERTIFICATES.relative_to("/")))
    run("chroot", "rootfs", "ldconfig", cwd=folder)
    (folder / "Base").write_text(BASE_FILE)
    run("buildah", "bud", *ISOLATION, "--layers=false", "--tag", BASE, "--file", "Base", ".", cwd=folder)
    shutil.rmtree(folder / "rootfs")
    wheels = distributions.build(folder / "dist", "--wheel")
    words = ["--layers=false", "--network", "host", "--build-arg", f"BASE={BASE}"]
    if Path("/etc/pip.conf").is_file():
        words += ["--volume", "/etc/pip.conf:/etc/pip.conf:ro"]
    file = REPOSITORY / "container" / "Containerfile"
    run("buildah", "bud", *ISOLATION, *words, "--tag", IMAGE, "--file", file, wheels, cwd=folder)
    yield IMAGE
    run("buildah", "rmi", IMAGE, BASE, cwd=folder)


DRAW = """
import lerobot, mujoco
xml = '<mujoco><worldbody><light pos="0 0 3"/><geom type="sphere" size=".3" rgba="1 0 0 1"/></worldbody></mujoco>'
model = mujoco.MjModel.from_xml_string(xml)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 64, 64)
renderer.update_scene(data)
print("lerobot", lerobot.__version__, "drew", renderer.render().std() > 10)
"""


def test_the_image_sets_a_campaign_up_and_draws_without_a_gpu(image: str, tmp_path: Path) -> None:
    """The vendor file of a driver that is not there does not keep Mesa from drawing by EGL."""
    container = run("buildah", "from", image, cwd=tmp_path).strip()
    inside = ("buildah", "run", *ISOLATION, "--env", "MUJOCO_GL=egl", container, "--")
    try:
        made = run(*inside, "tracka", "init", "first", "--smoke", cwd=tmp_path)
        vendors = run(*inside, "ls", "/usr/share/glvnd/egl_vendor.d", cwd=tmp_path)
        drawn = run(*inside, "python", "-c", DRAW, cwd=tmp_path)
    finally:
        run("buildah", "rm", container, cwd=tmp_path)
    assert "pytest --pyargs tracka.acceptance --campaign first" in made
    assert "10_nvidia.json" in vendors
    assert drawn.splitlines()[-1] == f"lerobot {LEROBOT_VERSION} drew True"


def test_the_image_asks_nvidias_runtime_for_egl() -> None:
    text = (REPOSITORY / "container" / "Containerfile").read_text()
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility" in text
