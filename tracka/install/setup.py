"""Implements `tracka setup`: makes the environment that a campaign runs in, with a log and snapshots of it.

    python3.12 -m tracka setup --artifacts-dir tasks/NAME/artifacts/preflight

Guarantees: all bad arguments are reported together and nothing is started; a second call installs nothing; the log and
the snapshots belong to the environment that was made, whichever Python made it. Exit codes: 2 for bad arguments, 3 for
a missing tool, 4 for a failed installation.

Standard library only: on a fresh machine this module runs before anything is installed.
"""

import argparse
import logging
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import Finding, InstallFailed, ToolMissing, TrackaError, UsageError, screen
from ..core.files import copy_atomic, make_folder, redacted, utc_now, without_password, write_text
from .provision import LOCK, is_current, lock_block, provision

ROOT = Path(__file__).resolve().parents[2]
LOG = logging.getLogger("tracka.setup")
ENVIRONMENT = "vla_pi0"
PYTHON = "3.12"
DISK = Path("/mnt/local_storage")  # the plan's host keeps its caches here; other hosts use the user's own cache
SNAPSHOTS = "import sys, pathlib; from tracka.preflight import inventory; inventory.write(pathlib.Path(sys.argv[1]))"


@dataclass(frozen=True)
class EnvironmentOptions:
    """An environment as a command line asks for it.

    `lerobot_dir` and `hf_home` are None where their flags were not given.
    """

    artifacts_dir: Path
    env_name: str = ENVIRONMENT
    python_version: str = PYTHON
    lerobot_dir: Path | None = None
    hf_home: Path | None = None

    @property
    def venv(self) -> Path:
        """Returns the environment's folder: `.venv` for the name vla_pi0, `.venv-NAME` for any other name."""
        return ROOT / (".venv" if self.env_name == ENVIRONMENT else f".venv-{self.env_name}")

    @property
    def lerobot(self) -> Path | None:
        """Returns the lerobot checkout to install, or None for the lerobot of the lock."""
        checkout = self.lerobot_dir or DISK / "src" / "lerobot"
        return checkout.absolute() if self.lerobot_dir or checkout.is_dir() else None

    @property
    def command(self) -> str:
        """Returns the command line that asks for this environment."""
        values = {"--env-name": self.env_name, "--python-version": self.python_version}
        values |= {"--lerobot-dir": str(self.lerobot_dir or ""), "--hf-home": str(self.hf_home or "")}
        values["--artifacts-dir"] = str(self.artifacts_dir)
        words = [word for flag, value in values.items() if value for word in (flag, value)]
        return shlex.join([f"python{PYTHON}", "-m", "tracka", "setup", *words])

    @property
    def hub_cache(self) -> Path | None:
        """Returns the HF_HOME of every process in this environment, or None where the user's own default is good."""
        cache = self.hf_home or DISK / "huggingface"
        return cache.absolute() if self.hf_home or DISK.is_dir() else None


def set_up(options: EnvironmentOptions, python: Path) -> None:
    """Makes or refreshes the environment, then writes `setup.log`, `pip_freeze.txt` and `env_snapshot.json`.

    Raises UsageError with everything that is wrong with `options`, and ToolMissing or InstallFailed where the set-up
    fails.
    """
    if findings := list(_faults(options)):
        raise UsageError(findings)
    log, venv_log = options.artifacts_dir / "setup.log", log_file(options.venv)
    installs = not is_current(ROOT, options.venv, options.lerobot)
    try:
        with _logged(log, earlier=venv_log):
            LOG.debug("%s begins: %s", utc_now(), options.command)
            provision(ROOT, python, options.venv, options.lerobot)
            _remember_hub_cache(options)
            _snapshots(options)
            LOG.debug("%s made %s: %s", utc_now(), options.venv.name, options.command)
    finally:
        if (options.venv / "pyvenv.cfg").is_file() and (installs or not venv_log.is_file()):
            copy_atomic(log, venv_log)  # also after a failed installation: the next one starts from what it left


def _faults(options: EnvironmentOptions) -> Iterator[Finding]:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", options.env_name):
        yield Finding(
            "--env-name", f"{options.env_name!r} is not a plain name", "Use letters, digits, '.', '_' and '-'"
        )
    if options.python_version != PYTHON:
        what = f"lerobot {_locked_lerobot()} needs Python {PYTHON}, not {options.python_version}"
        yield Finding("--python-version", what, f"Leave the flag out, or write {PYTHON}")
    if options.lerobot:
        yield from _checkout_faults(options.lerobot, options.lerobot_dir is not None)
    for flag, folder in {"--artifacts-dir": options.artifacts_dir, "--hf-home": options.hub_cache}.items():
        if folder and not _can_be_written(folder):
            yield Finding(flag, f"{folder} cannot be written", "Name a folder that you may write to")


def _checkout_faults(folder: Path, by_flag: bool) -> Iterator[Finding]:
    """Yields what is wrong with a checkout of lerobot.

    Preflight would refuse a checkout of another version too, but only after minutes of installing.
    """
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):
        project = {}
    alternative = "leave the flag out" if by_flag else "move the folder away"
    remedy = f"Check out v{_locked_lerobot()} in this folder, or {alternative}: lerobot then comes from the lock"
    if project.get("name") != "lerobot":
        yield Finding("--lerobot-dir", f"{folder} is not a checkout of lerobot", remedy)
    elif project.get("version") != _locked_lerobot():
        yield Finding("--lerobot-dir", f"{folder} holds lerobot {project.get('version')}", remedy)


def _locked_lerobot() -> str:
    try:
        return lock_block((ROOT / LOCK).read_text(), "lerobot").split("==")[1].split()[0].rstrip("\\")
    except (OSError, ToolMissing):
        return "0.6"


def _can_be_written(folder: Path) -> bool:
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK)


@contextmanager
def _logged(path: Path, earlier: Path) -> Iterator[None]:
    """Sends the set-up's messages to the terminal and, with every command and its output, to the file `path`.

    The file begins with `earlier`, the log of earlier set-ups of this environment.
    """
    write_text(path, earlier.read_text(errors="replace") if earlier.is_file() else "")
    terminal, file = logging.StreamHandler(sys.stdout), logging.FileHandler(path, encoding="utf-8")
    terminal.setLevel(logging.INFO)
    file.addFilter(_redact)
    LOG.setLevel(logging.DEBUG)
    LOG.handlers = [terminal, file]
    try:
        yield
    except TrackaError as error:
        LOG.debug("error: %s", error)
        raise
    finally:
        LOG.handlers = []
        file.close()


def _redact(record: logging.LogRecord) -> bool:
    """Removes the secrets from a log record. As a logging filter, it lets every record pass."""
    record.msg, record.args = redacted(record.getMessage()), None
    return True


def _remember_hub_cache(options: EnvironmentOptions) -> None:
    """Stores HF_HOME where `environment.hf_home` finds it, so that a flag given once holds for every later command."""
    if options.hub_cache:
        make_folder(options.hub_cache)
        write_text(hub_cache_file(options.venv), f"{options.hub_cache}\n")


def log_file(venv: Path) -> Path:
    """Returns the file in an environment that tells how the environment was made."""
    return venv / "setup.log"


def commands(log: Path) -> dict[str, str]:
    """Returns the set-ups that succeeded by a log: each command line once, with the environment that it made."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    matches = re.findall(rf"^\S+Z made (\S+): (python{PYTHON} -m tracka setup .*)$", text, re.MULTILINE)
    return {command: venv for venv, command in matches}


def hub_cache_file(venv: Path) -> Path:
    """Returns the file in an environment that holds its HF_HOME."""
    return venv / "etc" / "tracka" / "hf_home"


def _snapshots(options: EnvironmentOptions) -> None:
    """Takes the snapshots with the environment's own Python, since this process's Python may have nothing installed."""
    argv = [str(options.venv / "bin" / "python"), "-c", SNAPSHOTS, str(options.artifacts_dir.absolute())]
    completed = subprocess.run(argv, cwd=ROOT, env=_environment(options), capture_output=True, text=True)
    if completed.returncode:
        what = f"the new environment cannot write its snapshots: {without_password(completed.stderr).strip()[-500:]}"
        raise InstallFailed(Finding(str(options.venv), what, "Delete the environment and run the set-up again"))


def _environment(options: EnvironmentOptions) -> Mapping[str, str]:
    cache = {"HF_HOME": str(options.hub_cache)} if options.hub_cache else {}
    return {**os.environ, **cache, "PYTHONUNBUFFERED": "1", "TZ": "UTC"}


def _folder(word: str) -> Path:
    if not word:
        raise argparse.ArgumentTypeError("name a folder, such as tasks/NAME/artifacts/preflight")
    return Path(word)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line, with the plan's flags."""
    result = argparse.ArgumentParser(
        prog="tracka setup", description="Make or refresh the environment of a campaign.", allow_abbrev=False
    )
    result.add_argument(
        "--env-name", default=ENVIRONMENT, help=f"name of the environment (default: {ENVIRONMENT}, in the folder .venv)"
    )
    result.add_argument("--python-version", default=PYTHON, help=f"version of Python (only choice: {PYTHON})")
    result.add_argument(
        "--lerobot-dir",
        type=Path,
        help=f"checkout of lerobot to install (default: {DISK}/src/lerobot if it exists, else the locked lerobot)",
    )
    result.add_argument(
        "--hf-home",
        type=Path,
        help=f"folder of the hub's cache (default: {DISK}/huggingface if {DISK} exists, else yours)",
    )
    result.add_argument("--artifacts-dir", type=_folder, required=True, help="folder for the log and the snapshots")
    result.add_argument("--dry-run", action="store_true", help="print what the set-up would do, and do nothing")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    values = vars(parser().parse_args(arguments))
    dry_run, options = values.pop("dry_run"), EnvironmentOptions(**values)
    try:
        if dry_run:
            _print_plan(options)
        else:
            set_up(options, Path(sys.executable))
    except TrackaError as error:
        print(screen(error.findings), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        remedy = "Check the permissions and the free disk space"
        print(f"error: {error.filename or 'the system'}: {error.strerror}. {remedy}", file=sys.stderr)
        return 1
    return 0


def _print_plan(options: EnvironmentOptions) -> None:
    if findings := list(_faults(options)):
        raise UsageError(findings)
    print(f"would make {options.venv} with {sys.executable} from {ROOT / LOCK}")
    print(f"would install lerobot from {options.lerobot or 'the lock'}; HF_HOME {options.hub_cache or 'unchanged'}")
    print(f"would write setup.log, pip_freeze.txt and env_snapshot.json into {options.artifacts_dir}")
