"""Entries of the user's cache that are damaged count as none, so that no damage outlives the next call."""

import shutil
from collections.abc import Callable
from pathlib import Path

import damages
import pytest
from campaigns import REPOSITORY, STANDIN

from tracka.core import files, reading, user_cache
from tracka.engines import cli_capabilities, software
from tracka.runs import recording

VALUE = {"text": "--flag", "more": [1, {"a": None}]}
COMMAND = ("python", str(STANDIN / "lerobot_eval.py"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tracka"


def kept(key: str = "key") -> Path:
    entry = user_cache.entry("kind", key)
    user_cache.keep(entry, VALUE)
    return entry


def test_what_is_kept_is_read() -> None:
    assert user_cache.read(kept()) == VALUE
    assert user_cache.read(user_cache.entry("kind", "other")) == {}


@pytest.mark.parametrize("kind", damages.KINDS)
def test_a_damaged_entry_counts_as_none_and_is_kept_anew(kind: str) -> None:
    entry = kept()
    damages.damage(entry, kind, kept("neighbour").read_bytes())
    assert user_cache.read(entry) == {}
    assert user_cache.read(kept()) == VALUE


def test_an_entry_of_which_one_value_was_changed_counts_as_none() -> None:
    entry = kept()
    entry.write_bytes(entry.read_bytes().replace(b"--flag", b"--flog"))
    assert user_cache.read(entry) == {}


def test_a_cache_that_cannot_be_written_costs_no_answer(own_cache: Path) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text("no folder")
    assert user_cache.read(kept()) == {}


def asked_for_help() -> object:
    return cli_capabilities.help_text(COMMAND)


def asked_for_packages() -> object:
    software._packages.cache_clear()
    return software.packages(REPOSITORY)


@pytest.mark.parametrize("ask", [asked_for_help, asked_for_packages])
@pytest.mark.parametrize("kind", ["cut", "list", "folder", "other"])
def test_a_fact_about_the_software_is_found_anew_where_its_entry_is_damaged(
    own_cache: Path, ask: Callable[[], object], kind: str
) -> None:
    answer = ask()
    for path in [path for path in own_cache.rglob("*.json") if path.is_file()]:
        damages.damage(path, kind, b'{"text": "no flags", "versions": [], "editable": 1}')
    assert ask() == answer


@pytest.mark.parametrize("kind", damages.KINDS)
def test_a_recording_of_the_reference_is_whole_or_played_again(own_cache: Path, kind: str) -> None:
    for name in ("a", "b"):
        folder = own_cache / "references" / name
        files.write_text(folder / recording.SECONDS, f'{{"seconds": {len(name)}}}')
        files.write_text(folder / "episodes.jsonl", f'{{"episode": "{name}"}}')
        user_cache.keep(folder / recording.SUMS, recording._sums(folder))
        assert recording._is_whole(folder)
    for path in files.walk_files(own_cache / "references" / "a"):
        shutil.copytree(own_cache / "references" / "a", own_cache / "copy")
        copy = own_cache / "copy" / path.name
        other = own_cache / "references" / "b" / path.name
        damages.damage(copy, kind, reading.content(other))
        same = copy.is_file() and reading.content(copy) == reading.content(path)
        assert recording._is_whole(own_cache / "copy") is same
        shutil.rmtree(own_cache / "copy")
