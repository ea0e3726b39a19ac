"""The shape of the code: who imports whom, what collecting the gates costs, what the repository gives away."""

import ast
import graphlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from campaigns import REPOSITORY
from imports import LEVEL, MODULES, PACKAGE, edges, package, siblings, upward

from tracka.gates.phase_contracts import CONTRACTS
from tracka.gates.row_contracts import RUN_CONTRACTS

SIMULATION = {"torch", "lerobot", "libero", "robosuite", "mujoco"}
RESIDENT = "engines.resident."  # its modules run in an engine's own processes, so they import what they need at the top
LATE = {"pandas", "statsmodels", "jinja2", "av", "huggingface_hub", "matplotlib"}
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()
TABLES = dict(re.findall(r"^### `tracka/(\w*)/?`\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S))
COLLECT = ("-m", "pytest", "acceptance", "--collect-only", "-q", "-s")


def packages(tree: ast.AST) -> set[str]:
    """The packages from elsewhere that are imported."""
    nodes = list(ast.walk(tree))
    named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.split(".")[0] for name in named}


def at_import(tree: ast.Module) -> ast.Module:
    """The module without its functions: what runs when it is imported."""
    kept = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    return ast.Module(body=kept, type_ignores=[])


def tracked() -> list[Path]:
    """The files that are, or are about to be, in the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [REPOSITORY / name for name in listed.stdout.splitlines() if (REPOSITORY / name).is_file()]


# the gates

# Known when the phase hands over, after its last test.
AT_THE_END = {"baseline_summary", "summaries", "early_stop", "shared_evidence"}
RUNS = {"phase3": "baseline_", "phase4": "rows_"}


@pytest.mark.parametrize("phase", CONTRACTS)
def test_a_gate_holds_each_contract_of_its_phase(phase: str) -> None:
    (path,) = (REPOSITORY / "acceptance").glob(f"test_{phase}_*.py")
    tree = ast.parse(path.read_text())
    named = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    loops = {ast.unparse(node.iter) for node in ast.walk(tree) if isinstance(node, ast.For)}
    if "RUN_CONTRACTS" in loops:
        named |= {f"{RUNS[phase]}{name}" for name in RUN_CONTRACTS}
    assert set(CONTRACTS[phase]) - named - AT_THE_END == set()


def test_a_gate_asserts_by_contracts_alone() -> None:
    """An assert would print whole campaigns and reports."""
    gates = [ast.parse(path.read_text()) for path in (REPOSITORY / "acceptance").glob("test_*.py")]
    assert len(gates) == 5
    assert [ast.unparse(node) for tree in gates for node in ast.walk(tree) if isinstance(node, ast.Assert)] == []


COMMANDS = {  # these make the command themselves, for a campaign that they name
    "campaign.commands",
    "cli",
    "plugin",
    "reporting.progress",
}


def test_no_message_gives_the_command_of_the_gates_without_its_campaign() -> None:
    constants = (
        (module, node)
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "pytest acceptance" in node.value
    )
    docstrings = {ast.get_docstring(tree, clean=False) for tree in MODULES.values()}
    assert {module for module, node in constants if node.value not in docstrings} <= COMMANDS


# imports


def test_imports_make_no_circle() -> None:
    graph = {module: siblings(module) for module in MODULES}
    assert graph["runs.run"] >= {"runs.attempt", "runs.slurm_row", "runs.row_state"}  # they are seen at all
    graphlib.TopologicalSorter(graph).prepare()


def test_a_module_imports_from_its_own_package_and_those_before_it_in_the_order() -> None:
    assert {package(module) for module in MODULES} == set(LEVEL)
    assert upward(edges()) == []


def test_the_documentation_has_the_packages_in_that_order() -> None:
    assert [LEVEL[name] for name in TABLES] == sorted(LEVEL.values())


@pytest.mark.parametrize("name", LEVEL)
def test_every_module_is_named_in_its_packages_table(name: str) -> None:
    cells = re.findall(r"^\| (`.*?) \|", TABLES[name], re.M)
    named = set(re.findall(r"`([a-z_]+(?:\.py|/))`", "".join(cells)))
    there = {
        entry.name + "/" * entry.is_dir() for entry in (PACKAGE / name).iterdir() if not entry.name.startswith("_")
    }
    modules = {entry for entry in there if entry.endswith(".py")}
    assert modules <= named <= there


@pytest.mark.parametrize("name", [module for module in MODULES if module.endswith(".__init__")])
def test_a_package_is_a_docstring_and_its_modules(name: str) -> None:
    (node,) = MODULES[name].body
    assert isinstance(node, ast.Expr) and ast.get_docstring(MODULES[name])


def test_the_plugins_and_the_scheduler_alone_import_pytest() -> None:
    assert {module for module, tree in MODULES.items() if packages(tree) & {"pytest", "_pytest", "xdist"}} == {
        "for_conftest",
        "last_failed",
        "live_session",
        "plugin",
        "pytest_entry",
        "xdist_scheduling",
    }


def test_the_probes_and_the_resident_engine_alone_import_the_simulation() -> None:
    users = {module for module, tree in MODULES.items() if packages(tree) & SIMULATION}
    programs = ("preflight.probes.", "engines.reference", "engines.listener", "engines.replay", RESIDENT)
    assert users and all(module.startswith(programs) for module in users)


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith(RESIDENT)])
def test_what_is_dear_to_import_is_imported_in_functions(module: str) -> None:
    assert not packages(at_import(MODULES[module])) & (SIMULATION | LATE)


# what collecting costs


def collect(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Has Python collect the gates, its own cache in `folder`; `words` come first."""
    command = [sys.executable, *words, *COLLECT, "-o", f"cache_dir={folder}"]
    return subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def test_collecting_the_gates_imports_nothing_heavy(tmp_path: Path) -> None:
    ended = collect(tmp_path, "-X", "importtime")
    assert ended.returncode == 0, ended.stdout
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in ended.stderr.splitlines()}
    assert {"tracka", "pytest", "tomllib"} <= loaded
    heavy = {"anyio", "hydra", "jsonschema", "numpy", "scipy", "transformers", "matplotlib", "PIL"}
    assert not loaded & (SIMULATION | LATE | heavy)


def test_collecting_the_gates_takes_less_than_two_seconds_of_a_core(tmp_path: Path) -> None:
    def seconds() -> float:
        start = os.times()
        assert collect(tmp_path).returncode == 0
        end = os.times()
        return end.children_user + end.children_system - start.children_user - start.children_system

    assert min(seconds() for _ in range(3)) < 2


def test_the_gates_can_be_collected_where_no_cache_may_be_written() -> None:
    command = [sys.executable, *COLLECT, "-p", "no:cacheprovider"]
    ended = subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


# what the repository gives away


WORDS = {
    "path": "|".join(f"/{name}/" for name in ("root", "work", "home")),
    "registry": "|".join(
        rf"\b{name}\.{end}\b"
        for name, end in (
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("download.pytorch", "org"),
            ("anaconda", "(?:org|com)"),
            ("npmjs", "(?:org|com)"),
            ("docker", "io"),
            ("ghcr", "io"),
            ("quay", "io"),
            ("gcr", "io"),
            ("crates", "io"),
        )
    ),
    "index": "--(?:extra-)?index-url" + r"[ =]\S",
}


@pytest.mark.parametrize("pattern", WORDS.values(), ids=WORDS)
def test_no_file_names_the_build_machine_or_a_registry(pattern: str) -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for path in tracked()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == []
