"""What is installed without a checkout: the content of wheel and source distribution, and hints that work there."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import distributions
import pytest
from campaigns import REPOSITORY
from imports import MODULES
from packaging.requirements import Requirement

from tracka import new_campaign
from tracka.core import extras, installation

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CODE = "\n".join(ast.unparse(tree) for tree in MODULES.values())
PAGES = sorted(set(re.findall(r"installation\.page\('([\w./-]+)'\)", CODE)))
GENERATED = {"__pycache__", "artifacts", "build", "reports", ".venv", ".git"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that is built from it."""
    return distributions.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def in_wheel(built: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


@pytest.fixture(scope="module")
def in_source(built: Path) -> dict[str, bytes]:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        members = [
            (member.name.partition("/")[2], archive.extractfile(member)) for member in archive if member.isfile()
        ]
        return {name: content.read() for name, content in members if content}


def test_the_wheel_ships_the_lock_the_embedded_campaign_and_the_pages(in_wheel: dict[str, bytes]) -> None:
    assert in_wheel["tracka/install/data/requirements.lock"] == (REPOSITORY / "requirements.lock").read_bytes()
    configs = REPOSITORY / "tasks" / installation.SMOKE / "configs"
    for path in configs.iterdir():
        assert in_wheel[f"tracka/smoke/configs/{path.name}"] == path.read_bytes()
    assert "tracka/docs/install.md" in in_wheel


def test_neither_has_anything_that_was_generated(in_wheel: dict[str, bytes], in_source: dict[str, bytes]) -> None:
    for names in (in_wheel, in_source):
        assert [name for name in names if GENERATED & set(PurePosixPath(name).parts)] == []
        assert [name for name in names if name.endswith((".pyc", ".mp4", ".tar"))] == []


def test_the_source_distribution_has_licence_changes_and_the_same_lock(in_source: dict[str, bytes]) -> None:
    assert {"LICENSE", "CHANGELOG.md", "README.md", "pyproject.toml"} <= in_source.keys()
    assert in_source["requirements.lock"] == in_source["tracka/install/data/requirements.lock"]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_a_message_names_is_shipped(in_wheel: dict[str, bytes], name: str) -> None:
    assert f"tracka/docs/{name}" in in_wheel


# extras


def test_every_package_of_an_extra_is_known_by_its_modules() -> None:
    """A new package in pyproject.toml is named in core/extras.py, so that its absence is told in one line."""
    distributions = importlib.metadata.packages_distributions()
    for extra, modules in extras.PACKAGES.items():
        asked = {Requirement(line).name.lower() for line in PROJECT["optional-dependencies"][extra]}
        known = {name.lower() for module in modules for name in distributions.get(module, (f"{module}-sdk", module))}
        assert asked <= known, extra


@pytest.mark.parametrize(("module", "told"), [("scipy", "tracka[report]"), ("torch", installation.SETUP)])
def test_a_package_that_is_missing_is_told_with_what_brings_it(module: str, told: str) -> None:
    finding = extras.finding(ModuleNotFoundError("no", name=f"{module}.part"))
    assert finding is not None and told in finding.remedy and module in finding.what


def test_a_module_of_no_extra_is_no_matter_of_the_installation() -> None:
    assert extras.finding(ModuleNotFoundError("no", name="tracka.nothing")) is None


# hints


def test_no_message_names_a_command_of_a_checkout_alone() -> None:
    """`make setup` and `pytest acceptance` are there in a checkout only: two modules choose between them and others."""
    docstrings = {ast.get_docstring(node, clean=False) for tree in MODULES.values() for node in ast.walk(tree)
                  if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)}  # fmt: skip
    named = {
        module
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in docstrings
        if re.search(r"pytest acceptance|make setup", node.value)
    }
    # The last of the three speaks of a checkout alone.
    assert named == {"campaign.commands", "core.installation", "checkpoints.python_dependencies"}
    templates = "".join(path.read_text() for path in (REPOSITORY / "tracka").rglob("*.j2"))
    assert not re.search(r"pytest acceptance|make setup", templates)


# the plug-in in other people's sessions


def run_pytest(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs pytest in another project; the environment of the repository has the plug-in as every installation has."""
    entry_points = importlib.metadata.entry_points(group="pytest11")
    assert [entry.value for entry in entry_points if entry.name.startswith("tracka")] == ["tracka.pytest_entry"]
    command = [sys.executable, "-m", "pytest", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, **variables})


def test_other_sessions_have_no_option_of_track_a_and_end_as_without_it(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        "def test_own(pytestconfig):\n    assert not hasattr(pytestconfig.option, 'campaign')\n"
    )
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--tier')\n    parser.addoption('--owner')\n"
    )
    ended = run_pytest(tmp_path, "-q")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "--campaign" not in run_pytest(tmp_path, "--help").stdout


@pytest.mark.parametrize(
    "words",
    [
        ("acceptance", "--campaign", "mine", "-n", "2"),
        ("--campaign=mine",),
        ("acceptance",),
        ("acceptance/test_phase1_contracts.py",),
    ],
)
def test_the_command_of_a_checkout_is_answered_with_that_of_an_installation(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    ended = run_pytest(tmp_path, *words)
    others = " ".join(word for word in words if not word.startswith("acceptance"))
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    said = f"an installed Track A takes: pytest --pyargs tracka.acceptance {others}".strip()
    assert f"ERROR: no checkout of Track A is here; {said}\n" in ended.stderr
    assert "unrecognized" not in ended.stderr


@pytest.mark.parametrize(
    "words",
    [("--campaign", "spring"), ("-m", "acceptance"), ("-k", "acceptance"), ("acceptance",), ("own", "--tier=x")],
)
def test_other_peoples_own_options_and_folders_of_these_names_are_theirs(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    for name in ("acceptance", "own"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"test_{name}.py").write_text(
            "import pytest\n@pytest.mark.acceptance\ndef test_acceptance(): pass\n"
        )
    options = "".join(f"    parser.addoption('{name}')\n" for name in ("--campaign", "--tier"))
    (tmp_path / "conftest.py").write_text(f"def pytest_addoption(parser):\n{options}")
    ended = run_pytest(tmp_path, *words)
    assert ended.returncode == 0 and " passed" in ended.stdout, ended.stdout + ended.stderr


def test_a_session_that_names_the_gates_has_the_options(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, "--pyargs", "tracka.acceptance", "--help")
    assert "--campaign" in ended.stdout, ended.stderr


@pytest.mark.parametrize("no_autoload", ["", "1"])
def test_the_conftest_of_the_page_loads_the_gates_where_they_are_named_and_nothing_elsewhere(
    tmp_path: Path, no_autoload: str
) -> None:
    page = (REPOSITORY / "docs" / "install.md").read_text()
    (conftest,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    own = tmp_path / "own"
    own.mkdir()
    (own / "conftest.py").write_text(conftest)
    (own / "test_own.py").write_text("def test_own(pytestconfig): assert not hasattr(pytestconfig.option, 'campaign')")
    ended = run_pytest(own, "test_own.py", PYTEST_DISABLE_PLUGIN_AUTOLOAD=no_autoload)
    assert ended.returncode == 0 and "1 passed" in ended.stdout, ended.stdout + ended.stderr
    new_campaign.create_smoke(tmp_path / "elsewhere")
    words = ("--pyargs", "tracka.acceptance", "--campaign=../elsewhere", "--collect-only", "-q")
    plugins = {"PYTEST_PLUGINS": "xdist,pytest_timeout"} if no_autoload else {}
    ended = run_pytest(own, *words, PYTEST_DISABLE_PLUGIN_AUTOLOAD=no_autoload, **plugins)
    assert ended.returncode == 0 and "test_row[" in ended.stdout, ended.stdout + ended.stderr


def named(folder: Path, *words: str) -> str:
    """What the gates say of the campaign that `words` name, or name not, in a folder outside of a checkout."""
    ended = run_pytest(folder, "--pyargs", "tracka.acceptance", *words)
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR, ended.stdout
    return ended.stderr


def test_a_session_that_names_no_campaign_hears_of_those_that_are_here(tmp_path: Path) -> None:
    said = named(tmp_path)
    assert "no campaign is named. Make one, tracka init first --smoke, and name it: --campaign NAME" in said
    new_campaign.create_smoke(tmp_path / "first")
    said = named(tmp_path)
    assert "no campaign is named. Name one, as in: pytest --pyargs tracka.acceptance --campaign first\n" in said
    assert installation.SMOKE not in said


def test_a_mistyped_campaign_is_answered_with_the_close_match_and_a_name_that_is_free(tmp_path: Path) -> None:
    new_campaign.create_smoke(tmp_path / "first")
    said = named(tmp_path, "--campaign", "frist")
    assert "ERROR: frist: this is not a campaign: there is no such folder. Did you mean first? " in said
    assert "tasks/" not in said and "tracka init first-2 --smoke" in said


def test_the_plug_in_that_every_session_loads_imports_nothing_of_track_a(tmp_path: Path) -> None:
    code = "import sys; import tracka.pytest_entry; print([name for name in sys.modules if name.startswith('tracka')])"
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.stdout.strip() == "['tracka', 'tracka.pytest_entry']"
