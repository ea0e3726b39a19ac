"""The content of the code that an evaluation imports, where a version does not tell it. Nothing is imported here.

lerobot, LIBERO and robosuite count by their files, because people mend them in place; so does each package that is
installed editable, and what a row's process finds on PYTHONPATH before the installed package of that name.
"""

import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from . import digest, discover, environment, files, memo, software
from .digest import Kind

# Distribution -> the package that is imported from it.
IN_PLACE = {"hf-libero": "libero", "lerobot": "lerobot", "robosuite": "robosuite"}
CUSTOMIZE = ("sitecustomize", "usercustomize")  # imported by each Python that finds them
PACKAGE = Kind(
    (".cfg", ".json", ".py", ".so", ".toml", ".txt", ".xml", ".yaml", ".yml"),
    left_out=("__pycache__",),
    follows_links=True,
)
# LIBERO's tasks count by the folders that its config.yaml names; preflight holds its assets against their hashes.
LIBERO = replace(PACKAGE, left_out=(*PACKAGE.left_out, "assets", "bddl_files", "init_files"))
TASKS = Kind((".bddl", ".init", ".pruned_init"), follows_links=True)
LIBERO_KEYS = ("bddl_files", "init_states")


@memo.remembered
def hashes(root: Path) -> dict[str, str]:
    """The hash of each package that counts by its content, by its name; `root` is where a row's process starts."""
    packages = software.packages()
    found = {name: _package(module) for name, module in IN_PLACE.items() if name in packages.versions}
    for name, folder in packages.editable.items():
        module = found.get(name) or _package(name.replace("-", "_"))
        found[name] = _joined([module, digest.of_kind(Path(folder), digest.SOURCES)])
    for name, value in (*_libero_tasks(), *_on_python_path(root)):
        found.setdefault(name, value)  # of two modules on PYTHONPATH the first is imported
    return found


def _libero_tasks() -> Iterator[tuple[str, str]]:
    """The hashes of LIBERO's task definitions and of its init states, in the folders that its config.yaml names."""
    path = Path(environment.libero_config_path()) / "config.yaml"
    text = path.read_text(errors="replace") if path.is_file() else ""
    for key in LIBERO_KEYS:
        line = re.search(rf"^{key}:[ \t]*(.+?)[ \t]*$", text, re.MULTILINE)
        folder = Path(line[1].strip("\"'")) if line else None
        yield f"hf-libero {key}", digest.of_kind(folder, TASKS) if folder else "not named"


def _package(module: str) -> str:
    """The hash of a package's files, wherever it would be imported from; that of no files where nothing would be."""
    spec = _spec(module)
    folders = list(spec.submodule_search_locations or [str(spec.origin)]) if spec else []
    kind = LIBERO if module == "libero" else PACKAGE
    return _joined([digest.of_kind(Path(folder), kind) for folder in folders])


def _spec(module: str) -> ModuleSpec | None:
    """Where a row's process finds an installed module: neither in our own folder nor by PYTHONPATH, see below."""
    others = {"", str(Path.cwd()), *discover.python_path()}
    if spec := PathFinder.find_spec(module, [place for place in sys.path if place not in others]):
        return spec
    editable = (finder for finder in sys.meta_path if str(getattr(finder, "__module__", "")).startswith("__editable__"))
    return next((spec for finder in editable if (spec := finder.find_spec(module, None))), None)


def _on_python_path(root: Path) -> Iterator[tuple[str, str]]:
    """What a row's process imports from PYTHONPATH instead of the installed or standard module of that name."""
    for place in discover.python_path():
        folder = root / place
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if _is_module(path) and _comes_first(path.name.partition(".")[0]):
                yield f"PYTHONPATH: {path.name}", digest.of_kind(path, PACKAGE)


def _is_module(path: Path) -> bool:
    return (path / "__init__.py").is_file() or path.suffix in (".py", ".so")


def _comes_first(name: str) -> bool:
    """Whether a module of this name hides another, or is imported by its name alone."""
    if name in CUSTOMIZE or name in sys.stdlib_module_names or name in IN_PLACE.values():
        return True
    installed = Path(sysconfig.get_path("purelib")) / name
    return installed.exists() or installed.with_suffix(".py").exists()


def _joined(hashes: list[str]) -> str:
    return files.sha256(files.canonical(hashes))
