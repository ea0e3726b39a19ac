"""Says what an installation changes in an environment, before it does, and what does not fit together after it.

Standard library only: the set-up runs this module before anything is installed.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..core import parsing
from ..core.counting import counted
from . import user_lock

INSTALLED = """
import importlib.metadata, json
print(json.dumps({each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}))
"""
KEPT = frozenset({"pip", "tracka", "lerobot-policy-replay"})  # in no lock, and never removed
# Requirements of hf-libero that need a compiler, and that nothing of LIBERO's simulation imports.
LEFT_OUT = ("hf-egl-probe", "robomimic")
UNFIT = re.compile(r"^The package `.*$", re.MULTILINE)


def sentences(venv: Path, lock: str, removes: bool) -> Iterator[str]:
    """Yields what an installation of `lock` into `venv` adds and changes, and what it removes where it `removes`.

    Packages that are added are counted, those that are changed or removed are named.
    """
    there, wanted = _installed(venv), user_lock.versions(lock)
    added = wanted.keys() - there.keys()
    others = [name for name in sorted(wanted.keys() & there.keys()) if _normal(there[name]) != _normal(wanted[name])]
    changed = [f"{name} {there[name]} -> {wanted[name]}" for name in others]
    if added:
        yield f"{counted(len(added), 'package')} of the lock will be added to {venv}"
    if changed:
        yield f"{counted(len(changed), 'installed version')} will change: {', '.join(changed)}"
    foreign = sorted(there.keys() - wanted.keys() - KEPT)
    if removes and foreign:
        yield f"{counted(len(foreign), 'package')} will be removed, which the lock has not: {', '.join(foreign)}"


def _normal(version: str) -> str:
    """Returns a version as an installation writes it: the 1.0-2 of an old release is 1.0.post2 (PEP 440)."""
    return re.sub(r"-(\d+)$", r".post\1", version.lower())


def _installed(venv: Path) -> Mapping[str, str]:
    """Returns the version of each package in an environment; nothing where there is none."""
    argv = [str(venv / "bin" / "python"), "-I", "-c", INSTALLED]
    if not Path(argv[0]).exists():
        return {}
    try:
        answer = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        found = parsing.json_value(answer.stdout.encode())
    except (OSError, ValueError):
        return {}
    return {user_lock.canonical(name): str(version) for name, version in found.items() if name}


def unfit(checked: str) -> list[str]:
    """Returns the packages that do not fit together by what `uv pip check` said, without those that are left out."""
    return [line for line in UNFIT.findall(checked) if not any(f"`{name}" in line for name in LEFT_OUT)]
