"""What others wrote is read from regular files of bounded size, without waiting; JSON and TOML without surprises."""

import io
import math
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from campaigns import REPOSITORY

from tracka.core import files, parsing, reading, tree
from tracka.core.errors import UsageError
from tracka.engines import video


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "a named pipe"),
    "socket": (bind, "a socket"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "folder": (Path.mkdir, "a folder"),
    "giant": (sparse, "it claims to have 1099511627776 bytes"),
}


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    plant, what = ODD[request.param]
    plant(tmp_path / "x")
    return tmp_path / "x", what


@pytest.mark.parametrize("read", [files.read_json, files.read_lines, files.read_text])
def test_what_is_no_file_of_its_kind_is_refused_at_once_with_its_name(
    odd: tuple[Path, str], read: Callable[[Path], object]
) -> None:
    start = time.monotonic()
    with pytest.raises(UsageError) as caught:
        read(odd[0])
    assert str(odd[0]) in str(caught.value) and odd[1] in str(caught.value)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("read", [reading.content, reading.sha256, reading.array])
def test_every_reader_raises_the_same_error(odd: tuple[Path, str], read: Callable[[Path], object]) -> None:
    with pytest.raises(OSError, match=odd[1]):
        read(odd[0])


def test_the_end_of_what_is_no_file_is_empty_and_mentions_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    assert reading.tail(tmp_path / "log") == "" == reading.text_or_empty(tmp_path / "log")
    assert list(reading.lines(tmp_path / "log")) == []
    assert not reading.mentions(tmp_path / "log", b"x")


def test_of_a_giant_log_only_a_part_is_read(tmp_path: Path) -> None:
    sparse(tmp_path / "log")
    assert len(reading.tail(tmp_path / "log", 7)) == 7
    assert sum(map(len, reading.lines(tmp_path / "log", 100))) == 100
    assert not reading.mentions(tmp_path / "log", b"x", 1 << 21)


def test_a_name_that_no_file_can_have_is_an_error_of_the_system(tmp_path: Path) -> None:
    for name in ("a\0b", "\ud800", "x" * 300):
        with pytest.raises(OSError):
            reading.content(tmp_path / name)


def test_an_array_that_would_run_code_or_is_not_wholly_there_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    numpy.save(file, numpy.array([print], dtype=object), allow_pickle=True)
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000,), }"
    for content in (file.getvalue(), header.ljust(127) + b"\n", b"", b"PK\x03\x04"):
        (tmp_path / "a.npy").write_bytes(content)
        with pytest.raises(ValueError):
            reading.array(tmp_path / "a.npy")


# JSON and TOML

BAD_JSON = {
    b"[" * 100_000: "nested deeper than 64 levels, line 1",
    b'{"a": ' * 100 + b"1" + b"}" * 100: "nested deeper than 64 levels, key a.a",
    b'{"a":\n' + b"1" * 5000 + b"}": "a number has 5000 digits, line 2",
    b'{"a":\n NaN}': "NaN is not JSON, line 2",
    b'{"a":\n 1e999}': "the number 1e999 is too large, line 2",
    b'{"a": 1,\n"a": 2}': "a key occurs twice, 'a', line 2",
    b"\xef\xbb\xbf{}": "line 1",
    '{"a": 1}'.encode("utf-16"): "not UTF-8",
    b'{"a": "\\u0000"}': "a NUL character, key a",
    b'{"a": ["\\ud800"]}': "half of a character (a lone surrogate), key 'a'",
    b'{"a": 1\n': "line 2",
}
BAD_TOML = {
    b"a = 0x" + b"f" * 10_000: "more bits than a number may have, key a",
    b"a = 1\nb = " + b"1" * 5000: "line 2",
    b"b = 1\na = " + b"[" * 5000: "nested deeper than 64 levels, line 2",
    b"[" + b"a." * 100_000 + b"a]\nb = 1": "a key has more than 64 parts, line 1",
    b"a = 1\nb = '\xff'": "not UTF-8: invalid start byte, line 2",
    b'[t]\na = "\\u0000"': "a NUL character, key t.a",
    b"a = 1\nb = 9999-99-99": "line 2",
}


@pytest.mark.parametrize("data", BAD_JSON, ids=range(len(BAD_JSON)))
def test_json_that_could_surprise_is_refused_with_its_line_or_key(data: bytes) -> None:
    with pytest.raises(parsing.Malformed) as caught:
        parsing.json_value(data)
    assert BAD_JSON[data] in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("data", BAD_TOML, ids=range(len(BAD_TOML)))
def test_toml_that_could_surprise_is_refused_with_its_line_or_key(data: bytes) -> None:
    with pytest.raises(parsing.Malformed) as caught:
        parsing.toml_table(data)
    assert BAD_TOML[data] in str(caught.value) and len(str(caught.value)) < 300


def test_what_tokenizers_and_evaluations_write_is_read() -> None:
    assert parsing.json_value(b'{"model_max_length": 1000000000000000019884624838656}')
    assert parsing.json_value(b'{"\\ud800": "\\u0000"}', any_text=True) == {"\ud800": "\0"}
    assert parsing.json_value(b'{"pc_success": NaN}', not_finite=True).keys() == {"pc_success"}
    assert parsing.json_value('{"text": "caf\\u00e9 \\ud83d\\ude00"}') == {"text": "café \U0001f600"}


# folders


def test_a_folder_of_plain_files_has_no_faults(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a" / "b", "1")
    (tmp_path / "again").symlink_to("a/b")
    assert tree.faults(tmp_path, 10, 10) == []
    assert tree.sound_files(tmp_path, 10, 10) == [tmp_path / "a" / "b", tmp_path / "again"]


@pytest.mark.parametrize(
    ("plant", "what"),
    [
        *((plant, what) for plant, what in ODD.values() if what != "a folder"),
        (lambda path: path.symlink_to("/etc/hostname"), "outside of the folder"),
        (lambda path: path.symlink_to("/etc"), "a link to the folder /etc"),
        (lambda path: path.symlink_to("."), "a link to the folder"),
        (lambda path: path.symlink_to("x"), "in a circle"),
        (lambda path: path.symlink_to("nowhere"), "leads to nothing"),
        (lambda path: path.write_text("x" * 11), "more than the 10"),
        (lambda path: [path.with_name(f"{n}").write_text("x" * 6) for n in (1, 2)], "more bytes together"),
        (lambda path: [path.with_name(f"{n}").touch() for n in range(9)], "more files and folders"),
    ],
)
def test_each_kind_of_fault_of_a_folder_is_named(tmp_path: Path, plant: Callable[[Path], object], what: str) -> None:
    plant(tmp_path / "x")
    faults = tree.faults(tmp_path, 10, 10, most=8)
    expected = "a link to /dev/zero" if what == "a device" else what
    assert len(faults) == 1 and expected in faults[0].what, faults
    assert tree.sound_files(tmp_path, 10, 10, most=8) == []


def test_a_blob_of_the_same_repository_of_the_hubs_cache_is_no_fault_and_another_is(tmp_path: Path) -> None:
    for repo in ("models--a--b", "models--c--d"):
        files.write_text(tmp_path / repo / "blobs" / "f00d", "{}")
    snapshot = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    files.make_folder(snapshot)
    (snapshot / "config.json").symlink_to("../../blobs/f00d")
    assert tree.faults(snapshot, 10, 10) == []
    (snapshot / "other.json").symlink_to(tmp_path / "models--c--d" / "blobs" / "f00d")
    assert [fault.path.name for fault in tree.faults(snapshot, 10, 10)] == ["other.json"]


# videos


def test_a_playlist_is_no_video(tmp_path: Path) -> None:
    """A playlist could name other files and hosts, which the decoder would open."""
    real = REPOSITORY / "fixtures" / "standin" / "video.mp4"
    (tmp_path / "a.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{real}\n#EXT-X-ENDLIST\n")
    (tmp_path / "b.mp4").write_text(f"ffconcat version 1.0\nfile '{real}'\n")
    os.mkfifo(tmp_path / "c.mp4")
    assert video.frame_count(real) > 0
    assert [video.frame_count(tmp_path / name) for name in ("a.mp4", "b.mp4", "c.mp4")] == [0, 0, 0]


def test_a_file_is_read_to_its_end_where_each_read_gives_less_than_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.json"
    path.write_bytes(bytes(range(256)) * 4)
    read = os.read
    monkeypatch.setattr(os, "read", lambda handle, most: read(handle, min(most, 100)))
    assert reading.content(path) == bytes(range(256)) * 4
    with pytest.raises(reading.Refused):
        reading.content(path, 1000)


def test_a_link_is_refused_where_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    with reading.opened(tmp_path / "link", 10) as file:
        assert file.read() == b"text"
    with pytest.raises(OSError), reading.opened(tmp_path / "link", 10, follow=False):
        pass


def test_what_a_child_printed_is_read_line_by_line_and_a_line_that_was_cut_off_says_nothing() -> None:
    printed = 'words {"task": 0}\n{"task": 1}\n{"other": 2}\n{"task": NaN}\n{"task": 3, "na'
    assert list(parsing.printed_values(printed, '{"task"')) == [{"task": 1}]
    found = list(parsing.printed_values(printed, '{"task"', not_finite=True))
    assert len(found) == 2 and math.isnan(found[1]["task"])
