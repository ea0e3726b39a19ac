"""Implements `tracka setup`: makes the environment that a campaign runs in, with a log and snapshots of it.

    python3.12 -m tracka setup --artifacts-dir tasks/NAME/artifacts/preflight
    tracka setup

The first line is for a checkout, whose environment is `.venv`. The second line is for an installed Track A: it
completes the virtual environment that Track A runs in.

Guarantees: all bad arguments are reported together and nothing is started; a folder that nobody named is never the
reason for a failure: where a default place cannot be used, set-up goes on without it and says why; a second call
installs nothing; the log and the snapshots belong to the environment that was made, whichever Python made it. Exit
codes: 2 for bad arguments, 3 for a missing tool, 4 for a failed installation.

Standard library only: on a fresh machine this module runs before anything is installed.
"""

import argparse
import logging
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..core import installation, log_cause, reading, system_errors
from ..core.errors import Finding, InstallFailed, TrackaError, UsageError, screen
from ..core.files import copy_atomic, make_folder, redacted, utc_now, write_text
from . import checkout, folders, user_lock
from .provision import LOCK, is_current, planned_changes, provision

ROOT = installation.lock_folder()
LOG = logging.getLogger("tracka.setup")
LOG_NAME = "setup.log"
ENVIRONMENT = "vla_pi0"
PYTHON = "3.12"
DISK = Path("/mnt/local_storage")  # the plan's host keeps its caches here; other hosts use the user's own cache
SNAPSHOTS = "import sys, pathlib; from tracka.preflight import inventory; inventory.write(pathlib.Path(sys.argv[1]))"


@dataclass(frozen=True)
class EnvironmentOptions:
    """An environment as a command line asks for it.

    Paths are None where their flags were not given.
    """

    artifacts_dir: Path | None = None
    env_name: str = ENVIRONMENT
    python_version: str = PYTHON
    lerobot_dir: Path | None = None
    hf_home: Path | None = None
    venv_dir: Path | None = None

    @property
    def venv(self) -> Path:
        """Returns the environment's folder: `--venv`, else `.venv` for the name vla_pi0, else `.venv-NAME`.

        An installed Track A without these flags means the virtual environment that it runs in, if it runs in one.
        """
        if self.venv_dir:
            return self.venv_dir.absolute()
        if not _is_checkout() and self.env_name == ENVIRONMENT and sys.prefix != sys.base_prefix:
            return Path(sys.prefix)
        folder = ROOT if _is_checkout() else Path.cwd()
        return folder / (".venv" if self.env_name == ENVIRONMENT else f".venv-{self.env_name}")

    @property
    def artifacts(self) -> Path:
        """Returns the folder for the log and the snapshots; without its flag a folder in the environment."""
        return self.artifacts_dir or self.venv / "share" / "tracka"

    @property
    def lerobot(self) -> Path | None:
        """Returns the lerobot checkout to install, or None for the lerobot of the lock."""
        if self.lerobot_dir:
            return self.lerobot_dir.absolute()
        return None if checkout.default_fault(default_checkout(), _locked_lerobot()) else default_checkout()

    @property
    def command(self) -> str:
        """Returns the command line that asks for this environment."""
        values = {"--env-name": self.env_name, "--python-version": self.python_version} if _is_checkout() else {}
        values |= {"--lerobot-dir": str(self.lerobot_dir or ""), "--hf-home": str(self.hf_home or "")}
        values |= {"--venv": str(self.venv_dir or ""), "--artifacts-dir": str(self.artifacts_dir or "")}
        words = [word for flag, value in values.items() if value for word in (flag, value)]
        return shlex.join([*([f"python{PYTHON}", "-m"] if _is_checkout() else []), "tracka", "setup", *words])

    @property
    def hub_cache(self) -> Path | None:
        """Returns the HF_HOME of every process in this environment, or None where the user's own default is good."""
        if self.hf_home:
            return self.hf_home.absolute()
        return default_cache() if folders.exists(DISK) and folders.can_be_written(default_cache()) else None

    @property
    def unused_defaults(self) -> list[str]:
        """Returns a line for each default place that is there and cannot be used: why, and what takes its place."""
        fault = checkout.default_fault(default_checkout(), _locked_lerobot())
        lines = []
        if not self.lerobot_dir and fault and folders.exists(default_checkout()):
            lines.append(f"{default_checkout()} is not used: it {fault}; lerobot comes from the lock")
        if not self.hf_home and folders.exists(DISK) and not folders.can_be_written(default_cache()):
            lines.append(_unused_cache("it cannot be written"))
        return lines


def _is_checkout() -> bool:
    return (ROOT / "pyproject.toml").is_file()


def default_checkout() -> Path:
    """Returns the place of the lerobot checkout that is used where `--lerobot-dir` is not given."""
    return DISK / "src" / "lerobot"


def default_cache() -> Path:
    """Returns the hub's cache that is used where `--hf-home` is not given."""
    return DISK / "huggingface"


def _unused_cache(why: str) -> str:
    return f"{default_cache()} is not used: {why}; HF_HOME stays the user's own"


def set_up(options: EnvironmentOptions, python: Path) -> bool:
    """Makes or refreshes the environment, then writes `setup.log`, `pip_freeze.txt` and `env_snapshot.json`.

    Returns whether packages were installed; False where the environment was complete before.

    Raises UsageError with everything that is wrong with `options`, and ToolMissing or InstallFailed where the set-up
    fails.
    """
    if findings := list(_faults(options)):
        raise UsageError(findings)
    installs = not is_current(ROOT, options.venv, options.lerobot)
    with _log_folder(options) as folder:
        try:
            _set_up_with_log(options, python, folder / LOG_NAME)
        finally:  # also after a failed installation: the next one starts from what it left
            _keep_log(options, folder / LOG_NAME, installs)
    return installs


def _set_up_with_log(options: EnvironmentOptions, python: Path, log: Path) -> None:
    with _logged(log, earlier=log_file(options.venv)):
        LOG.debug("%s begins: %s", utc_now(), options.command)
        for line in options.unused_defaults:
            LOG.info("set-up: %s", line)
        provision(ROOT, python, options.venv, options.lerobot, optional=options.lerobot_dir is None)
        _snapshots(options, _remember_hub_cache(options))
        name = options.venv.name if _is_checkout() and not options.venv_dir else options.venv
        LOG.debug("%s made %s: %s", utc_now(), shlex.quote(str(name)), options.command)


@contextmanager
def _log_folder(options: EnvironmentOptions) -> Iterator[Path]:
    """Yields the folder that the log is written into while the set-up runs.

    Where the artifacts belong into the environment, this is a temporary folder: a new environment begins empty.
    """
    if options.artifacts_dir:
        yield options.artifacts
        return
    with tempfile.TemporaryDirectory(prefix="tracka-setup-") as folder:
        yield Path(folder)


def _keep_log(options: EnvironmentOptions, log: Path, installs: bool) -> None:
    """Copies the log of a set-up into an environment that is there."""
    if not (options.venv / "pyvenv.cfg").is_file():
        return
    if not options.artifacts_dir:
        make_folder(options.artifacts)
        copy_atomic(log, options.artifacts / LOG_NAME)
    if installs or not log_file(options.venv).is_file():
        copy_atomic(log, log_file(options.venv))


def _faults(options: EnvironmentOptions) -> Iterator[Finding]:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", options.env_name):
        yield Finding(
            "--env-name", f"{options.env_name!r} is not a plain name", "Use letters, digits, '.', '_' and '-'"
        )
    if options.python_version != PYTHON:
        what = f"lerobot {_locked_lerobot()} needs Python {PYTHON}, not {options.python_version}"
        yield Finding("--python-version", what, f"Leave the flag out, or write {PYTHON}")
    if options.lerobot_dir and (fault := checkout.fault(options.lerobot_dir.absolute(), _locked_lerobot())):
        remedy = (
            f"Check out v{_locked_lerobot()} in this folder, or leave the flag out: lerobot then comes from the lock"
        )
        yield Finding("--lerobot-dir", f"{options.lerobot_dir.absolute()} {fault}", remedy)
    if options.venv_dir and options.env_name != ENVIRONMENT:
        yield Finding("--venv, --env-name", "both name the environment", "Leave one of the two out")
    if installation.UVX in options.venv.parts:
        what = f"{options.venv} is uv's own, which uv may remove at any time"
        yield Finding("--venv", what, "Name the environment to make, such as --venv .venv")
    folders_named = {"--artifacts-dir": options.artifacts, "--hf-home": options.hub_cache, "--venv": options.venv_dir}
    for flag, folder in folders_named.items():
        if folder and not folders.can_be_written(folder):
            yield Finding(flag, f"{folder} cannot be written", "Name a folder that you may write to")


def _locked_lerobot() -> str:
    """Returns the version of lerobot that the lock pins; 0.6 where there is no lock to read."""
    try:
        return user_lock.versions((ROOT / LOCK).read_text())["lerobot"]
    except (OSError, KeyError):
        return "0.6"


@contextmanager
def _logged(path: Path, earlier: Path) -> Iterator[None]:
    """Sends the set-up's messages to the terminal and, with every command and its output, to the file `path`.

    The file begins with `earlier`, the log of earlier set-ups of this environment.
    """
    write_text(path, reading.text_or_empty(earlier))
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


def _remember_hub_cache(options: EnvironmentOptions) -> Path | None:
    """Stores HF_HOME where `environment.hf_home` finds it, so that a flag given once holds for every later command.

    Returns the HF_HOME that holds, None for the user's own. A default place that cannot be used is forgotten.
    """
    cache, stored = options.hub_cache, hub_cache_file(options.venv)
    if cache and not options.hf_home and (why := folders.why_not_made(cache)):
        LOG.info("set-up: %s", _unused_cache(why))
        cache = None
    if cache:
        make_folder(cache)
        write_text(stored, f"{cache}\n")
    elif reading.text_or_empty(stored).strip() == str(default_cache()):
        stored.unlink()
    return cache


def log_file(venv: Path) -> Path:
    """Returns the file in an environment that tells how the environment was made."""
    return venv / LOG_NAME


def commands(log: Path) -> dict[str, str]:
    """Returns the set-ups that succeeded by a log: each command line once, with the environment that it made."""
    text = reading.text_or_empty(log)
    matches = re.findall(rf"^\S+Z made (.+?): ((?:python{PYTHON} -m )?tracka setup.*)$", text, re.MULTILINE)
    return {command: venv for venv, command in matches}


def hub_cache_file(venv: Path) -> Path:
    """Returns the file in an environment that holds its HF_HOME."""
    return venv / "etc" / "tracka" / "hf_home"


def _snapshots(options: EnvironmentOptions, cache: Path | None) -> None:
    """Takes the snapshots with the environment's own Python, since this process's Python may have nothing installed."""
    argv = [str(options.venv / "bin" / "python"), "-c", SNAPSHOTS, str(options.artifacts.absolute())]
    folder = ROOT if _is_checkout() else options.venv  # Python imports from the folder that it starts in
    completed = subprocess.run(argv, cwd=folder, env=_environment(cache), capture_output=True, text=True)
    if completed.returncode:
        what = f"the new environment cannot write its snapshots: {log_cause.cause(completed.stderr)}"
        raise InstallFailed(Finding(str(options.venv), what, "Delete the environment and run the set-up again"))


def _environment(cache: Path | None) -> Mapping[str, str]:
    hub = {"HF_HOME": str(cache)} if cache else {}
    return {**os.environ, **hub, "PYTHONUNBUFFERED": "1", "TZ": "UTC"}


def _folder(word: str) -> Path:
    if not word:
        raise argparse.ArgumentTypeError("name a folder, such as tasks/NAME/artifacts/preflight")
    return Path(word)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line, with the plan's flags."""
    result = argparse.ArgumentParser(
        prog="tracka setup",
        description="Make or refresh the environment of a campaign.",
        epilog="Example: tracka setup --artifacts-dir reports/setup",
        allow_abbrev=False,
    )
    result.add_argument(
        "--env-name", default=ENVIRONMENT, help=f"name of the environment (default: {ENVIRONMENT}, in the folder .venv)"
    )
    result.add_argument(
        "--venv",
        type=Path,
        dest="venv_dir",
        metavar="DIR",
        help="folder of the environment (default: the running one of an installed Track A, else by --env-name)",
    )
    result.add_argument("--python-version", default=PYTHON, help=f"version of Python (only choice: {PYTHON})")
    result.add_argument(
        "--lerobot-dir",
        type=Path,
        help=f"checkout of lerobot to install (default: {default_checkout()} if usable, else the locked lerobot)",
    )
    result.add_argument(
        "--hf-home",
        type=Path,
        help=f"folder of the hub's cache (default: {default_cache()} if usable, else yours)",
    )
    default = "" if _is_checkout() else " (default: in the environment)"
    result.add_argument(
        "--artifacts-dir",
        type=_folder,
        required=_is_checkout(),
        help=f"folder for the log and the snapshots{default}",
    )
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
            installed = set_up(options, Path(sys.executable))
            print(f"{'done' if installed else 'nothing to do'}: {options.venv} is complete")
            _print_next_step(options)
    except TrackaError as error:
        print(screen(error.findings), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(screen([system_errors.finding(error)]), file=sys.stderr)
        return 1
    return 0


def _print_next_step(options: EnvironmentOptions) -> None:
    """Prints how to enter an environment that is not the running one, and the commands that come then."""
    if not _is_checkout() and not options.venv.samefile(sys.prefix):
        print(f"Next: source {shlex.quote(str(options.venv))}/bin/activate")
    print("Next: tracka doctor, then tracka init first --smoke")


def _print_plan(options: EnvironmentOptions) -> None:
    if findings := list(_faults(options)):
        raise UsageError(findings)
    for line in options.unused_defaults:
        print(line)
    verb = "make" if _is_checkout() or not options.venv.exists() else "complete"
    print(f"would {verb} {options.venv} with {sys.executable} from {ROOT / LOCK}")
    for line in planned_changes(ROOT, options.venv):
        print(line)
    print(f"would install lerobot from {options.lerobot or 'the lock'}; HF_HOME {options.hub_cache or 'unchanged'}")
    print(f"would write setup.log, pip_freeze.txt and env_snapshot.json into {options.artifacts}")
