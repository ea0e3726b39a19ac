"""The command `tracka setup`: what it asks for, what it refuses before anything starts, and what it leaves.

The installer is a stand-in, but for two tests: the second set-up of this repository, and one that fails for real.
"""

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from campaigns import REPOSITORY, Made, contents

from tracka.core import errors, files
from tracka.core.lerobot_facts import LEROBOT_VERSION
from tracka.execution import environment
from tracka.install import assets, folders, provision, setup, user_lock
from tracka.preflight import inventory

LOCK = (REPOSITORY / "requirements.lock").read_text()
PASSWORD = "sesame"
NO_INDEX = f"http://user:{PASSWORD}@127.0.0.1:1/simple"  # nothing listens on port 1
SNAPSHOTS = {"setup.log", "pip_freeze.txt", "env_snapshot.json"}
PYTHON = """#!/bin/sh
case "$*" in {case}) {then};; esac
exec {real} "$@"
"""


def make_python(path: Path, case: str = "nothing", then: str = ":") -> None:
    """Puts a stand-in for Python at `path`: this one, except that arguments like `case` do `then`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PYTHON.format(case=case, then=then, real=shlex.quote(sys.executable)))
    path.chmod(0o755)


def make_venv(folder: Path, case: str = "nothing", then: str = ":") -> None:
    make_python(folder / "bin" / "python", case, then)
    (folder / "pyvenv.cfg").touch()


def make_checkout(folder: Path, version: str = LEROBOT_VERSION, name: str = "lerobot") -> Path:
    files.write_text(folder / "pyproject.toml", f'[project]\nname = "{name}"\nversion = "{version}"\n')
    return folder


def make_git_checkout(folder: Path) -> Path:
    (make_checkout(folder) / ".git").mkdir()
    return folder


class Asked:
    """A repository in which a set-up is asked for, and where it leaves its log."""

    root: Path

    @property
    def artifacts(self) -> Path:
        return self.root.parent / "artifacts"

    @property
    def log(self) -> str:
        return (self.artifacts / "setup.log").read_text()


@dataclass
class Place(Asked):
    """A repository without an environment, and an installer that succeeds unless told what to fail at."""

    root: Path
    fails_at: str = "nothing"
    ran: list[list[str]] = field(default_factory=list)

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def set_up(self, *words: str) -> int:
        return setup.main(["--artifacts-dir", str(self.artifacts), *words])

    def capture(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        """Notes a command in place of running it; a question to a Python, which has -c, is no command."""
        if "-c" not in argv:
            self.ran.append(list(argv))
        if argv[1:3] == ["-m", "venv"] and self.fails_at not in argv:
            make_venv(Path(argv[-1]))
        return subprocess.CompletedProcess(argv, int(self.fails_at in argv), f"said by step {len(self.ran)}\n")

    def steps(self) -> list[str]:
        """The commands that ran, each by the word that tells it."""
        words = {"venv", "-r", "sync", "--editable"}
        return [next(word for word in argv if word in words) for argv in self.ran]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path / "repository")
    made.root.mkdir()
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, made.root)
    monkeypatch.setattr(setup, "ROOT", made.root)
    monkeypatch.setattr(setup, "DISK", tmp_path / "disk")
    monkeypatch.setattr(provision, "_capture", made.capture)
    monkeypatch.setattr(provision, "place_libero_assets", lambda venv: None)
    monkeypatch.setattr(provision, "ensure_gl", lambda install_optional: None)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.delenv("HF_HOME", raising=False)
    return made


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*arguments: object, **options: object) -> None:
        raise AssertionError(f"a process was started: {arguments}")

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(provision, "_capture", start)


@dataclass(frozen=True)
class Copy(Asked):
    """A copy of what the set-up needs of this repository, on a machine whose package index cannot be reached."""

    root: Path

    def tracka(self, *words: str, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
        """Runs `python -m tracka` on `words`, as on a fresh machine: with -S Python has its standard library alone."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "PYTHON"))}
        environ |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": NO_INDEX, "PIP_RETRIES": "0"}
        environ |= {"PIP_NO_CACHE_DIR": "1", "UV_NO_CONFIG": "1", "UV_NO_CACHE": "1", "UV_HTTP_RETRIES": "0"}
        environ |= {"UV_DEFAULT_INDEX": NO_INDEX, "NO_PROXY": "*", "no_proxy": "*"}
        # An apt-get that does nothing: whatever this machine lacks, a test installs nothing on it.
        environ |= {"PATH": f"{self.root.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        return subprocess.run(
            [str(python), "-S", "-B", "-m", "tracka", *words],
            cwd=self.root,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def set_up(self, *words: str, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
        return self.tracka("setup", "--artifacts-dir", str(self.artifacts), *words, python=python)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    root = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("tracka", *(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("fixtures/lerobot_*"))):
        shutil.copytree(REPOSITORY / name, root / name, ignore=ignored)
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, root)
    make_python(tmp_path / "bin" / "apt-get", "*", "exit 1")
    return Copy(root)


def another_python(wanted: Callable[[tuple[int, int]], bool]) -> Path | None:
    """A Python of this machine, in PATH or pyenv, whose version is `wanted`."""
    names = [shutil.which(f"python3.{minor}") for minor in range(8, 16)]
    for python in [*map(Path, filter(None, names)), *sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))]:
        code = "import sys; print(sys.version_info[0], sys.version_info[1])"
        said = subprocess.run([python, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if said.returncode == 0 and wanted(tuple(map(int, said.stdout.split()))):  # type: ignore[arg-type]
            return python
    return None


# the command line


def test_the_flags_and_their_defaults_are_the_plans() -> None:
    assert vars(setup.parser().parse_args(["--artifacts-dir", "x"])) == {
        "env_name": "vla_pi0",
        "python_version": "3.12",
        "lerobot_dir": None,
        "hf_home": None,
        "venv_dir": None,
        "artifacts_dir": Path("x"),
        "dry_run": False,
    }


def test_the_command_runs_with_the_standard_library_alone(copy: Copy) -> None:
    ended = copy.tracka("setup", "--help")
    assert ended.returncode == 0, ended.stderr
    for flag in ("env-name", "venv", "python-version", "lerobot-dir", "hf-home", "artifacts-dir", "dry-run"):
        assert f"--{flag}" in ended.stdout


def test_importing_the_set_up_imports_the_standard_library_alone() -> None:
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import tracka.install.setup"
    code += "; print(*sys.modules, sep='\\n')"
    ended = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    loaded = {name.split(".")[0] for name in ended.stdout.split()}
    assert "tracka" in loaded
    assert loaded - sys.stdlib_module_names <= {"tracka", "__main__", "__mp_main__"}


@pytest.mark.parametrize("words", [["--dry-run"], ["--help"], ["--env-name", "../x"], ["--artifacts-dir"], ["--none"]])
def test_tracka_setup_and_python_m_tracka_setup_are_one_command(tmp_path: Path, words: list[str]) -> None:
    given, environ = ("setup", "--dry-run", "--artifacts-dir", str(tmp_path), *words), {"COLUMNS": "100"}
    module = subprocess.run(
        [sys.executable, "-m", "tracka", *given],
        cwd=REPOSITORY,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )
    faces = [Made(tmp_path, environ).call(*given), module]
    assert len({(face.returncode, face.stdout, face.stderr) for face in faces}) == 1, faces
    assert faces[0].returncode == (0 if words[0] in ("--dry-run", "--help") else 2)


def test_without_a_folder_for_the_artifacts_it_exits_with_2_and_names_the_flag(copy: Copy) -> None:
    ended = copy.tracka("setup", "--dry-run")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--artifacts-dir" in ended.stderr and "Traceback" not in ended.stderr


# refusals


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "a b", "x" * 65])
@pytest.mark.usefixtures("nothing_starts")
def test_a_name_that_is_no_plain_name_is_refused_with_2(
    place: Place, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    before = contents(place.root.parent)
    assert place.set_up("--env-name", name) == 2
    assert f"error: --env-name: {name!r} is not a plain name. " in capsys.readouterr().err
    assert contents(place.root.parent) == before


@pytest.mark.parametrize("version", ["3.10", "3.13", "3", "three"])
@pytest.mark.usefixtures("nothing_starts")
def test_another_python_version_is_refused_with_2_and_the_lerobot_that_needs_it(
    place: Place, capsys: pytest.CaptureFixture[str], version: str
) -> None:
    before = contents(place.root.parent)
    assert place.set_up("--python-version", version) == 2
    said = capsys.readouterr().err
    assert f"error: --python-version: lerobot {LEROBOT_VERSION} needs Python 3.12, not {version}. " in said
    assert contents(place.root.parent) == before


def write_project(folder: Path, text: str) -> None:
    files.write_text(folder / "pyproject.toml", text)


def read_only(folder: Path) -> None:
    make_checkout(folder)
    folder.chmod(0o555)


# What may lie where a checkout is looked for, and why none of it can be installed.
NO_CHECKOUTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (Path.mkdir, "is not a checkout of lerobot (pyproject.toml: No such file or directory)"),
    "a file": (Path.touch, "is not a checkout of lerobot (pyproject.toml: Not a directory)"),
    "a broken link": (
        lambda folder: folder.symlink_to("nowhere"),
        "is not a checkout of lerobot (pyproject.toml: No such file or directory)",
    ),
    "broken": (
        lambda folder: write_project(folder, "[project\n"),
        "is not a checkout of lerobot (pyproject.toml is broken: ",
    ),
    "no text": (
        lambda folder: (folder.mkdir(), (folder / "pyproject.toml").write_bytes(b"\xff\xfe")),
        "is not a checkout of lerobot (pyproject.toml is broken: ",
    ),
    "no table": (
        lambda folder: write_project(folder, "project = 'lerobot'\n"),
        "is not a checkout of lerobot (pyproject.toml names the project None)",
    ),
    "a fork": (
        lambda folder: make_checkout(folder, name="lerobot-fork"),
        "is not a checkout of lerobot (pyproject.toml names the project 'lerobot-fork')",
    ),
    "an old one": (lambda folder: make_checkout(folder, "0.4.0"), f"holds lerobot 0.4.0, not {LEROBOT_VERSION}"),
    "a dynamic one": (
        lambda folder: write_project(folder, "[project]\nname = 'lerobot'\ndynamic = ['version']\n"),
        f"holds lerobot without a fixed version, not {LEROBOT_VERSION}",
    ),
    "read-only": (read_only, "cannot be written, and the installation writes there"),
}


@pytest.fixture
def unprivileged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom permissions hold, also where the tests run as root."""
    real = os.access

    def access(path: Path, mode: int, **options: bool) -> bool:
        missing = mode & os.W_OK and os.path.lexists(path) and not Path(path).stat().st_mode & 0o222
        return not missing and real(path, mode, **options)

    monkeypatch.setattr(os, "access", access)


@pytest.fixture
def refusal(place: Place, capsys: pytest.CaptureFixture[str], nothing_starts: None) -> Callable[[Path], str]:
    """What is said of a lerobot folder that is refused with 2, nothing started and nothing written."""

    def refuse(folder: Path) -> str:
        before = contents(place.root.parent)
        assert place.set_up("--lerobot-dir", str(folder)) == 2
        assert contents(place.root.parent) == before
        return capsys.readouterr().err

    return refuse


@pytest.mark.usefixtures("unprivileged")
@pytest.mark.parametrize(("make", "why"), NO_CHECKOUTS.values(), ids=NO_CHECKOUTS)
def test_a_named_folder_that_is_no_usable_checkout_is_refused_with_2_and_the_reason(
    place: Place, refusal: Callable[[Path], str], make: Callable[[Path], object], why: str
) -> None:
    folder = place.root.parent / "lerobot"
    make(folder)
    said = refusal(folder)
    assert f"error: --lerobot-dir: {folder} {why}" in said
    assert f". Check out v{LEROBOT_VERSION} in this folder, or leave the flag out" in said


def test_a_named_folder_that_is_missing_is_refused_with_2(place: Place, refusal: Callable[[Path], str]) -> None:
    folder = place.root.parent / "lerobot"
    assert f"error: --lerobot-dir: {folder} is not a checkout of lerobot" in refusal(folder)


@pytest.mark.usefixtures("nothing_starts", "unprivileged")
@pytest.mark.parametrize(
    ("make", "why"),
    [*NO_CHECKOUTS.values(), (make_checkout, "is not a Git checkout")],
    ids=[*NO_CHECKOUTS, "without Git"],
)
def test_what_lies_in_the_default_place_and_cannot_be_used_is_left_alone_and_said(
    place: Place, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object], why: str
) -> None:
    default = setup.default_checkout()
    default.parent.mkdir(parents=True)
    make(default)
    assert place.set_up("--dry-run") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{default} is not used: it {why}") and "; lerobot comes from the lock\n" in said
    assert "would install lerobot from the lock; " in said


def test_a_wrong_checkout_in_the_default_place_is_said_in_the_log_and_the_lock_is_installed(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    default = make_checkout(setup.default_checkout(), "0.4.0")
    assert place.set_up() == 0
    line = (
        f"set-up: {default} is not used: it holds lerobot 0.4.0, not {LEROBOT_VERSION}; lerobot comes from the lock\n"
    )
    said = capsys.readouterr().out
    assert line in said and line in place.log
    assert "is complete\n" in said and said.endswith("Next: tracka doctor, then tracka init first --smoke\n")
    assert str(default) not in place.ran[-1]
    assert provision.is_current(place.root, place.venv)


@pytest.mark.parametrize("named", [False, True], ids=["in the default place", "named"])
def test_a_checkout_whose_installation_fails_fails_the_set_up_only_where_it_was_named(
    place: Place, capsys: pytest.CaptureFixture[str], named: bool
) -> None:
    default = make_git_checkout(setup.default_checkout())
    place.fails_at = str(default)
    code = place.set_up(*(("--lerobot-dir", str(default)) if named else ()))
    said = capsys.readouterr()
    if named:
        assert code == 4 and "said by step 4" in said.err
    else:
        why = "the command ended: exit code 1: said by step 4"
        assert f"set-up: {default} is not used: {why}; lerobot comes from the lock\n" in said.out
        assert code == 0 and place.ran[-1][-2:] == ["--editable", str(place.root)]
        assert provision.is_current(place.root, place.venv)


@pytest.mark.parametrize("below", ["", "deeper/still"])
@pytest.mark.parametrize("flag", ["--hf-home", "--artifacts-dir"])
@pytest.mark.usefixtures("nothing_starts")
def test_a_folder_with_a_file_in_its_way_is_refused_with_2(
    place: Place, capsys: pytest.CaptureFixture[str], flag: str, below: str
) -> None:
    folder = place.root.parent / "file" / below
    (place.root.parent / "file").touch()
    before = contents(place.root.parent)
    assert place.set_up(flag, str(folder)) == 2
    assert f"error: {flag}: {folder} cannot be written. " in capsys.readouterr().err
    assert contents(place.root.parent) == before


def test_everything_that_is_wrong_is_said_at_once_and_nothing_is_written(copy: Copy) -> None:
    (copy.root.parent / "file").touch()
    before = contents(copy.root.parent)
    wrong = {"--env-name": "../x", "--python-version": "3.10", "--lerobot-dir": "none", "--hf-home": "../file/x"}
    for dry in ((), ("--dry-run",)):
        ended = copy.set_up(*(word for item in wrong.items() for word in item), *dry)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert [line.split(": ")[:2] for line in ended.stderr.splitlines()] == [["error", flag] for flag in wrong]
    assert contents(copy.root.parent) == before


# a dry run


@pytest.mark.usefixtures("nothing_starts")
def test_a_dry_run_says_what_it_would_do_and_does_nothing(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(place.root.parent)
    assert place.set_up("--dry-run") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"would make {place.venv} with {sys.executable} from {place.root}/requirements.lock",
        f"{len(user_lock.versions(LOCK))} packages of the lock will be added to {place.venv}",
        "would install lerobot from the lock; HF_HOME unchanged",
        f"would write setup.log, pip_freeze.txt and env_snapshot.json into {place.artifacts}",
    ]
    assert contents(place.root.parent) == before


@pytest.mark.usefixtures("nothing_starts")
def test_a_dry_run_says_what_the_flags_change(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    checkout, cache = make_checkout(place.root.parent / "lerobot"), place.root.parent / "hub"
    words = ["--env-name", "other", "--lerobot-dir", str(checkout), "--hf-home", str(cache)]
    assert place.set_up("--dry-run", *words) == 0
    said = capsys.readouterr().out
    assert f"would make {place.root}/.venv-other with " in said
    assert f"would install lerobot from {checkout}; HF_HOME {cache}\n" in said


@pytest.mark.usefixtures("nothing_starts")
def test_on_a_host_with_local_storage_its_checkout_and_cache_are_the_defaults(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout = make_git_checkout(setup.DISK / "src" / "lerobot")
    assert place.set_up("--dry-run") == 0
    said = capsys.readouterr().out
    assert "is not used" not in said
    assert f"would install lerobot from {checkout}; HF_HOME {setup.DISK / 'huggingface'}\n" in said


# an installation


def test_an_installation_leaves_an_environment_its_log_and_its_snapshots(place: Place) -> None:
    assert place.set_up() == 0
    assert place.steps() == ["venv", "-r", "sync", "--editable"]
    assert place.ran[0][-1] == str(place.venv)
    assert provision.is_current(place.root, place.venv)
    assert {path.name for path in place.artifacts.iterdir()} >= SNAPSHOTS
    for argv in place.ran:
        assert f"$ {' '.join(argv)}\n" in place.log
    assert "said by step 3\nexit code 0\n" in place.log


def test_the_folders_name_follows_the_environments(place: Place) -> None:
    assert place.set_up("--env-name", "other") == 0
    assert place.ran[0][1:] == ["-m", "venv", "--clear", str(place.root / ".venv-other")]
    assert provision.is_current(place.root, place.root / ".venv-other")
    assert not place.venv.exists()


def test_a_checkout_of_the_right_lerobot_is_installed_in_place_of_the_locked_one(place: Place) -> None:
    checkout = make_checkout(place.root.parent / "lerobot")
    assert place.set_up("--lerobot-dir", str(checkout)) == 0
    assert place.steps() == ["venv", "-r", "sync", "--editable"]  # after the lock, which would put its own back
    words = place.ran[-1]
    assert words[words.index("--editable") :] == ["--editable", str(place.root), "--editable", str(checkout)]
    assert "--no-deps" in words and "--no-build-isolation" in words


def test_a_relative_checkout_is_that_of_the_callers_folder(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = make_checkout(place.root.parent / "lerobot")
    monkeypatch.chdir(checkout.parent)
    assert place.set_up("--lerobot-dir", "lerobot") == 0
    assert place.ran[-1][-2:] == ["--editable", str(checkout)]


def test_the_same_call_again_installs_nothing_and_another_lerobot_installs_again(place: Place) -> None:
    checkout = make_checkout(place.root.parent / "lerobot")
    given = ("--lerobot-dir", str(checkout))
    for words, steps in [((), 4), ((), 0), (given, 3), (given, 0), ((), 3)]:
        place.ran.clear()
        assert place.set_up(*words) == 0
        assert len(place.ran) == steps, words
    assert str(checkout) not in place.ran[-1]


def test_a_set_up_that_installs_nothing_says_so_after_the_log_of_the_first(place: Place) -> None:
    place.set_up()
    first = place.log
    shutil.rmtree(place.artifacts)
    place.set_up()
    assert place.log.startswith(first)
    assert f"{place.venv} is up to date: nothing to install" in place.log.removeprefix(first)
    assert "$ " not in place.log.removeprefix(first)


def test_an_environment_keeps_the_log_of_its_making_and_not_of_each_later_call(place: Place) -> None:
    place.set_up()
    kept = setup.log_file(place.venv).read_text()
    assert kept == place.log
    place.set_up()
    assert setup.log_file(place.venv).read_text() == kept


def test_the_log_of_a_first_part_is_still_there_after_the_call_that_finished(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(venv: Path) -> None:
        raise errors.InstallFailed(errors.Finding("assets", "no route", "Try again"))

    with monkeypatch.context() as patch:
        patch.setattr(provision, "place_libero_assets", fail)
        assert place.set_up() == 4
    assert place.set_up() == 0
    assert place.log.count("/uv pip sync ") == 2
    assert "error: assets: no route" in place.log


def test_the_log_of_an_installation_outlives_snapshots_that_failed(place: Place) -> None:
    make_venv(place.venv, "*inventory*", "exit 1")
    assert place.set_up() == 4
    make_venv(place.venv)
    assert place.set_up() == 0
    assert place.log.count("/uv pip sync ") == 1


def test_an_environment_that_cannot_describe_itself_is_a_failed_installation(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.set_up()
    make_venv(place.venv, "*inventory*", "echo no module named tracka >&2; exit 1")
    assert place.set_up() == 4
    assert "the new environment cannot write its snapshots: no module named tracka. " in capsys.readouterr().err
    assert "no module named tracka" in place.log


def test_the_log_is_private_to_the_user(place: Place) -> None:
    place.set_up()
    assert (place.artifacts / "setup.log").stat().st_mode & 0o077 == 0


def test_a_terminal_gets_the_steps_and_the_log_the_commands_too(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.set_up()
    *said, done, following = capsys.readouterr().out.splitlines()
    assert len(said) == 1 + 2 * 5 and all(line.startswith("set-up: ") for line in said)
    assert set(said) <= set(place.log.splitlines())
    assert done.startswith("done: ") and following.startswith("Next: tracka doctor")


# the snapshots


def test_the_snapshots_are_of_the_new_environment(place: Place) -> None:
    place.set_up()
    make_venv(place.venv, "*inventory*", 'echo "$3" > "$3/asked"; exit')
    place.set_up()
    assert (place.artifacts / "asked").read_text().strip() == str(place.artifacts)


def test_the_record_of_packages_is_the_preflights(place: Place) -> None:
    place.set_up()
    assert (place.artifacts / "pip_freeze.txt").read_text() == inventory.pip_freeze()
    assert files.read_json(place.artifacts / "env_snapshot.json").keys() == inventory.env_snapshot().keys()


def test_preflight_puts_the_log_of_the_environments_making_beside_its_snapshots(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place.set_up()
    monkeypatch.setattr(sys, "prefix", str(place.venv))
    inventory.write(tmp_path / "preflight")
    assert (tmp_path / "preflight" / "setup.log").read_text() == place.log
    (tmp_path / "preflight" / "setup.log").write_text("that of tracka setup")
    inventory.write(tmp_path / "preflight")
    assert (tmp_path / "preflight" / "setup.log").read_text() == "that of tracka setup"


def test_an_environment_of_other_making_says_so_in_place_of_a_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert inventory.setup_log() == f"{tmp_path} was not made by tracka setup\n"


# the hub's cache


def test_a_cache_that_was_named_once_holds_for_every_later_command(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = place.root.parent / "disk of my own" / "hub"
    assert place.set_up("--hf-home", str(cache)) == 0
    assert cache.is_dir()
    assert files.read_json(place.artifacts / "env_snapshot.json")["env"]["HF_HOME"] == str(cache)
    assert place.set_up() == 0
    monkeypatch.setattr(sys, "prefix", str(place.venv))
    assert environment.base()["HF_HOME"] == str(cache)


def in_the_way(disk: Path) -> None:
    (disk / "huggingface").touch()


def nobodys(disk: Path) -> None:
    disk.chmod(0o555)


@pytest.mark.usefixtures("unprivileged")
@pytest.mark.parametrize("spoil", [in_the_way, nobodys])
def test_a_default_cache_that_cannot_be_written_is_said_and_the_users_own_holds(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(sys, "prefix", str(place.venv))
    setup.DISK.mkdir()
    assert place.set_up() == 0
    assert environment.hf_home() == str(setup.default_cache())
    setup.default_cache().rmdir()
    spoil(setup.DISK)
    line = f"{setup.default_cache()} is not used: it cannot be written; HF_HOME stays the user's own\n"
    for words in (["--dry-run"], []):
        capsys.readouterr()
        assert place.set_up(*words) == 0
        assert line in capsys.readouterr().out
    assert environment.hf_home() != str(setup.default_cache())


def test_a_default_cache_that_the_file_system_refuses_is_said_and_the_users_own_holds(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    setup.DISK.mkdir()
    monkeypatch.setattr(folders, "make_folder", refuse)
    assert place.set_up() == 0
    assert f"set-up: {setup.default_cache()} is not used: Permission denied; " in capsys.readouterr().out
    assert not setup.hub_cache_file(place.venv).exists()


def test_a_relative_cache_is_remembered_whole(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.root.parent)
    assert place.set_up("--hf-home", "hub") == 0
    monkeypatch.setattr(sys, "prefix", str(place.venv))
    monkeypatch.chdir(place.root)
    assert environment.hf_home() == str(place.root.parent / "hub")


@pytest.mark.parametrize(
    ("caller", "told", "found"),
    [
        ("/data/hub", "/disk/hub", "/data/hub"),
        ("/data/hub", None, "/data/hub"),
        (None, "/disk/hub", "/disk/hub"),
        ("", "/disk/hub", "/disk/hub"),
        (None, None, "~/.cache/huggingface"),
    ],
)
def test_the_cache_is_the_callers_else_the_one_told_at_set_up_else_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: str | None, told: str | None, found: str
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    if caller is not None:
        monkeypatch.setenv("HF_HOME", caller)
    if told is not None:
        files.write_text(setup.hub_cache_file(tmp_path), f"{told}\n")
    assert environment.hf_home() == str(Path(found).expanduser())


@pytest.mark.parametrize("xdg", [False, True])
def test_the_users_cache_is_where_the_hubs_client_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, xdg: bool
) -> None:
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if xdg:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code = "from huggingface_hub.constants import HF_HOME; print(HF_HOME)"
    clients = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert environment.hf_home() == clients


# a tool is missing


def test_a_checkout_without_its_lock_exits_with_3(copy: Copy) -> None:
    (copy.root / "requirements.lock").unlink()
    ended = copy.set_up()
    assert ended.returncode == 3, ended.stderr
    lock = copy.root / "requirements.lock"
    what = f"error: {lock}: the lock file is missing. Restore the checkout, or install Track A again\n"
    assert ended.stderr == what
    assert what in copy.log
    assert not (copy.root / ".venv").exists()


@pytest.mark.parametrize(
    "wanted",
    [lambda version: (3, 8) <= version < (3, 12), lambda version: version > (3, 12)],
    ids=["older", "newer"],
)
def test_a_python_of_another_version_is_one_line_and_3(copy: Copy, wanted: Callable[[tuple[int, int]], bool]) -> None:
    python = another_python(wanted)
    if python is None:
        pytest.skip("this machine has no such Python")
    ended = copy.set_up(python=python)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.startswith("error: Track A needs Python 3.12, and this is 3.")
    assert ended.stderr.count("\n") == 1
    assert not (copy.root / ".venv").exists() and not copy.artifacts.exists()


# an installation that fails


def test_an_index_that_cannot_be_reached_exits_with_4_and_the_command_in_the_log(copy: Copy) -> None:
    ended = copy.set_up()
    assert ended.returncode == 4, ended.stderr
    python = copy.root / ".venv" / "bin" / "python"
    (command,) = [line for line in copy.log.splitlines() if line.startswith("$ ") and "--require-hashes" in line]
    assert str(python) in command and "--no-deps" in command
    for text in (copy.log, ended.stderr):
        assert command.removeprefix("$ ") in text and "setuptools" in text
        assert PASSWORD not in text
    assert ended.stderr.startswith("error: ") and "Check the package index" in ended.stderr
    assert "Traceback" not in ended.stderr and PASSWORD not in ended.stdout
    assert not provision.stamp_path(copy.root / ".venv").exists()
    assert not (copy.artifacts / "pip_freeze.txt").exists()


def test_no_password_that_an_installer_prints_reaches_the_log_or_the_terminal(copy: Copy) -> None:
    asked = "*require-hashes*"
    make_venv(copy.root / ".venv", asked, 'echo "Looking in $PIP_INDEX_URL"; exit 1')
    ended = copy.set_up()
    assert ended.returncode == 4, ended.stderr
    for text in (copy.log, ended.stderr):
        assert "Looking in http://127.0.0.1:1/simple" in text
    assert PASSWORD not in copy.log + ended.stdout + ended.stderr


def test_no_password_that_the_hubs_client_prints_reaches_the_log_or_the_terminal(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(provision, "place_libero_assets", assets.place_libero_assets)
    make_python(place.venv / "bin" / "hf", "*", f"echo no route to {NO_INDEX} >&2; exit 1")
    make_venv(place.venv)
    assert place.set_up() == 4
    said = capsys.readouterr()
    assert "no route to" in said.err and "no route to" in place.log
    assert PASSWORD not in place.log + said.out + said.err


def test_a_folder_that_is_no_environment_exits_with_3_and_is_left_alone(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    files.write_text(place.venv / "photo.png", "png")
    before = contents(place.root)
    assert place.set_up("--hf-home", str(place.root.parent / "hub")) == 3
    assert f"error: {place.venv}: this folder is not a virtual environment. " in capsys.readouterr().err
    assert (contents(place.root), place.ran) == (before, [])


@pytest.mark.parametrize("step", ["venv", "-r", "sync", "--editable"])
def test_a_step_that_fails_exits_with_4_its_last_words_and_no_later_step(
    place: Place, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    place.fails_at = step
    assert place.set_up() == 4
    assert place.steps()[-1] == step
    said = capsys.readouterr().err
    assert f"error: {' '.join(place.ran[-1])}: the command ended: exit code 1: said by step " in said
    assert f"; its last lines are:\nsaid by step {len(place.ran)}\n" in said
    assert said.removeprefix("error: ").strip() in place.log
    assert not (place.artifacts / "pip_freeze.txt").exists()
    place.fails_at = "nothing"
    assert place.set_up() == 0


@pytest.mark.parametrize("artifacts", ["../artifacts", "/proc/none/artifacts"], ids=["environment", "artifacts"])
def test_what_the_system_refuses_is_an_error_and_no_traceback(copy: Copy, artifacts: str) -> None:
    (copy.root / ".venv-taken").touch()
    ended = copy.tracka("setup", "--artifacts-dir", artifacts, "--env-name", "taken")
    assert ended.returncode in (1, 2, 3, 4)
    assert ended.stderr.startswith("error: ") and "Traceback" not in ended.stderr
    assert (copy.root / ".venv-taken").is_file()


# the real thing


def test_a_second_set_up_of_this_repository_installs_nothing_and_describes_it(tmp_path: Path) -> None:
    wanted = setup.EnvironmentOptions(tmp_path / "preflight")
    stamp, kept = provision.stamp_path(wanted.venv), setup.log_file(wanted.venv)
    # Or the call below would install for minutes, into the environment that runs these tests.
    assert provision.is_current(REPOSITORY, wanted.venv, wanted.lerobot), "run `make setup` first"
    made = stamp.stat().st_mtime_ns
    first = kept.read_text() if kept.exists() else ""
    start = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "tracka", "setup", "--artifacts-dir", str(wanted.artifacts_dir)],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert time.monotonic() - start < 20
    assert stamp.stat().st_mtime_ns == made
    log = (wanted.artifacts_dir / "setup.log").read_text()
    assert log.startswith(first)
    said = log.removeprefix(first)
    assert f"{wanted.venv} is up to date: nothing to install\n" in said and "$ " not in said
    assert {path.name for path in wanted.artifacts_dir.iterdir()} >= SNAPSHOTS
    snapshot = json.loads((wanted.artifacts_dir / "env_snapshot.json").read_text())
    assert snapshot["versions"]["lerobot"].split("+")[0] == LEROBOT_VERSION
    assert f"lerobot=={LEROBOT_VERSION}\n" in (wanted.artifacts_dir / "pip_freeze.txt").read_text()


@pytest.mark.parametrize("words", [["--artifacts-di", "x"], ["--artifacts-dir", ""]], ids=["abbreviated", "empty"])
def test_a_flag_cut_short_and_a_folder_without_a_name_are_refused_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        setup.main(words)
    assert ended.value.code == 2


def test_the_log_tells_the_command_of_a_set_up_that_succeeded_alone(tmp_path: Path) -> None:
    command = setup.EnvironmentOptions(tmp_path, env_name="other", hf_home=Path("hub cache")).command
    assert command.endswith(f"--env-name other --python-version 3.12 --hf-home 'hub cache' --artifacts-dir {tmp_path}")
    log = tmp_path / "setup.log"
    log.write_text(f"2026-01-01T00:00:00Z begins: {command}\n")
    assert setup.commands(log) == {}
    log.write_text(f"{log.read_text()}2026-01-01T00:01:00Z made .venv-other: {command}\n")
    assert setup.commands(log) == {command: ".venv-other"}
