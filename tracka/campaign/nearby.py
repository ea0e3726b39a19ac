"""Finds the campaigns around the user, and a name that no campaign here has."""

import itertools
from pathlib import Path

PLACES = ("configs/campaign.toml", "*/configs/campaign.toml", "tasks/*/configs/campaign.toml")


def campaigns(here: Path) -> list[Path]:
    """Returns the folders of the campaigns at `here`: this folder, those in it, and those below tasks/."""
    return [path.parent.parent for pattern in PLACES for path in sorted(here.glob(pattern))]


def smoke_command(here: Path) -> str:
    """Returns the command that makes the smoke campaign at `here`, with a name that is free."""
    names = itertools.chain(["first"], (f"first-{number}" for number in itertools.count(2)))
    free = next(name for name in names if not ((here / name).exists() or (here / "tasks" / name).exists()))
    return f"tracka init {free} --smoke"
