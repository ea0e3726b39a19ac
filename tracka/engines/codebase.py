"""Hashes the code that an evaluation imports, where a version does not identify it. None of that code is imported here.

lerobot, LIBERO and robosuite are hashed by their files, because people mend them in place. The same is done for each
package that is installed editable, and for what a row's process finds on PYTHONPATH before the installed package of
that name.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from ..core import fact_cache, files, hashing, reading
from ..core.hashing import Kind
from ..execution import environment
from . import cli_capabilities, software

# Distribution -> the package that is imported from it.
IN_PLACE = {"hf-libero": "libero", "lerobot": "lerobot", "robosuite": "robosuite"}
CUSTOMIZE = ("sitecustomize", "usercustomize")  # each Python that finds them imports them
# Track A plays no episode. The other names are of a project's own folders, which some packages install by mistake.
OTHERS = ("tracka", "build", "docs", "examples", "test", "tests", "wandb")
# LIBERO's tasks are hashed in the folders that its config.yaml names, so a package's own are left out.
PACKAGE = Kind(left_out=("__pycache__", "bddl_files", "init_files"), follows_links=True)
FOLDER = Kind(follows_links=True)
LIBERO_KEYS = ("bddl_files", "init_states")


@fact_cache.remembered
def hashes(root: Path) -> dict[str, str]:
    """Returns the hash of each package that is identified by its content, by name; a row's process starts in `root`."""
    packages, site = software.packages(root), _site_folders(root)
    package_hashes = {name: _package(module, site) for name, module in IN_PLACE.items() if name in packages.versions}
    for name, (folder, *modules) in packages.editable.items():
        parts = [package_hashes.get(name) or _package(module, site) for module in modules]
        package_hashes[name] = _combined_hash([*parts, hashing.of_kind(Path(folder), hashing.SOURCES)])
    package_hashes |= {name: _package(name, site) for name in CUSTOMIZE if _spec(name, site)}
    for name, value in (*_libero_tasks(root), *_on_python_path(root, site)):
        package_hashes.setdefault(name, value)  # Python imports the first of two on PYTHONPATH
    return package_hashes


def _libero_tasks(root: Path) -> Iterator[tuple[str, str]]:
    """Yields the hashes of LIBERO's task definitions and init states, in the folders that its config.yaml names."""
    import yaml

    path = root / environment.libero_config_path() / "config.yaml"
    libero_config: object = {}
    with contextlib.suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
        libero_config = yaml.safe_load(reading.text(path, reading.SETTINGS))
    for key in LIBERO_KEYS:
        folder = libero_config.get(key) if isinstance(libero_config, dict) else None
        yield f"hf-libero {key}", hashing.of_kind(root / str(folder), FOLDER) if folder else "not named"


def _site_folders(root: Path) -> list[str]:
    """Returns the folders from which a row's process imports installed packages.

    These folders hold distributions, or are added by .pth files in a folder that does. The import path of our own
    process may have more folders, such as the one that the process was started in.
    """
    python_path = {os.path.realpath(folder) for folder in cli_capabilities.python_path(root)}
    package_folders = [os.path.realpath(folder) for folder, state in cli_capabilities.path_state() if _is_site(state)]
    site = [folder for folder in dict.fromkeys(package_folders) if folder not in python_path]
    return [place for folder in site for place in (folder, *_pth_folders(Path(folder)))]


def _is_site(state: Sequence[cli_capabilities.Stamps]) -> bool:
    """Returns whether packages are installed in a folder with these distributions.

    An .egg-info alone does not count, because a checkout may hold one.
    """
    return any(name.endswith(".dist-info") for name, _ in state)


def _pth_folders(site: Path) -> Iterator[str]:
    for path in sorted(site.glob("*.pth")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            lines = [line.strip() for line in reading.text(path, reading.SETTINGS).splitlines()]
            yield from (str(site / line) for line in lines if line and not re.match(r"import\s|#", line))


def _package(module: str, site: Sequence[str]) -> str:
    """Returns the hash of a package's files, wherever it would be imported from, or of no files if it is not found."""
    spec = _spec(module, site)
    folders = list(spec.submodule_search_locations or [str(spec.origin)]) if spec else []
    return _combined_hash([hashing.of_kind(Path(folder), PACKAGE) for folder in folders])


def _spec(module: str, site: Sequence[str]) -> ModuleSpec | None:
    """Returns where an installed module is found: in the site folders, or by the finder of an editable install."""
    spec = PathFinder.find_spec(module, list(site))
    if spec and spec.loader:  # a mere folder has no loader and comes last
        return spec
    editable = (finder for finder in sys.meta_path if str(getattr(finder, "__module__", "")).startswith("__editable__"))
    return next((origin for finder in editable if (origin := finder.find_spec(module, None))), None)


def _on_python_path(root: Path, site: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields the name and hash of each module that a row's process imports from PYTHONPATH.

    Such a module replaces the installed or standard module of its name.
    """
    for place in cli_capabilities.python_path(root):
        folder = Path(place)
        if folder.is_file():  # a zip file, from which Python imports too
            yield f"PYTHONPATH: {folder.name}", hashing.of_kind(folder, FOLDER)
        for path in _entries(folder) if os.path.realpath(place) not in site else ():
            if _is_module(path) and _hides_another(path.name.partition(".")[0], site):
                yield f"PYTHONPATH: {path.name}", hashing.of_kind(path, PACKAGE)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_module(path: Path) -> bool:
    return (path / "__init__.py").is_file() or path.suffix in (".py", ".pyc", ".so")


def _hides_another(name: str, site: Sequence[str]) -> bool:
    """Returns whether a module of this name hides another module, or is imported for its name alone."""
    if name in CUSTOMIZE or name in sys.stdlib_module_names or name in IN_PLACE.values():
        return True
    if software.canonical_name(name) in software.OPTIONAL:
        return True
    return name not in OTHERS and _spec(name, site) is not None


def _combined_hash(parts: list[str]) -> str:
    return files.sha256(files.canonical(parts))
