"""The fixtures of the harness's own tests, and the order of the tests."""

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY, Made

from tracka.core import lock
from tracka.execution import environment
from tracka.install import assets

SIMULATOR_SECS = 900  # a backstop: ten times what the longest test takes on two quiet cores


def pytest_configure() -> None:
    """Handles SIGINT and SIGHUP as in the foreground: a background job and `nohup` ignore one of them, and so would all
    that a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(trylast=True)  # after the tests that are not selected have been taken out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest tests first, then those with the simulator, so that none of these runs alone at the end.

    Tests with the simulator get a longer timeout.
    """
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in ("long", "simulator")])
    for item in items:
        if item.get_closest_marker("simulator") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SIMULATOR_SECS))
    items[:] = _dealt(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _dealt(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """Returns the tests in such an order that each worker begins with modules of long tests.

    xdist's work stealing deals equal shares one after the other, so all long tests would be the first worker's.
    """
    modules: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("long"):
            modules.setdefault(item.nodeid.partition("::")[0], []).append(item)
    others = [item for item in items if not item.get_closest_marker("long")]
    shares: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for number, module in enumerate(sorted(modules.values(), key=_allowed_secs, reverse=True)):
        shares[number % workers] += module
    for number, share in enumerate(shares):
        size = max(0, len(items) * (number + 1) // workers - len(items) * number // workers - len(share))
        share += others[:size]
        del others[:size]
    return [*(item for share in shares for item in share), *others]


def _allowed_secs(module: Sequence[pytest.Item]) -> float:
    """Returns the timeout of a module's tests, which says how long they may take."""
    return max((float(mark.args[0]) for item in module if (mark := item.get_closest_marker("timeout"))), default=0.0)


@pytest.fixture
def make_campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Made]:
    """Returns a function that makes a campaign whose stand-ins this process and its children find."""

    def make(*args: object, **kwargs: object) -> Made:
        made = campaigns.make(tmp_path / "campaign", *args, **kwargs)
        for name, value in made.environ.items():
            monkeypatch.setenv(name, value)
        return made

    return make


@pytest.fixture
def made(make_campaign: Callable[..., Made]) -> Made:
    """Returns the usual campaign, before any phase."""
    return make_campaign()


@pytest.fixture
def copy_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Made], Made]:
    """Returns a function that copies a shared campaign, so that a test may change the copy.

    Once the copy is made, this process finds the copy's stand-ins.
    """

    def copied(made: Made) -> Made:
        copy = campaigns.copied(made, tmp_path)
        for name, value in copy.environ.items():
            monkeypatch.setenv(name, value)
        return copy

    return copied


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of the usual campaign after phases 1 and 2, to be copied."""
    made = campaigns.make(tmp_path_factory.mktemp("prepared") / "campaign")
    with pytest.MonkeyPatch.context() as environ:
        for name, value in made.environ.items():
            environ.setenv(name, value)
        campaigns.pass_preflight(made)
    return made.root


@pytest.fixture
def ready(prepared: Path, make_campaign: Callable[..., Made], tmp_path: Path) -> Made:
    """Returns the usual campaign after phases 1 and 2."""
    shutil.copytree(prepared, tmp_path / "campaign")
    return make_campaign()


@pytest.fixture(scope="session")
def tiny_act(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a real checkpoint of lerobot's, which tests must only read.

    The checkpoint is built once for all workers, since that takes ten seconds.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny" / "act"
    with lock.hold(folder.parent / "act.lock", "tiny_act", wait=True):
        if not folder.exists():
            command = [sys.executable, "-m", "fixtures.tiny_act", str(folder)]
            subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return folder


@pytest.fixture
def act(tiny_act: Path, tmp_path: Path) -> Path:
    """Returns a copy of the tiny ACT checkpoint, which a test may break."""
    return Path(shutil.copytree(tiny_act, tmp_path / "act"))


@pytest.fixture(autouse=True)
def umask_kept() -> Iterator[None]:
    """Restores the umask, which commands that a test calls in this process narrow for good."""
    mask = os.umask(0o022)
    os.umask(mask)
    yield
    os.umask(mask)


@pytest.fixture(scope="session", autouse=True)
def hashed_once() -> Iterator[None]:
    """Lets only the first preflight in this process read LIBERO's own 585 files; another folder is read each time."""
    wrong_assets, once = assets.wrong_assets, functools.cache(assets.wrong_assets)

    def judged(folder: Path) -> list[str]:
        ours = folder.is_relative_to(sys.prefix)
        return list(once(folder)) if ours else wrong_assets(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assets, "wrong_assets", judged)
        yield


@pytest.fixture(scope="module")
def libero() -> Iterator[None]:
    """Lets LIBERO and robosuite be imported in this process, and takes back what they set for PyOpenGL."""
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("LIBERO_CONFIG_PATH", environment.libero_config_path())
        for name, value in {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl", "HF_HUB_OFFLINE": "1"}.items():
            environ.setenv(name, value)
        yield


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Returns a copy of the repository's files with a smoke campaign of stand-ins and checkpoints for the reader."""
    copy = tmp_path / "repository"
    campaigns.copy_repository(copy)
    for name in ("my_policy", "a", "b"):
        campaigns.fake_checkpoint(copy / "outputs" / name)
    shutil.rmtree(copy / "tasks" / "smoke-libero-object")
    campaigns.make(copy / "tasks" / "smoke-libero-object")
    return copy
