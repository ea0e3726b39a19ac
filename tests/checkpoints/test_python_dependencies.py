"""What a policy imports beyond lerobot itself: looked for before anything starts, and named with what installs it."""

import importlib.metadata
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from campaigns import REPOSITORY, Made, fake_checkpoint
from checkpoints import change_json

from tracka.campaign.campaign import Campaign
from tracka.campaign.layout import Layout
from tracka.checkpoints import checkpoint, python_dependencies
from tracka.core.check import Check
from tracka.core.errors import TrackaError
from tracka.install import provision
from tracka.preflight import policy_resources

(WHERE,) = find_spec("lerobot").submodule_search_locations or ()  # type: ignore[union-attr]
SOURCES = {path: path.read_text() for path in (Path(WHERE) / "policies").rglob("*.py")}
NEEDED = [(kind, name) for kind, (_, names) in python_dependencies.TYPES.items() for name in names]
# What lerobot requires where a policy is trained alone: a dataset's own statistics.
IN_TRAINING = {("groot", "datasets")}
REQUIRE = r'require_package\(\s*"([\w.-]+)",\s*extra="([\w-]+)"'


def campaign_with(root: Path, kind: str, **config: object) -> Campaign:
    """A campaign of lerobot's own program, with a checkpoint of this type in `policy`."""
    fake_checkpoint(root / "policy")
    change_json(root / "policy" / "config.json", lambda value: value.update(type=kind, **config))
    return Campaign(Layout(root), (), "", 0)


def check(spec: Campaign) -> Check:
    (found,) = (each for each in policy_resources.policy_checks(spec, "policy") if each.name == "imports:policy")
    return found


def hide(monkeypatch: pytest.MonkeyPatch, *hidden: str) -> None:
    """Lets these distributions not be found, and every other one be."""
    modules = {python_dependencies.MODULES.get(name, name) for name in hidden}
    monkeypatch.setattr(python_dependencies, "find_spec", lambda name: None if name in modules else object())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.6.1")


@pytest.mark.parametrize(("kind", "name"), NEEDED)
def test_a_package_that_is_not_installed_fails_the_check_by_its_name_and_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    spec = campaign_with(tmp_path, kind, **dict.fromkeys(python_dependencies.ONLY_IF.get((kind, name), ()), "x"))
    hide(monkeypatch)
    assert check(spec).status == "pass"
    hide(monkeypatch, name)
    found = check(spec)
    assert found.status == "fail" and found.required
    assert f"a {kind}" in found.evidence and f"imports {name}, which is not installed" in found.evidence
    locked = f"\n{name}==" in (REPOSITORY / provision.LOCK).read_text()
    extra = python_dependencies.TYPES[kind][0]
    command = "make setup" if locked else f"{sys.executable} -m pip install 'lerobot[{extra}]==0.6.1'"
    assert f"Run `{command}`" in str(found.remedy)


@pytest.mark.parametrize(("kind", "name"), python_dependencies.ONLY_IF)
def test_what_a_policy_imports_by_a_key_of_its_config_is_not_asked_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    hide(monkeypatch, name)
    assert check(campaign_with(tmp_path, kind)).status == "pass"


def test_an_adapter_asks_for_peft_whatever_its_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = checkpoint.Checkpoint("x", None, tmp_path, "act", "")
    spec = campaign_with(tmp_path, "act")
    (tmp_path / "config.json").write_text('{"use_peft": true}')
    hide(monkeypatch, "peft")
    with pytest.raises(TrackaError, match=r"act with an adapter imports peft.*make setup"):
        python_dependencies.require(point, spec)
    monkeypatch.setattr(python_dependencies, "_locked_packages", set)
    with pytest.raises(TrackaError, match=r"pip install 'lerobot\[peft\]==0\.6\.1'"):
        python_dependencies.require(point, spec)


def test_a_python_without_pip_is_given_the_uv_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = campaign_with(tmp_path, "wall_x")
    hide(monkeypatch, "torchdiffeq", "pip")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert f"Run `uv pip install --python {tmp_path}/python 'lerobot[wallx]==0.6.1'`" in str(check(spec).remedy)
    (tmp_path / "uv").touch()
    assert f"Run `{tmp_path}/uv pip install --python" in str(check(spec).remedy)


def test_a_plug_ins_type_and_a_program_of_its_own_are_not_looked_into(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "a plug-in's policy type" in check(campaign_with(tmp_path / "plugin", "replay")).evidence
    hide(monkeypatch, "transformers")
    point = checkpoint.Checkpoint("x", None, tmp_path, "pi0", "")
    python_dependencies.require(point, made.spec)
    with pytest.raises(TrackaError):
        python_dependencies.require(point, campaign_with(tmp_path / "own", "pi0"))


def test_what_a_policy_imports_here_is_installed(tmp_path: Path) -> None:
    assert check(campaign_with(tmp_path, "smolvla")).evidence == "smolvla: transformers, num2words, accelerate"


# the table against lerobot


def test_every_type_of_lerobots_has_its_line() -> None:
    registered = {kind for text in SOURCES.values() for kind in re.findall(r'register_subclass\("(\w+)"\)', text)}
    assert registered == python_dependencies.TYPES.keys()


def required_in(kind: str) -> set[tuple[str, str]]:
    """What lerobot's own code of a type requires, each with the extra that it names."""
    texts = [text for path, text in SOURCES.items() if path.relative_to(Path(WHERE) / "policies").parts[0] == kind]
    return {each for text in texts for each in re.findall(REQUIRE, text)}


@pytest.mark.parametrize("kind", python_dependencies.TYPES)
def test_what_lerobots_code_of_a_type_requires_is_looked_for(kind: str) -> None:
    extra, names = python_dependencies.TYPES[kind]
    required = {each for each in required_in(kind) if (kind, each[0]) not in IN_TRAINING}
    assert {name for name, _ in required} <= set(names)
    assert {named.replace("_", "-") for _, named in required} <= {extra}


def of_extra(extra: str) -> set[str]:
    """The distributions that an extra of lerobot's brings, with those of the extras that it names."""
    found: set[str] = set()
    for line in importlib.metadata.requires("lerobot") or ():
        if re.search(rf'extra == "{re.escape(extra)}"', line):
            inner = re.match(r"lerobot\[([\w-]+)\]", line)
            name = re.match(r"[\w.-]+", line)
            found |= of_extra(inner[1]) if inner else {name[0]} if name else set()
    return found


@pytest.mark.parametrize("kind", [kind for kind, (extra, _) in python_dependencies.TYPES.items() if extra])
def test_the_extra_that_the_command_names_brings_all_that_is_looked_for(kind: str) -> None:
    extra, names = python_dependencies.TYPES[kind]
    assert set(names) <= of_extra(extra) and names
