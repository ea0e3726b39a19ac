"""What the installed lerobot-eval understands: asked once, merged over policy types, refused with what to do."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from campaigns import REPOSITORY, SETTINGS, Made

from tracka.campaign import campaign
from tracka.core import files, schema
from tracka.core.errors import ToolMissing, UsageError
from tracka.engines import cli_capabilities, program_version
from tracka.install import assets

TRUSTED = ["lerobot_policy_x"]

PI0_HELP = REPOSITORY / "tests" / "data" / "lerobot-eval-logs" / "help-env-libero-policy-pi0.txt"
# Notes each call, and answers as lerobot-eval does: flags of a policy type only where that is named.
PROGRAM = """#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/calls"
echo "usage: lerobot-eval [-h] [--output_dir [Path]]"
case "$*" in *--env.type=libero*) echo "  --env.task_ids [list[int]]";; esac
case "$*" in *--policy.type=pi0*) echo "  --policy.dtype str";; esac
case "$*" in *--policy.type=act*) echo "  --policy.use_vae bool";; esac
"""


@dataclass(frozen=True)
class Fake:
    """A lerobot-eval of shell, and the folder for what is discovered of it."""

    program: Path
    state: Path

    def write(self, text: str) -> None:
        self.program.write_text(text)
        self.program.chmod(0o755)

    def calls(self) -> list[str]:
        """Returns the words of each call for help, in their order."""
        return [line for line in self.all_calls() if line != "--version"]

    def all_calls(self) -> list[str]:
        log = self.program.with_name("calls")
        return log.read_text().splitlines() if log.exists() else []

    def discover(self, *policy_types: str) -> files.Json:
        return cli_capabilities.discover(self.state, [str(self.program)], policy_types, trusted=TRUSTED)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Fake(tmp_path / "bin" / "lerobot-eval", tmp_path / "state")
    made.program.parent.mkdir()
    made.write(PROGRAM)
    return made


def test_the_help_is_asked_for_libero_and_each_policy_type_and_merged(fake: Fake) -> None:
    found = fake.discover("pi0", "act")
    assert fake.calls() == [
        "--env.type=libero --policy.type=pi0 --help",
        "--env.type=libero --policy.type=act --help",
    ]
    flags = {"--env.task_ids", "--output_dir", "--policy.dtype", "--policy.path", "--policy.use_vae"}
    assert set(found["supported_flags"]) == flags
    assert found["policy_types"] == ["pi0", "act"]


def test_without_a_policy_type_libero_alone_is_asked_for(fake: Fake) -> None:
    assert fake.discover()["supported_flags"] == ["--env.task_ids", "--output_dir", "--policy.path"]
    assert fake.calls() == ["--env.type=libero --help"]


def test_the_flags_of_paths_are_added_because_no_help_names_them() -> None:
    assert "--policy.path" not in PI0_HELP.read_text()
    assert "--policy.path" in cli_capabilities.flags(PI0_HELP.read_text())


def test_the_real_help_gives_the_flags_that_campaigns_use() -> None:
    used = {"env.type", "env.task", "env.task_ids", "env.episode_length", "eval.batch_size", "eval.use_async_envs"}
    used |= {"policy.device", "policy.n_action_steps", "policy.dtype", "seed", "rename_map", "output_dir"}
    assert {f"--{name}" for name in used} <= set(cli_capabilities.flags(PI0_HELP.read_text()))


def test_a_text_without_flags_has_none() -> None:
    assert cli_capabilities.flags("") == []
    assert cli_capabilities.flags("command -- not found, see a--b") == []


def test_what_is_found_is_written_beside_the_raw_help(fake: Fake) -> None:
    found = fake.discover("pi0")
    written = files.read_json(fake.state / "cli_capabilities.json")
    assert written == found
    assert schema.findings("cli_capabilities", written, "") == []
    assert "--policy.dtype str" in (fake.state / written["lerobot_eval_help_text_path"]).read_text()
    assert written["executable"] == [str(fake.program)]


METADATA = f"lerobot {metadata.version('lerobot')}"
REFUSES = "echo 'lerobot-eval: error: unrecognized arguments: --version' >&2; exit 2"
ANSWERS = {
    "name and version": ("echo lerobot-eval 0.7.1", "lerobot-eval 0.7.1"),
    "the version alone": ("echo 0.7.1", "0.7.1"),
    "in words": ("echo 'lerobot-eval, version v0.7.1.dev3+g12ab'", "lerobot-eval, version v0.7.1.dev3+g12ab"),
    "with a commit": ("echo 'lerobot 0.7.1 (commit 12ab)'", "lerobot 0.7.1 (commit 12ab)"),
    "after warnings": ("echo 'WARNING: slow' >&2; echo 'INFO 2026-01-01 go'; echo 'lerobot 0.7.1'", "lerobot 0.7.1"),
    "on stderr": ("echo lerobot 0.7.1 >&2", "lerobot 0.7.1"),
    "lerobot 0.6.1's refusal": (REFUSES, METADATA),
    "a version and a failure": ("echo lerobot-eval 0.7.1; exit 1", METADATA),
    "a version in a sentence": ("echo made for CUDA 12.4 and torch 2.7", METADATA),
    "a date": ("echo 2026-01-01", METADATA),
    "silence": (":", METADATA),
    "a crash": ("kill -9 $$", METADATA),
    "help": ("echo 'usage: lerobot-eval [-h]'", METADATA),
}


def answering(answer: str) -> str:
    """A lerobot-eval that does `answer` when it is asked for its version."""
    first, rest = PROGRAM.split("\n", 1)
    return f'{first}\ncase "$*" in --version) {answer}; exit;; esac\n{rest}'


@pytest.mark.parametrize(("answer", "version"), ANSWERS.values(), ids=ANSWERS)
def test_the_version_is_what_the_program_says_else_the_metadatas(fake: Fake, answer: str, version: str) -> None:
    fake.write(answering(answer))
    assert fake.discover()["version_text"] == version


def test_the_version_is_asked_for_once_and_again_of_a_changed_program(fake: Fake) -> None:
    for _ in range(2):
        fake.discover("pi0")
        assert fake.all_calls().count("--version") == 1
    fake.write(answering("echo lerobot-eval 9.9"))
    assert fake.discover("pi0")["version_text"] == "lerobot-eval 9.9"


def test_a_program_that_does_not_end_is_ended_with_its_children_and_asked_again_later(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_time, child = fake.program.with_name("in_time"), fake.program.with_name("child")
    fake.write(
        answering(f"if [ -e {in_time} ]; then echo lerobot-eval 9.9; else sleep 77 & echo $! > {child}; wait; fi")
    )
    with monkeypatch.context() as patch:
        patch.setattr(program_version, "VERSION_SECS", 0.5)
        assert fake.discover()["version_text"] == METADATA
    assert not Path(f"/proc/{child.read_text().strip()}").exists()
    in_time.touch()
    assert fake.discover()["version_text"] == "lerobot-eval 9.9"


def test_untrusted_plugins_are_refused_before_the_version_is_asked_for(other: "Other") -> None:
    with pytest.raises(UsageError, match="lerobot_policy_x"):
        cli_capabilities.discover(other.fake.state, (), (), other.python)
    assert other.fake.all_calls() == []


@pytest.mark.parametrize("line", ["#!{python}", "#!/bin/sh\n'''exec' '{python}' \"$0\" \"$@\"\n' '''"])
def test_the_metadata_are_those_of_the_programs_own_python(other: "Other", fake: Fake, line: str) -> None:
    """Installers write both forms as the first line of a program, the second where the path is long."""
    body = "import sys; print('  --seed int'); sys.exit('--version' in sys.argv)"
    fake.write(f"{line.format(python=other.python)}\n{body}\n")
    assert fake.discover()["version_text"] == "lerobot 0.5.7"


def test_a_help_that_is_kept_is_not_asked_for_again(fake: Fake) -> None:
    first = fake.discover("pi0")
    again = fake.discover("pi0")
    assert len(fake.calls()) == 1
    assert again["supported_flags"] == first["supported_flags"]
    fake.discover("pi0", "act")
    assert len(fake.calls()) == 2


def test_a_changed_program_is_asked_again(fake: Fake) -> None:
    fake.discover("pi0")
    fake.write(PROGRAM + "echo '  --env.new bool'\n")
    assert "--env.new" in fake.discover("pi0")["supported_flags"]
    assert len(fake.calls()) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "#!/bin/sh\necho '--fine'\necho 'first' >&2\necho 'ImportError: no torch' >&2\nexit 1\n",
            "ImportError: no torch",
        ),
        ("#!/bin/sh\nexit 3\n", "exit code 3"),
        ("#!/bin/sh\necho hello\n", "exit code 0"),
        ("#!/none/interpreter\n", "cannot be invoked"),
        ("#!/bin/sh\nkill -9 $$\n", "ended by signal 9, which the kernel's out-of-memory killer sends"),
    ],
    ids=["exit 1", "silent", "no help", "no interpreter", "killed"],
)
def test_a_program_that_gives_no_help_is_a_missing_tool(fake: Fake, text: str, said: str) -> None:
    fake.write(text)
    with pytest.raises(ToolMissing) as caught:
        fake.discover("pi0")
    (finding,) = caught.value.findings
    assert finding.where == str(fake.program)
    assert said in finding.what
    assert f"Run `{fake.program} --env.type=libero --policy.type=pi0 --help` by hand" in finding.remedy
    assert caught.value.exit_code == 3
    assert not (fake.state / "cli_capabilities.json").exists()


def test_a_program_that_broke_leaves_no_capabilities_of_earlier_times_and_its_reason(fake: Fake) -> None:
    fake.discover()
    fake.write("#!/bin/sh\necho 'ImportError: no torch' >&2\nexit 1\n")
    with pytest.raises(ToolMissing):
        fake.discover()
    assert not (fake.state / "cli_capabilities.json").exists()
    assert "ImportError: no torch" in (fake.state / "lerobot_eval_help.txt").read_text()


def test_a_failed_help_is_not_kept(fake: Fake) -> None:
    fake.write("#!/bin/sh\nexit 1\n")
    with pytest.raises(ToolMissing):
        fake.discover()
    fake.write(PROGRAM)
    assert fake.discover()["supported_flags"]


def test_a_missing_program_is_a_missing_tool(fake: Fake) -> None:
    fake.program.unlink()
    with pytest.raises(ToolMissing, match="cannot be invoked"):
        fake.discover()


def test_the_program_beside_the_named_python_is_found_first(fake: Fake) -> None:
    assert cli_capabilities.find(python=fake.program.with_name("python")) == (str(fake.program),)


def test_where_no_program_is_found_the_place_and_the_way_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match=f"{tmp_path}/lerobot-eval: lerobot-eval is not installed. Run `make setup`"):
        cli_capabilities.find(python=tmp_path / "python")


def test_a_type_that_no_setting_names_is_asked_of_the_checkpoint(make_campaign: Callable[..., Made]) -> None:
    made = make_campaign(settings=SETTINGS.replace('policy_type = "act"\n', ""))
    assert made.spec.defaults.policy_type is None
    assert cli_capabilities.policy_types(made.spec) == ["act"]


def test_a_training_runs_folder_has_its_policys_type_and_is_told_by_preflight(
    make_campaign: Callable[..., Made],
) -> None:
    made = make_campaign(settings=SETTINGS.replace('policy_type = "act"\n', ""))
    fake = made.root / "checkpoints" / "fake"
    fake.rename(made.root / "pretrained_model")
    fake.mkdir()
    (made.root / "pretrained_model").rename(fake / "pretrained_model")
    assert cli_capabilities.policy_types(made.spec) == ["act"]


def test_a_campaign_asks_for_the_policy_types_of_its_enabled_rows_once_each(made: Made) -> None:
    settings = made.layout.settings
    tables = "[rows.long_b1_e6]\npolicy_type = 'pi0'\n[rows.off_b1_e1]\npolicy_type = 'smolvla'\n"
    settings.write_text(settings.read_text() + tables)
    assert cli_capabilities.policy_types(campaign.load(made.root)) == ["act", "pi0"]


def test_for_a_campaign_files_that_say_the_same_stay_and_others_are_written_anew(made: Made) -> None:
    cli_capabilities.discover_for(made.spec)
    path, raw = made.layout.capabilities, made.layout.state / "lerobot_eval_help.txt"
    first, text = files.read_json(path) | {"generated_at_utc": "2026-01-01T00:00:00Z"}, raw.read_text()
    files.write_json(path, first)
    assert cli_capabilities.discover_for(made.spec) == first
    assert files.read_json(path) == first
    raw.write_text("--seed")
    cli_capabilities.discover_for(made.spec)
    assert raw.read_text() == text
    files.write_json(path, first | {"supported_flags": ["--seed"]})
    cli_capabilities.discover_for(made.spec)
    assert files.read_json(path)["supported_flags"] == first["supported_flags"]


def test_a_campaigns_own_program_is_taken_from_its_folder(made: Made) -> None:
    program = made.root / "bin" / "eval"
    files.write_text(program, PROGRAM)
    program.chmod(0o755)
    text = made.layout.settings.read_text().splitlines()
    kept = [line for line in text if not line.startswith("executable")]
    made.layout.settings.write_text("\n".join(["executable = ['bin/eval']", *kept]))
    assert cli_capabilities.executable(made.spec) == (str(program),)
    assert cli_capabilities.discover_for(made.spec)["executable"] == [str(program)]
    assert subprocess.run([program, "--help"], capture_output=True, check=True)


# the lerobot of another Python


@dataclass(frozen=True)
class Other:
    """A real virtual environment, with a lerobot that is one in name only."""

    prefix: Path
    fake: Fake

    @property
    def python(self) -> Path:
        return self.prefix / "bin" / "python"

    def install(self, name: str, version: str) -> None:
        for old in assets.site_packages(self.prefix).glob(f"{name}-*.dist-info/METADATA"):
            old.unlink()
        folder = assets.site_packages(self.prefix) / f"{name}-{version}.dist-info"
        files.write_text(folder / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    def discover(self, *policy_types: str) -> files.Json:
        return cli_capabilities.discover(self.fake.state, (), policy_types, self.python, TRUSTED)


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Other:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    prefix = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(prefix)], check=True)
    made = Other(prefix, Fake(prefix / "bin" / "lerobot-eval", tmp_path / "artifacts" / "state"))
    made.fake.write(PROGRAM)
    made.install("lerobot", "0.5.7")
    made.install("lerobot_policy_x", "1.2")
    made.install("numpy", "9.9")
    return made


def tracka_discover(state: Path, *words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `tracka discover` as from a shell whose PATH is `path` and the system's, no environment activated."""
    found = [str(path)] if path else []
    return subprocess.run(
        [sys.executable, "-m", "tracka", "discover", "--artifacts-dir", str(state), "--trust", *TRUSTED, *words],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": os.pathsep.join([*found, "/usr/bin", "/bin"])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_version_and_plugins_are_those_of_the_named_python_and_its_own_program_is_asked(
    other: Other, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(fake.program.parent), prepend=os.pathsep)
    found = other.discover("pi0")
    assert found["version_text"] == "lerobot 0.5.7"
    assert found["plugins"] == ["lerobot_policy_x 1.2"]
    assert found["executable"] == [str(other.fake.program)]
    assert "--policy.dtype" in found["supported_flags"]
    assert (other.fake.calls(), fake.calls()) == (["--env.type=libero --policy.type=pi0 --help"], [])


def test_our_own_python_by_another_of_its_names_is_our_own() -> None:
    own = cli_capabilities.installed_software()
    assert cli_capabilities.installed_software(Path(sys.executable).with_name("python3")) == own


def test_a_python_without_lerobot_says_so_in_place_of_a_version(other: Other) -> None:
    for old in assets.site_packages(other.prefix).glob("*/METADATA"):
        old.unlink()
    without_lerobot = cli_capabilities.Software("lerobot (not installed here)", ())
    assert cli_capabilities.installed_software(other.python) == without_lerobot


def test_every_distribution_has_the_name_and_version_that_the_standard_library_reads() -> None:
    folders = list(reversed(dict.fromkeys(reversed(sys.path))))
    known = [(item.metadata["Name"], item.version) for item in metadata.distributions(path=folders)]
    assert [(name, version) for name, version, _ in cli_capabilities.distributions()] == known


def test_a_folder_that_pytest_puts_before_the_others_counts_once_and_at_its_own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gates of an installed Track A are collected from the folder of all packages, which is then on it twice."""
    for name in ("one", "two"):
        files.write_text(tmp_path / name / f"{name}-1.dist-info" / "METADATA", f"Name: {name}\nVersion: 1\n\n")
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    monkeypatch.setattr(sys, "path", [one, two])
    plain = cli_capabilities.distributions()
    monkeypatch.setattr(sys, "path", [two, one, two])
    assert cli_capabilities.distributions() == plain
    assert [name for name, _, _ in plain] == ["one", "two"]


def test_a_distribution_that_comes_or_goes_or_changes_its_version_is_seen_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def versions() -> list[str]:
        return [version for name, version, _ in cli_capabilities.distributions() if name == "lerobot-policy-new"]

    monkeypatch.syspath_prepend(tmp_path)
    assert versions() == []
    for version in ("1", "2"):
        folder = tmp_path / f"lerobot_policy_new-{version}.dist-info"
        files.write_text(folder / "METADATA", f"Name: lerobot-policy-new\nVersion: {version}\n")
        assert versions() == [version]
        shutil.rmtree(folder)
    assert versions() == []


def test_what_is_installed_is_read_without_the_callers_own_packages(
    other: Other, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_text(tmp_path / "mine" / "lerobot-9.dist-info" / "METADATA", "Name: lerobot\nVersion: 9\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "mine"))
    monkeypatch.chdir(tmp_path / "mine")
    assert cli_capabilities.installed_software(other.python).version_text == "lerobot 0.5.7"


@pytest.mark.parametrize("name", ["lerobot", "lerobot_policy_x"])
def test_another_version_there_is_asked_again_and_the_same_is_not(other: Other, name: str) -> None:
    other.discover()
    other.discover()
    assert len(other.fake.calls()) == 1
    other.install(name, "7.7")
    found = other.discover()
    assert len(other.fake.calls()) == 2
    assert f"{name} 7.7" in [found["version_text"], *found["plugins"]]


def test_an_editable_plugin_is_known_by_its_code(other: Other, tmp_path: Path) -> None:
    code = tmp_path / "my plug-in" / "lerobot_policy_x" / "modeling_x.py"
    files.write_text(code, "x = 1\n")
    (place,) = assets.site_packages(other.prefix).glob("lerobot_policy_x*")
    origin = {"url": (tmp_path / "my plug-in").as_uri(), "dir_info": {"editable": True}}
    (place / "direct_url.json").write_text(json.dumps(origin))
    first = other.discover()["plugins"]
    assert re.fullmatch(r"lerobot_policy_x 1\.2\+[0-9a-f]{12}", first[0])
    code.touch()
    assert other.discover()["plugins"] == first
    code.write_text("x = 2\n")
    assert other.discover()["plugins"] != first


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 127\n", "#!/none/interpreter\n", "\x7fELF of another machine"])
def test_a_python_that_does_not_run_is_a_missing_tool_and_nothing_is_asked(other: Other, script: str) -> None:
    other.python.unlink()
    other.python.write_text(script)
    other.python.chmod(0o755)
    with pytest.raises(ToolMissing, match=f"{other.python}: this Python does not run"):
        other.discover()
    assert other.fake.calls() == []
    assert not (other.fake.state / "cli_capabilities.json").exists()


def test_without_a_program_of_its_own_the_one_in_path_is_not_taken(
    other: Other, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.discover()
    other.fake.program.unlink()
    monkeypatch.setenv("PATH", str(fake.program.parent), prepend=os.pathsep)
    with pytest.raises(ToolMissing, match=f"{other.fake.program}: lerobot-eval is not installed"):
        other.discover()
    assert fake.calls() == []
    assert not (other.fake.state / "cli_capabilities.json").exists()
    assert "lerobot-eval is not installed" in (other.fake.state / "lerobot_eval_help.txt").read_text()


def test_our_own_python_takes_the_program_in_path_where_none_is_beside_it(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_capabilities, "OWN", tmp_path / "python")
    monkeypatch.setenv("PATH", str(fake.program.parent))
    assert cli_capabilities.find(python=cli_capabilities.OWN) == (str(fake.program),)


def test_python_bin_names_the_python_by_its_path(other: Other) -> None:
    ended = tracka_discover(other.fake.state, "--python-bin", str(other.python))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"lerobot 0.5.7: 3 flags, in {other.fake.state}/cli_capabilities.json\n"
    written = files.read_json(other.fake.state / "cli_capabilities.json")
    assert (written["executable"], written["plugins"]) == ([str(other.fake.program)], ["lerobot_policy_x 1.2"])


def test_python_bin_names_a_python_in_path_by_its_name(other: Other) -> None:
    other.python.with_name("python-of-others").symlink_to("python")
    ended = tracka_discover(other.fake.state, "--python-bin", "python-of-others", "--dry-run", path=other.python.parent)
    assert ended.returncode == 0, ended.stderr
    assert f"would ask {other.fake.program} and write" in ended.stdout
    assert other.fake.calls() == [] and not other.fake.state.exists()


def test_where_the_named_python_has_no_lerobot_the_command_exits_with_3_although_one_is_in_path(
    other: Other, fake: Fake
) -> None:
    other.fake.program.unlink()
    for words in ((), ("--dry-run",)):
        ended = tracka_discover(other.fake.state, "--python-bin", str(other.python), *words, path=fake.program.parent)
        assert (ended.returncode, ended.stdout) == (3, "")
        where = f"error: {other.fake.program}: lerobot-eval is not installed. "
        assert ended.stderr.startswith(where) and "--python-bin" in ended.stderr
    assert fake.calls() == []


def test_a_python_that_is_not_there_exits_with_3(tmp_path: Path) -> None:
    ended = tracka_discover(tmp_path / "state", "--python-bin", str(tmp_path / "python"))
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.startswith(f"error: --python-bin: the program '{tmp_path}/python' does not exist. ")
    assert not (tmp_path / "state").exists()


def test_without_python_bin_it_is_the_environments_own_python_whatever_is_in_path(other: Other) -> None:
    ended = tracka_discover(other.fake.state, "--dry-run", path=other.python.parent)
    assert ended.returncode == 0, ended.stderr
    own = Path(sys.executable).with_name("lerobot-eval")
    assert ended.stdout == f"would ask {own} and write {other.fake.state}/cli_capabilities.json\n"
    assert other.fake.calls() == [] and not other.fake.state.exists()
