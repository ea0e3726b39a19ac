"""Checkpoints that a campaign builds for itself: what the builder is told, and when a folder is built anew."""

from pathlib import Path

import pytest
from campaigns import Made

from tracka import build
from tracka.errors import TrackaError

BUILDER = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
folder.mkdir()
(folder / "words").write_text(" ".join(sys.argv[2:]))
if "fail" in sys.argv:
    raise SystemExit("this builder was told to fail")
"""


@pytest.fixture(autouse=True)
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder `scribe`, which writes down its arguments."""
    program = tmp_path / "scribe.py"
    program.write_text(BUILDER)
    monkeypatch.setattr(build, "program", {"scribe": program}.__getitem__)


def built(made: Made, line: str) -> Path:
    """The checkpoint of a campaign whose [build] says `line`."""
    settings, head = made.layout.settings, "\n[build]\n"
    settings.write_text(f'{settings.read_text().split(head)[0]}{head}"checkpoints/made" = "{line}"\n')
    build.ensure(made.spec, "checkpoints/made")
    return made.root / "checkpoints" / "made"


@pytest.mark.parametrize("words", ["", "one", "libero_object/0:0,1 libero_goal/8:1-3"])
def test_what_follows_the_builders_name_is_handed_to_it(made: Made, words: str) -> None:
    assert (built(made, f"scribe {words}".strip()) / "words").read_text() == words


@pytest.mark.parametrize("line", ["scribe  two", "scribe ;", "scribe $HOME", "../scribe", "scribe "])
def test_a_line_that_is_no_name_and_plain_words_is_refused(made: Made, line: str) -> None:
    with pytest.raises(TrackaError, match=r"key \$\.build"):
        built(made, line)


def test_the_same_line_builds_nothing_again(made: Made) -> None:
    first = (built(made, "scribe one") / "words").stat()
    second = (built(made, "scribe one") / "words").stat()
    assert (first.st_ino, first.st_mtime_ns) == (second.st_ino, second.st_mtime_ns)


def test_a_changed_line_builds_anew_and_leaves_nothing_of_the_old_folder(made: Made) -> None:
    (built(made, "scribe one") / "junk").write_text("of the old one")
    folder = built(made, "scribe two")
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("words", "two")]


def test_the_old_folder_stays_whole_where_the_new_build_fails(made: Made) -> None:
    folder = built(made, "scribe one")
    for _ in range(2):  # the second time too: what failed is not taken for built
        with pytest.raises(TrackaError, match="this builder was told to fail"):
            built(made, "scribe fail")
        assert (folder / "words").read_text() == "one"
    assert (built(made, "scribe two") / "words").read_text() == "two"


def test_a_folder_that_was_not_built_here_is_left_alone(made: Made) -> None:
    folder = made.root / "checkpoints" / "made"
    folder.mkdir()
    (folder / "words").write_text("of a user")
    assert (built(made, "scribe one") / "words").read_text() == "of a user"


def test_a_folder_that_was_taken_away_is_built_again(made: Made) -> None:
    folder = built(made, "scribe one")
    folder.rename(folder.with_name("away"))
    assert (built(made, "scribe one") / "words").read_text() == "one"
