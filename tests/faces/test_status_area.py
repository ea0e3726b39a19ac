"""The last lines of a terminal: the text above is what it would be without them, and so is the terminal at the end."""

import os
import pty
import re
import shlex
import signal
import sys
import tty
from collections.abc import Iterator

import psutil
import pytest
from campaigns import REPOSITORY

from fixtures import terminal
from fixtures.terminal import Screen, set_size
from tracka.status_area import WHOLE_REGION, StatusArea

COLUMNS, LINES = 60, 20
STATUS = ["campaign, 1 of 3 rows", "gw0 a_row", "waiting: 1 row"]


class Scene:
    """A status area on a pseudo-terminal beside a program that writes there too."""

    def __init__(self) -> None:
        self.controller, self.stream = pty.openpty()
        tty.setraw(self.stream)
        set_size(self.controller, COLUMNS, LINES)
        self.screen, self.plain = Screen(COLUMNS, LINES), Screen(COLUMNS, LINES)
        self.area = StatusArea(self.stream)

    def write(self, text: str) -> None:
        """Writes as a program that knows nothing of the area, also on a screen that has no area."""
        os.write(self.stream, text.encode())
        self.plain.feed(text)
        self.read()

    def read(self) -> None:
        self.screen.feed(os.read(self.controller, 1 << 16).decode())

    def show(self, *status: str) -> None:
        self.area.show(status)
        self.read()

    def last(self, lines: int) -> list[str]:
        return [row.rstrip() for row in self.screen.rows[-lines:]]


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    os.close(made.controller)
    os.close(made.stream)


def fill(scene: Scene, lines: int) -> None:
    for number in range(lines):
        scene.write(f"line {number}\r\n")


@pytest.mark.parametrize("lines", [0, 3, LINES - 2, LINES - 1, LINES, 3 * LINES])
def test_the_status_is_in_the_last_lines_and_the_text_above_is_whole(scene: Scene, lines: int) -> None:
    fill(scene, lines)
    scene.write("a line that goes on")
    scene.show(*STATUS)
    scene.write(" here\r\nand ends")
    assert scene.last(3) == STATUS
    assert scene.screen.text()[:-3][: lines + 2] == scene.plain.text()


def test_what_is_written_while_the_status_is_there_scrolls_above_it(scene: Scene) -> None:
    scene.show(*STATUS)
    fill(scene, 2 * LINES)
    assert scene.last(3) == STATUS
    assert [line for line in scene.screen.text()[:-3] if line] == scene.plain.text()


def test_a_status_that_grows_moves_the_text_and_loses_none(scene: Scene) -> None:
    fill(scene, LINES - 1)
    scene.show(*STATUS[:1])
    scene.show(*STATUS)
    assert scene.last(3) == STATUS
    assert [line for line in scene.screen.text()[:-3] if line] == scene.plain.text()


def test_a_status_that_shrinks_leaves_empty_lines_below_it(scene: Scene) -> None:
    scene.show(*STATUS)
    scene.show(STATUS[0])
    assert scene.last(3) == [STATUS[0], "", ""]


@pytest.mark.parametrize("lines", [3, LINES, 3 * LINES])
def test_in_the_end_the_terminal_is_as_without_a_status(scene: Scene, lines: int) -> None:
    fill(scene, lines)
    scene.write("begun")
    scene.show(*STATUS)
    scene.area.close()
    scene.read()
    scene.write(", ended\r\n")
    fill(scene, LINES)
    assert scene.screen.text() == scene.plain.text()
    assert (scene.screen.top, scene.screen.bottom) == (0, LINES - 1)


KEEPS_LINES = """
import os, sys, time
from tracka.status_area import StatusArea
area = StatusArea(1)
area.show(["the status of process", str(os.getpid())])
time.sleep(float(sys.argv[1]))
area.close()
print("the area is closed", flush=True)
"""


def beside_a_shell(seconds: float) -> list[str]:
    """A program that keeps lines, started by a shell that goes on after it, as a user's does."""
    script = f"{shlex.join([sys.executable, '-c', KEEPS_LINES, str(seconds)])}; echo the shell goes on; read -r _"
    return ["/bin/sh", "-c", script]


def test_a_program_that_is_killed_leaves_the_terminal_whole() -> None:
    with terminal.opened(beside_a_shell(300), REPOSITORY, os.environ, COLUMNS, LINES) as session:
        shown = session.until(lambda text: bool(re.search(r"^the status of process\n[0-9]+ *$", text, re.M)))
        assert session.screen.bottom == LINES - 3
        os.kill(int(shown.split()[-1]), signal.SIGKILL)
        session.until(lambda text: session.screen.bottom == LINES - 1 and "shell goes on" in text)
        assert "the status of process" not in "\n".join(session.screen.text())


def test_a_program_that_ends_leaves_no_guard_behind() -> None:
    with terminal.opened(beside_a_shell(0), REPOSITORY, os.environ, COLUMNS, LINES) as session:
        session.until(lambda text: "the shell goes on" in text)
        assert psutil.Process(session.process.pid).children(recursive=True) == []
        assert session.written.count(WHOLE_REGION.encode()) == 1


def test_after_the_end_nothing_is_drawn(scene: Scene) -> None:
    scene.show(*STATUS)
    scene.area.close()
    scene.read()
    scene.area.show(STATUS)
    scene.area.close()
    scene.write("the end")
    assert scene.screen.text() == ["the end"]


@pytest.mark.parametrize("size", [(COLUMNS, LINES + 10), (COLUMNS + 20, LINES - 5)])
def test_on_a_terminal_of_another_size_the_status_is_in_its_last_lines(scene: Scene, size: tuple[int, int]) -> None:
    fill(scene, 3)
    scene.show(*STATUS)
    set_size(scene.controller, *size)
    scene.screen.resize(*size)
    scene.show(*STATUS)
    assert scene.last(3) == STATUS
    assert scene.screen.text().count(STATUS[0]) == 1
    assert scene.screen.text()[:3] == ["line 0", "line 1", "line 2"]


@pytest.mark.parametrize(("size", "room"), [((COLUMNS, LINES), True), ((30, LINES), False), ((COLUMNS, 8), False)])
def test_a_small_terminal_has_no_room_for_a_status(scene: Scene, size: tuple[int, int], room: bool) -> None:
    set_size(scene.controller, *size)
    columns, lines = scene.area.room()
    assert (columns, lines) == ((size[0] - 1, size[1] // 2) if room else (0, 0))
