"""A matrix that is wrong, in one cell or in ten thousand, is refused whole and at once, and nothing starts."""

import time

from campaigns import Made, contents

GOOD = "good_b1_e1,libero_object,1,1,cpu,7,egl,checkpoints/fake,1"
BAD = [
    "../x,libero_object,1,1,cpu,7,egl,checkpoints/fake,1",
    "good_b1_e1,libero_object,1,1,cpu,7,egl,checkpoints/fake,1",
    "a,moon,1,1,cpu,7,egl,checkpoints/fake,1",
    "b,libero_object,zero,1,cpu,7,egl,checkpoints/fake,1",
    "c,libero_object,1,-1,cpu,7,egl,checkpoints/fake,1",
    "d,libero_object,1,1,gpu,7,egl,checkpoints/fake,1",
    "e,libero_object,1,1,cpu,7,dx,checkpoints/fake,1",
    "f,libero_object,1,1,cpu,7,egl,,1",
    "g,libero_object,1,1,cpu,7,egl,checkpoints/fake,maybe",
]


def add(made: Made, *lines: str) -> None:
    with made.layout.matrix.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_every_wrong_cell_is_said_at_once_with_its_line_and_nothing_starts(ready: Made) -> None:
    add(ready, GOOD, *BAD)
    before = contents(ready.root)
    ended = ready.tracka(*ready.sweep_words())
    assert ended.returncode == 2
    first = 7  # the header, the usual four rows and the good one stand before
    for number in range(first, first + len(BAD)):
        assert f"line {number}, " in ended.stderr
    assert ready.started() == [] and contents(ready.root) == before


def test_ten_thousand_wrong_rows_are_refused_in_seconds_on_one_screen(ready: Made) -> None:
    add(ready, *(f"row{number},libero_object,1,0,cpu,x,egl,checkpoints/fake,1" for number in range(10_000)))
    start = time.monotonic()
    ended = ready.tracka(*ready.sweep_words())
    assert ended.returncode == 2 and time.monotonic() - start < 20
    assert len(ended.stderr.splitlines()) < 40 and "more" in ended.stderr
    assert ready.started() == []
