"""What the installed lerobot-eval understands: asked once, merged over policy types, refused with what to do."""

import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from campaigns import Made

from tracka import campaign, discover, files, schema
from tracka.errors import ToolMissing

PI0_HELP = Path(__file__).parent / "data" / "lerobot-eval-logs" / "help-env-libero-policy-pi0.txt"
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
        log = self.program.with_name("calls")
        return log.read_text().splitlines() if log.exists() else []

    def discover(self, *policy_types: str) -> files.Json:
        return discover.discover(self.state, [str(self.program)], policy_types)


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
    assert "--policy.path" in discover.flags(PI0_HELP.read_text())


def test_the_real_help_gives_the_flags_that_campaigns_use() -> None:
    used = {"env.type", "env.task", "env.task_ids", "env.episode_length", "eval.batch_size", "eval.use_async_envs"}
    used |= {"policy.device", "policy.n_action_steps", "policy.dtype", "seed", "rename_map", "output_dir"}
    assert {f"--{name}" for name in used} <= set(discover.flags(PI0_HELP.read_text()))


def test_a_text_without_flags_has_none() -> None:
    assert discover.flags("") == []
    assert discover.flags("command -- not found, see a--b") == []


def test_what_is_found_is_written_beside_the_raw_help(fake: Fake) -> None:
    found = fake.discover("pi0")
    written = files.read_json(fake.state / "cli_capabilities.json")
    assert written == found
    assert schema.findings("cli_capabilities", written, "") == []
    assert "--policy.dtype str" in (fake.state / written["lerobot_eval_help_text_path"]).read_text()
    assert written["executable"] == [str(fake.program)]


def test_the_version_comes_from_the_packages_metadata(fake: Fake) -> None:
    assert fake.discover()["version_text"] == f"lerobot {metadata.version('lerobot')}"


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
        ("#!/bin/sh\nkill -9 $$\n", "exit code -9"),
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
    assert discover.find(python=fake.program.with_name("python")) == (str(fake.program),)


def test_where_no_program_is_found_the_place_and_the_way_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match=f"{tmp_path}/lerobot-eval: lerobot-eval is not installed. Run `make setup`"):
        discover.find(python=tmp_path / "python")


def test_a_campaign_asks_for_the_policy_types_of_its_enabled_rows_once_each(made: Made) -> None:
    settings = made.layout.settings
    tables = "[rows.long_b1_e6]\npolicy_type = 'pi0'\n[rows.off_b1_e1]\npolicy_type = 'smolvla'\n"
    settings.write_text(settings.read_text() + tables)
    assert discover.policy_types(campaign.load(made.root)) == ["act", "pi0"]


def test_a_campaigns_own_program_is_taken_from_its_folder(made: Made) -> None:
    program = made.root / "bin" / "eval"
    files.write_text(program, PROGRAM)
    program.chmod(0o755)
    text = made.layout.settings.read_text().splitlines()
    kept = [line for line in text if not line.startswith("executable")]
    made.layout.settings.write_text("\n".join(["executable = ['bin/eval']", *kept]))
    assert discover.executable(made.spec) == (str(program),)
    assert discover.discover_for(made.spec)["executable"] == [str(program)]
    assert subprocess.run([program, "--help"], capture_output=True, check=True)
