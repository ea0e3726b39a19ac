"""What the statistics import, and who imports them."""

import ast
import subprocess
import sys

import pytest
from imports import MODULES, named

STATISTICS = [module for module in MODULES if module.startswith("statistics.")]
ALLOWED = {"numpy", "scipy", "tracka.statistics", "tracka.core.errors"}


@pytest.mark.parametrize("module", STATISTICS)
def test_statistics_know_numbers_alone(module: str) -> None:
    elsewhere = {name for name in named(module) if name.split(".")[0] not in sys.stdlib_module_names}
    assert {name for name in elsewhere if not any(f"{name}.".startswith(f"{good}.") for good in ALLOWED)} == set()
    calls = {
        node.func.id
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print", "input"}


def test_the_command_is_imported_without_scipy() -> None:
    program = "import sys, tracka.cli; print(*sorted({'scipy', 'numpy', 'tracka.statistics'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


def test_the_statistics_need_neither_pandas_nor_scipys_and_statsmodels_large_modules() -> None:
    modules = ", ".join(f"tracka.{module}" for module in STATISTICS if not module.endswith("__init__"))
    program = f"import sys, {modules}; print(*sorted({{'pandas', 'statsmodels', 'scipy.stats'}} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
