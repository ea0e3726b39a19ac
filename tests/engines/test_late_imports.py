"""Imports that the resident engine puts off: what is used is real, and what is not used is not imported."""

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from campaigns import REPOSITORY

from tracka.engines.resident import late_imports
from tracka.engines.resident.late_imports import LATE, Finder, LateModule

NAMES = frozenset({"Real", "double", "Thing"})
CODE = """
loaded = True
class Real:
    kind = "real"
    def __init__(self, size=1): self.size = size
class Thing(Real): pass
def double(number): return 2 * number
OTHER = [1, 2]
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package whose modules `latepack` and `latepack.part` are late, and `latepack.other` is not."""
    folder = tmp_path / "latepack"
    folder.mkdir()
    (folder / "__init__.py").write_text("from .part import Real as Own\nROOT = 1\n")
    (folder / "part.py").write_text(CODE)
    (folder / "other.py").write_text("import latepack\nROOT = latepack.ROOT\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(late_imports, "LATE", {"latepack": frozenset(), "latepack.part": NAMES})
    monkeypatch.setattr(sys, "meta_path", [Finder("act"), *sys.meta_path])
    yield "latepack"
    for name in [name for name in sys.modules if name.partition(".")[0] == "latepack"]:
        del sys.modules[name]


def part() -> LateModule:
    module = importlib.import_module("latepack.part")
    assert isinstance(module, LateModule)
    return module


def is_loaded() -> bool:
    return "loaded" in vars(sys.modules["latepack.part"])


def test_a_late_name_imports_nothing_until_it_is_used(package: str) -> None:
    double, real = part().double, part().Real
    assert not is_loaded() and "ROOT" not in vars(sys.modules["latepack"])
    assert double(4) == 8 and is_loaded() and sys.modules["latepack"].ROOT == 1
    assert real.kind == "real" and real(3).size == 3 and real == sys.modules["latepack.part"].Real
    assert type(sys.modules["latepack.part"]).__name__ == "module"


def test_a_class_that_is_not_imported_has_no_instances(package: str) -> None:
    real = part().Real
    assert not isinstance(SimpleNamespace(), real) and not issubclass(int, real) and not is_loaded()
    made = part().Thing()
    assert isinstance(made, real) and issubclass(type(made), real) and not isinstance(1, real)


def test_a_late_class_that_is_subclassed_is_the_real_one(package: str) -> None:
    real = part().Real

    class Child(real):  # type: ignore[valid-type,misc]
        pass

    assert Child.__mro__[1] is sys.modules["latepack.part"].Real and isinstance(Child(), real)


@pytest.mark.parametrize("name", ["OTHER", "missing"])
def test_any_other_name_imports_the_module(name: str, package: str) -> None:
    assert getattr(part(), name, "none") == ([1, 2] if name == "OTHER" else "none")
    assert is_loaded()


def test_a_part_that_is_not_late_imports_its_package_first(package: str) -> None:
    assert importlib.import_module("latepack.other").ROOT == 1 and is_loaded() is False


def test_a_module_that_is_not_there_is_missing_as_ever(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_imports, "LATE", {"latepack.absent": NAMES})
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("latepack.absent")
    assert importlib.util.find_spec("latepack.absent") is None


def test_all_that_is_late_can_be_imported_at_once(package: str) -> None:
    part()
    late_imports.load_all()
    assert is_loaded()


def test_other_policies_are_late_and_the_one_that_is_asked_is_not() -> None:
    finder = Finder("pi0")
    names = [
        "groot",
        "groot.configuration_groot",
        "act.modeling_act",
        "pi0",
        "pi0.modeling_pi0",
        "factory",
        "pretrained",
    ]
    assert [finder._is_late(f"lerobot.policies.{name}") for name in names] == [True] * 3 + [False] * 4


@pytest.mark.parametrize("type_", ["diffusion", "replay", ""])
def test_a_policy_that_nobody_has_tried_gets_no_late_imports(type_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = list(sys.meta_path)
    late_imports.install(type_)
    assert sys.meta_path == before


def test_the_type_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"type": "act"}')
    assert late_imports.policy_type([f"--policy.path={tmp_path}", "--seed=1"]) == "act"
    assert late_imports.policy_type(["--policy.path=lerobot/some", "--seed=1"]) == ""


PROGRAM = """
import importlib, json, sys, time
from tracka.engines.resident import late_imports
late_imports.install(sys.argv[1])
from lerobot.configs import parser
from tracka.engines.resident import player, settings
late = sorted(name for name, module in sys.modules.items() if isinstance(module, late_imports.LateModule)
              and not late_imports.is_loaded(module))
seconds = time.process_time()
def real(name):
    module = importlib.import_module(name)
    return late_imports.load(module) if isinstance(module, late_imports.LateModule) else module
named = late_imports.LATE.items() if sys.argv[2:] else ()
wrong = [f"{module}.{name}" for module, names in named for name in names if not hasattr(real(module), name)]
print(json.dumps([late, len(sys.modules), seconds, wrong]))
"""


def imported(*words: str) -> tuple[list[str], float, list[str]]:
    command = [sys.executable, "-c", PROGRAM, *words]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    late, _, seconds, wrong = json.loads(ended.stdout.splitlines()[-1])
    return late, seconds, wrong


@pytest.mark.slow
@pytest.mark.parametrize("type_", late_imports.TYPES)
def test_the_engine_imports_less_and_each_late_name_is_there(type_: str) -> None:
    late, seconds, wrong = imported(type_, "look")
    _, before, _ = imported("none")
    print(f"{type_}: {before:.2f} s of CPU, now {seconds:.2f} s, late: {', '.join(late)}")
    assert wrong == [] and seconds < 0.8 * before
    assert {"diffusers", "peft", "lerobot.policies.groot"} <= set(late)
    assert ({"transformers", "torch._dynamo"} <= set(late)) == (type_ == "act")


def test_each_late_module_is_a_part_of_what_it_is_below() -> None:
    assert all(importlib.util.find_spec(name.partition(".")[0]) for name in LATE)
