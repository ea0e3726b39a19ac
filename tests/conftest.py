"""Fixtures of the harness's own tests."""

from collections.abc import Callable
from pathlib import Path

import campaigns
import pytest
from campaigns import Made


@pytest.fixture
def make_campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Made]:
    """Makes a campaign whose stand-ins this process and its children find."""

    def make(*args: object, **kwargs: object) -> Made:
        made = campaigns.make(tmp_path / "campaign", *args, **kwargs)
        for name, value in made.environ.items():
            monkeypatch.setenv(name, value)
        return made

    return make


@pytest.fixture
def made(make_campaign: Callable[..., Made]) -> Made:
    """The usual campaign, before any phase."""
    return make_campaign()


@pytest.fixture
def ready(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """The usual campaign after phases 1 and 2."""
    campaigns.pass_preflight(made)
    return made
