"""The commands that messages give."""

from pathlib import Path

import pytest
from campaigns import REPOSITORY

from tracka.campaign import commands
from tracka.campaign.layout import Layout

TASKS, ELSEWHERE = REPOSITORY / "tasks", Path("/elsewhere")
PACKAGED = "pytest --pyargs tracka.acceptance"


@pytest.mark.parametrize(
    ("root", "options", "command"),
    [
        (TASKS / commands.DEFAULT, "", "pytest acceptance"),
        (TASKS / commands.DEFAULT, "--lf", "pytest acceptance --lf"),
        (TASKS / "mine", "-m phase2", "pytest acceptance --campaign tasks/mine -m phase2"),
        (TASKS / "my own", "", "pytest acceptance --campaign 'tasks/my own'"),
        (ELSEWHERE / commands.DEFAULT, "", f"{PACKAGED} --campaign /elsewhere/{commands.DEFAULT}"),
        (ELSEWHERE / "mine", "--lf", f"{PACKAGED} --campaign /elsewhere/mine --lf"),
    ],
)
def test_the_command_names_every_campaign_but_the_embedded_one(root: Path, options: str, command: str) -> None:
    assert commands.gates(Layout(root), options) == command


def test_the_embedded_campaign_is_there() -> None:
    assert (TASKS / commands.DEFAULT / "configs").is_dir()
