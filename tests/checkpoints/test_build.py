"""Checkpoints that a campaign builds for itself: what the builder is told, and when a folder is built anew."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from campaigns import REPOSITORY, Made

from tracka.checkpoints import build
from tracka.core import files
from tracka.core.errors import TrackaError

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
    program = tmp_path / "builders" / "scribe.py"
    program.parent.mkdir()
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
    with pytest.raises(TrackaError, match=r"key build\."):
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


CHANGES: dict[str, Callable[[Path], object]] = {
    "builder": lambda folder: (folder / "scribe.py").write_text(f"{BUILDER}\n# mended\n"),
    "module": lambda folder: files.write_text(folder / "parts" / "helper.py", "x = 1\n"),
    "data": lambda folder: files.write_text(folder / "data" / "libero_object.jsonl", "{}\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_builder_or_its_changed_data_build_anew(made: Made, change: str, tmp_path: Path) -> None:
    first = (built(made, "scribe one") / "words").stat()
    CHANGES[change](tmp_path / "builders")
    assert (built(made, "scribe one") / "words").stat().st_mtime_ns != first.st_mtime_ns


def test_a_builder_that_was_only_touched_builds_nothing_again(made: Made, tmp_path: Path) -> None:
    first = (built(made, "scribe one") / "words").stat()
    (tmp_path / "builders" / "scribe.py").touch()
    assert (built(made, "scribe one") / "words").stat().st_mtime_ns == first.st_mtime_ns


# the builders as programs


REFUSALS: list[tuple[str, Sequence[str], str]] = [
    ("replay", (), "required: folder, choice"),
    ("replay", ("new",), "required: choice"),
    ("replay", ("new", "everything"), "'everything' is not a choice"),
    ("replay", ("new", "libero_object/0:99"), "there is no demonstration of"),
    ("replay", ("there", "all"), "there exists"),
    ("replay", ("no/where", "all"), "no is not a folder"),
    ("faulty", ("new", "boredom"), "invalid choice: 'boredom'"),
    ("faulty", ("new", "nan", "soon"), "invalid int value: 'soon'"),
    ("tiny_act", ("new", "more"), "unrecognized arguments: more"),
    ("random_pi0", ("new", "--n-action-steps", "51"), "cannot be greater than chunk_size (50)"),
]
# Runs one program after the other, for each of them begins with ten seconds of lerobot's import.
ONE_BY_ONE = """
import contextlib, io, json, os, runpy, sys, traceback
said = []
for program, words, folder in json.loads(sys.argv[1]):
    os.chdir(folder)
    sys.argv = [program, *words]
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            runpy.run_path(program, run_name="__main__")
            code = 0
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            code = 1
            traceback.print_exc()
    said.append([code, errors.getvalue()])
print("said:", json.dumps(said))
"""


def program_of(builder: str) -> str:
    return str(REPOSITORY / "fixtures" / f"{builder}.py")


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, list[str]]]:
    """What became of each of the REFUSALS: exit status, last words, and what lies in its folder beside `there`."""
    folders = [tmp_path_factory.mktemp("refused") for _ in REFUSALS]
    for folder in folders:
        (folder / "there").mkdir()
    works = [
        (program_of(builder), words, str(folder)) for (builder, words, _), folder in zip(REFUSALS, folders, strict=True)
    ]
    command = [sys.executable, "-c", ONE_BY_ONE, json.dumps(works)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout.rpartition("said:")[2])
    left = [[path.name for path in folder.iterdir() if path.name != "there"] for folder in folders]
    return [(code, text, names) for (code, text), names in zip(said, left, strict=True)]


@pytest.mark.parametrize("number", range(len(REFUSALS)), ids=[f"{each[0]}-{each[2]}" for each in REFUSALS])
@pytest.mark.slow  # an import of lerobot
def test_a_builder_refuses_wrong_words_in_one_line_and_builds_nothing(
    refused: list[tuple[int, str, list[str]]], number: int
) -> None:
    code, said, left = refused[number]
    assert code == 2 and REFUSALS[number][2] in said.splitlines()[-1], said
    assert "Traceback" not in said and left == []


@pytest.mark.slow
def test_a_builder_that_refuses_is_a_program_that_ends_with_2(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, program_of("faulty"), "new", "boredom"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 2 and "invalid choice: 'boredom'" in ended.stderr.splitlines()[-1], ended.stderr
    assert "Traceback" not in ended.stderr and list(tmp_path.iterdir()) == [tmp_path / "builders"]
