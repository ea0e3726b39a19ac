"""Takes the packages out of the lock that only people who develop Track A need.

The lock says of each package which other ones ask for it, and the metadata of Track A which extra asks for a package.
Standard library only: the set-up runs this module before anything is installed.
"""

import re
from collections.abc import Sequence

FOR_DEVELOPERS = ("dev", "docs", "validators", "rerun", "wandb", "trackio")  # extras that no campaign needs
BLOCK = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^\s;\\]+).*\n(?:[ \t]+.*\n?)*", re.MULTILINE)
VIA = re.compile(r"^ +#(?: via)? +([\w.-]+)", re.MULTILINE)
EXTRA = re.compile(r"extra == ['\"]([\w.-]+)['\"]")


def for_users(lock: str, requirements: Sequence[str]) -> str:
    """Returns the lock without the packages that only developers need.

    `requirements` are those of Track A, as its metadata has them; without any, the lock stays whole.
    """
    if not requirements:
        return lock
    pinned = blocks(lock)
    needed = {canonical(_name(line)) for line in requirements if not _is_for_developers(line)} & pinned.keys()
    via = {name: {canonical(other) for other in VIA.findall(text)} for name, text in pinned.items()}
    while more := {name for name, askers in via.items() if name not in needed and askers & needed}:
        needed |= more
    return "".join(text for name, text in pinned.items() if name in needed)


def blocks(lock: str) -> dict[str, str]:
    """Returns the lines that pin each package and its hashes, by the package's canonical name."""
    return {canonical(block["name"]): block[0] for block in BLOCK.finditer(lock)}


def versions(lock: str) -> dict[str, str]:
    """Returns the version of each package in a lock, by its canonical name."""
    return {canonical(block["name"]): block["version"] for block in BLOCK.finditer(lock)}


def canonical(name: str) -> str:
    """Returns a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _is_for_developers(requirement: str) -> bool:
    extras = EXTRA.findall(requirement)
    return bool(extras) and all(extra in FOR_DEVELOPERS for extra in extras)
