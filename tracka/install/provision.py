"""Makes a virtual environment in which every gate can run, from a Python 3.12 and this checkout or installed package.

Guarantees: every package comes from requirements.lock and is checked against its hash, and so are the installer and the
build tool; nothing is compiled and nothing asks on standard input; LIBERO's configuration and assets are in place
before anything imports LIBERO; a second call finds the stamp of the first and installs nothing; of two calls at once
one waits for the other; a folder that is not a virtual environment is never touched; an installed Track A removes no
package from an environment, where a checkout removes what is not in the lock.

Standard library only: this module runs before anything is installed. The logger `tracka.setup` records what it does.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..core import installation, log_cause
from ..core.errors import Finding, InstallFailed, ToolMissing, TrackaError
from ..core.files import Json, read_json, sha256_file, without_password, write_json
from . import changes, own_package, user_lock
from .assets import ASSET_LIST, place_libero_assets, write_libero_config
from .gl import ensure_gl

LOG = logging.getLogger("tracka.setup")
LOCK = installation.LOCK
BOOTSTRAP = ("setuptools", "uv")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
TAIL_LINES = 15


def provision(root: Path, python: Path, venv: Path, lerobot: Path | None = None, optional: bool = False) -> None:
    """Brings `venv` to the state that the lock in `root` asks for, and makes a missing `venv` with `python`.

    `root` is a checkout, or the folder of the lock in an installed Track A. `lerobot` is a checkout to install,
    editable, in place of the locked lerobot; where it is `optional` and cannot be installed, the locked one stays.
    Raises ToolMissing for a missing tool and InstallFailed for a step that failed.
    """
    root, venv = root.absolute(), venv.absolute()
    if not (root / LOCK).is_file():
        raise ToolMissing(
            Finding(str(root / LOCK), "the lock file is missing", "Restore the checkout, or install Track A again")
        )
    with _one_at_a_time(root / LOCK):
        is_done = is_current(root, venv, lerobot)
        ensure_gl(install_optional=not is_done)
        if is_done:
            LOG.debug("%s is up to date: nothing to install", venv)
        else:
            _build(root, python, venv, lerobot, optional)


def _build(root: Path, python: Path, venv: Path, lerobot: Path | None, optional: bool) -> None:
    stamp_path(venv).unlink(missing_ok=True)
    for line in planned_changes(root, venv):
        LOG.info("set-up: %s", line)
    if not _runs(venv / "bin" / "python"):
        _make_venv(python, venv)
    _install_bootstrap(root, venv)
    _install_lock(root, venv)
    with tempfile.TemporaryDirectory() as folder:
        lerobot = _install_with_lerobot(_own_words(root, venv, Path(folder)), lerobot, optional, venv)
    with _step("LIBERO's configuration and assets"):
        write_libero_config(venv)
        place_libero_assets(venv)
    if not _is_checkout(root):
        _warn_of_unfit(venv)
    write_json(stamp_path(venv), _state(root, venv, lerobot))


def planned_changes(root: Path, venv: Path) -> list[str]:
    """Returns what the installation of the lock will change in `venv`, in sentences."""
    if not (root / LOCK).is_file():
        return []
    return [*changes.sentences(venv, _lock(root), removes=_is_checkout(root))]


def _lock(root: Path) -> str:
    """Returns the lock: all of it in a checkout, else without the packages that only developers of Track A need."""
    text = (root / LOCK).read_text()
    return text if _is_checkout(root) else user_lock.for_users(text, own_package.requirements())


def stamp_path(venv: Path) -> Path:
    """Returns the stamp file of `venv`, which a set-up that succeeded writes last."""
    return venv / "tracka-setup.json"


def is_current(root: Path, venv: Path, lerobot: Path | None = None) -> bool:
    """Returns whether the last set-up of `venv` succeeded and the files that it was made from are unchanged."""
    if not (venv / "bin" / "python").exists() or not stamp_path(venv).is_file():
        return False
    try:
        return read_json(stamp_path(venv)) == _state(root, venv, lerobot)
    except TrackaError:
        return False


def _state(root: Path, venv: Path, lerobot: Path | None = None) -> Json:
    """Returns what the set-up depends on.

    The folders are part of it, because a moved environment has stale paths inside.
    """
    package = Path(__file__).parent
    inputs = [root / LOCK, *(package / name for name in ("assets.py", "gl.py", "provision.py", "user_lock.py"))]
    inputs += [project / "pyproject.toml" for project in _projects(root)]
    texts = [sha256_file(path) for path in inputs] + ([] if _is_checkout(root) else [own_package.record()])
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()
    folders = {"root": str(root), "venv": str(venv), "lerobot": str(lerobot) if lerobot else None}
    return {"assets": sha256_file(ASSET_LIST), "inputs": digest, **folders}


def _is_checkout(root: Path) -> bool:
    return (root / "pyproject.toml").is_file()


def _projects(root: Path) -> list[Path]:
    """Returns this project and its fixtures' policy plug-ins, since lerobot finds a plug-in only if it is installed.

    An installed Track A has no projects, only copies of the plug-ins.
    """
    plugins = sorted(path.parent for path in root.glob("fixtures/lerobot_policy_*/pyproject.toml"))
    return [root, *plugins] if _is_checkout(root) else []


def _own_words(root: Path, venv: Path, folder: Path) -> list[str]:
    """Returns uv's words for this project and the plug-ins: editable in a checkout, else as packages made in `folder`.

    Where Track A runs in `venv` already, it is not installed again.
    """
    if _is_checkout(root):
        return [word for project in _projects(root) for word in ("--editable", str(project))]
    own = [] if _is_own(venv) else [str(own_package.wheel(folder))]
    return [*own, *map(str, own_package.plugins(folder))]


def _is_own(venv: Path) -> bool:
    """Returns whether this process runs in `venv`."""
    return venv.is_dir() and venv.samefile(sys.prefix)


def _make_venv(python: Path, venv: Path) -> None:
    if venv.exists() and any(venv.iterdir()) and not (venv / "pyvenv.cfg").is_file():
        remedy = "Move the folder away, or name another environment"
        raise ToolMissing(Finding(str(venv), "this folder is not a virtual environment", remedy))
    with _step(f"virtual environment {venv}"):
        if _succeeds([str(python), "-c", "import ensurepip, venv"]):
            argv = [str(python), "-m", "venv", "--clear", str(venv)]
        else:
            argv = [_outer_uv(python), "venv", "--clear", "--python", str(python), str(venv)]
        _run(argv, "Check that the folder can be written")


def _outer_uv(python: Path | str) -> str:
    uv = shutil.which("uv")
    if uv is None:
        remedy = "Run `apt-get install python3.12-venv` as root, or install uv"
        raise ToolMissing(
            Finding(str(python), "this Python cannot put pip into a virtual environment, and uv is missing", remedy)
        )
    return uv


def _install_bootstrap(root: Path, venv: Path) -> None:
    """Installs the installer and the build tool from the lock: not even these two may come from elsewhere."""
    python = str(venv / "bin" / "python")
    if _succeeds([python, "-c", "import pip"]):
        install = [python, "-m", "pip", "install"]
    else:
        install = [_outer_uv(python), "pip", "install", "--python", python]
    with _step("installer"), tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(_bootstrap_lines((root / LOCK).read_text()))
        file.flush()
        _run([*install, "--no-deps", "--require-hashes", "-r", file.name], "Check the package index (pip's settings)")


def _bootstrap_lines(lock: str) -> str:
    """Returns the lines of the lock that pin the packages which set-up installs first.

    Raises ToolMissing where the lock lacks one of them.
    """
    pinned = user_lock.blocks(lock)
    if missing := [name for name in BOOTSTRAP if name not in pinned]:
        raise ToolMissing([Finding(LOCK, f"{name} is not pinned", "Run `make lock` in a checkout") for name in missing])
    return "".join(pinned[name] for name in BOOTSTRAP)


def _install_lock(root: Path, venv: Path) -> None:
    remedy = "Check the package index (uv's own settings apply) and the free disk space: about 8 GB are needed"
    with _step("packages of the lock, about 7 GB"), tempfile.TemporaryDirectory() as folder:
        lock = root / LOCK
        if not _is_checkout(root):
            lock = Path(folder) / LOCK
            lock.write_text(_lock(root))
        words = ["sync", str(lock)] if _is_checkout(root) else ["install", "--no-deps", "-r", str(lock)]
        _run(_uv(venv, words[0], "--require-hashes", "--no-build-isolation", *words[1:]), remedy)


def _warn_of_unfit(venv: Path) -> None:
    """Names the packages that no longer fit together, such as those of an owner who had them before."""
    for line in changes.unfit(_capture(_uv(venv, "check")).stdout):
        LOG.warning("warning: %s; Track A was tested with the lock's versions: see --venv for one of its own", line)


def _install_with_lerobot(own: Sequence[str], lerobot: Path | None, optional: bool, venv: Path) -> Path | None:
    """Installs this project and a checkout of lerobot, and returns that checkout; None where the locked one stays."""
    if lerobot is None:
        _install_own(own, venv)
        return None
    try:
        _install_own([*own, "--editable", str(lerobot)], venv)
    except InstallFailed as error:
        if not optional:
            raise
        why = error.findings[0].what.partition("; its last lines")[0]
        LOG.info("set-up: %s is not used: %s; lerobot comes from the lock", lerobot, why)
        _install_own(own, venv)
        return None
    return lerobot


def _install_own(words: Sequence[str], venv: Path) -> None:
    with _step("this project"):
        _run(_uv(venv, "install", "--no-deps", "--no-build-isolation", *words), "Check pyproject.toml")


def _uv(venv: Path, command: str, *words: str) -> list[str]:
    return [str(venv / "bin" / "uv"), "pip", command, "--python", str(venv / "bin" / "python"), *words]


def _environment() -> dict[str, str]:
    """Returns the user's environment without the variables that would send packages or imports elsewhere."""
    unwanted = ("PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in unwanted}
    environment.setdefault("UV_HTTP_TIMEOUT", "300")
    environment |= {"PYTHONUNBUFFERED": "1", "TZ": "UTC"}
    if CERTIFICATES.is_file():
        # uv ships its own certificate authorities. A proxy with its own authority is only in the machine's list.
        environment.setdefault("UV_SYSTEM_CERTS", "1")
    return environment


def _runs(python: Path) -> bool:
    return python.exists() and _succeeds([str(python), "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 12))"])


def _succeeds(argv: Sequence[str]) -> bool:
    try:
        return _capture(argv).returncode == 0
    except OSError:
        return False


def _capture(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=_environment(),
    )


def _run(argv: Sequence[str], remedy: str) -> None:
    try:
        completed = _capture(argv)
    except OSError as error:
        raise ToolMissing(Finding(argv[0], f"the program does not start ({error.strerror})", remedy)) from None
    LOG.debug("$ %s\n%sexit code %d", " ".join(argv), without_password(completed.stdout), completed.returncode)
    if completed.returncode:
        last_lines = "\n".join(without_password(completed.stdout).strip().splitlines()[-TAIL_LINES:])
        cause = log_cause.how_it_ended(completed.returncode, completed.stdout)
        what = f"the command ended: {cause}; its last lines are:\n{last_lines}\n"
        raise InstallFailed(Finding(" ".join(argv), what, remedy))


@contextmanager
def _step(title: str) -> Iterator[None]:
    start = time.monotonic()
    LOG.info("set-up: %s ...", title)
    yield
    LOG.info("set-up: %s: %.1f s", title, time.monotonic() - start)


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Holds an advisory lock on `path`, which is requirements.lock itself, so that no further file is needed."""
    # Network file systems give an exclusive lock only on a file that is open for writing. Nothing is written.
    with path.open("ab" if os.access(path, os.W_OK) else "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.info("set-up: waiting for another set-up of this folder ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
