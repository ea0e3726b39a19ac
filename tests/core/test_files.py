"""Files and locks: whole or not at all, private, and free as soon as their holder is gone."""

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaigns import REPOSITORY

from tracka.core import files, lock, reading
from tracka.core.errors import Busy, UsageError


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(OSError, match="No space left"):
        files.write_json(path, {"new": 2})
    monkeypatch.undo()
    assert files.read_json(path) == {"old": 1}
    assert names(tmp_path) == ["a.json"]


def test_a_failed_first_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == []


def test_an_interrupt_while_writing_leaves_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == []


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"n": 0, "pad": "x" * 200_000})

    def write() -> None:
        for n in range(1, 30):
            files.write_json(path, {"n": n, "pad": "x" * 200_000})

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while writer.is_alive():
        seen.append(files.read_json(path)["n"])
    writer.join()
    assert seen == sorted(seen)
    assert files.read_json(path)["n"] == 29


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("usual_umask")
def test_files_are_private_to_the_user(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.touch(mode=0o666)
    files.write_json(path, {})
    assert mode(path) == 0o600


@pytest.mark.usefixtures("usual_umask")
def test_all_new_folders_on_the_way_are_private_to_the_user(tmp_path: Path) -> None:
    files.write_json(tmp_path / "one" / "two" / "a.json", {})
    assert {name: mode(tmp_path / name) for name in ("one", "one/two")} == {"one": 0o700, "one/two": 0o700}


def test_identical_content_gives_identical_bytes(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a", {"x": 1, "y": {"b": [1.5, None], "a": "é"}})
    files.write_json(tmp_path / "b", {"y": {"a": "é", "b": [1.5, None]}, "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert files.canonical({"x": 1, "y": 2}) == files.canonical({"y": 2, "x": 1}) == b'{"x":1,"y":2}'


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_no_json_are_refused(tmp_path: Path, number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"rate": number})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.canonical([number])
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [b"", b'{"a": 1', b'{"a": 1}\0', b"\0" * 64, b"[1, 2]", b"null", b'"a"', b"\xff\xfe{}", b'{"a":' * 200_000],
    ids=["empty", "cut", "NUL at the end", "NULs", "a list", "null", "a string", "not UTF-8", "deep"],
)
def test_json_that_is_damaged_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        files.read_json(path)
    (finding,) = caught.value.findings
    assert finding.where == str(path)
    assert finding.remedy.startswith("Move the file away")


@pytest.mark.parametrize("folder", [False, True], ids=["missing", "a folder"])
def test_json_that_is_no_file_is_refused_by_name(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "state.json"
    if folder:
        path.mkdir()
    with pytest.raises(UsageError, match=r"state\.json"):
        files.read_json(path)


def test_a_copy_has_the_content_and_replaces_what_was_there(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("new")
    target.write_text("old")
    files.copy_atomic(source, target)
    assert target.read_text() == "new"
    assert names(tmp_path) == ["source", "target"]


def test_copying_the_same_file_again_leaves_no_litter(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("new")
    for _ in range(2):
        files.copy_atomic(source, target)
    assert names(tmp_path) == ["source", "target"]


def test_a_copy_that_is_rewritten_leaves_its_source_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("first")
    files.copy_atomic(source, target)
    files.write_text(target, "second")
    assert source.read_text() == "first"


def test_a_copy_works_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "source").write_text("new")
    files.copy_atomic(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "new"
    assert names(tmp_path) == ["source", "target"]


def test_a_copy_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("new")
    target.write_text("old")
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        files.copy_atomic(source, target)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["source", "target"]


def test_the_tail_of_a_big_file_is_its_last_bytes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(3 << 30)  # a hole: no disk is used
        file.seek(0, os.SEEK_END)
        file.write(b"the end")
    start = time.process_time()
    assert reading.tail(path, 7) == "the end"
    assert len(reading.tail(path)) == 65536
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("content", "limit", "tail"), [(b"ab", 10, "ab"), (b"", 10, ""), ("aé".encode(), 1, "\ufffd"), (b"ab", 2, "ab")]
)
def test_a_tail_takes_short_files_and_cut_characters(tmp_path: Path, content: bytes, limit: int, tail: str) -> None:
    (tmp_path / "log").write_bytes(content)
    assert reading.tail(tmp_path / "log", limit) == tail


def test_the_tail_of_a_missing_file_is_empty(tmp_path: Path) -> None:
    assert reading.tail(tmp_path / "log") == ""


@pytest.mark.parametrize("before", [0, 5, (1 << 20) - 3, (1 << 20) - 11, 1 << 20, 3 << 20])
def test_words_are_found_wherever_they_stand_in_a_long_file(tmp_path: Path, before: int) -> None:
    (tmp_path / "log").write_bytes(b"x" * before + b"these words" + b"y" * 9)
    assert reading.mentions(tmp_path / "log", b"these words")
    assert not reading.mentions(tmp_path / "log", b"other words")


def test_a_missing_file_mentions_nothing(tmp_path: Path) -> None:
    assert not reading.mentions(tmp_path / "log", b"words")


def test_times_are_utc_to_the_second() -> None:
    assert time.strptime(files.utc_now(), "%Y-%m-%dT%H:%M:%SZ")


HOLDER = """
import sys, time
from pathlib import Path
from tracka.core import lock
with lock.hold(Path(sys.argv[1]), "the row") as file:
    lock.sign(file, "process of the first")
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextlib.contextmanager
def held_elsewhere(path: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock for `seconds`."""
    words = [sys.executable, "-c", HOLDER, str(path), str(seconds)]
    with subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


def test_the_second_holder_of_a_lock_is_told_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "row.lock"
    with held_elsewhere(path, 60), pytest.raises(Busy) as caught, lock.hold(path, "row one"):
        pass
    (finding,) = caught.value.findings
    assert (finding.where, finding.what) == (str(path), "row one is held by process of the first")
    assert caught.value.exit_code == 5


def test_a_lock_excludes_its_own_process_too(tmp_path: Path) -> None:
    path = tmp_path / "row.lock"
    with lock.hold(path, "row"), pytest.raises(Busy), lock.hold(path, "row"):
        pass
    with lock.hold(path, "row"):
        pass


def test_who_waits_for_a_lock_gets_it_when_the_first_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "row.lock"
    with held_elsewhere(path, 0.5) as holder, lock.hold(path, "row", wait=True) as file:
        assert file.read() == "process of the first"
        assert holder.wait(10) == 0


def test_a_lock_is_free_once_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "row.lock"
    with held_elsewhere(path, 60) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with lock.hold(path, "row") as file:
            lock.sign(file, "me")
            assert path.read_text() == "me"


def test_a_lock_is_free_after_an_error_inside_it(tmp_path: Path) -> None:
    path = tmp_path / "row.lock"
    with pytest.raises(ZeroDivisionError), lock.hold(path, "row"):
        json.dumps(1 / 0)
    with lock.hold(path, "row"):
        pass


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "row.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"), lock.hold(tmp_path / "row.lock", "row"):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o770, 0o660), (0o700, 0o600), (0o777, 0o664)])
def test_what_is_shared_is_as_open_as_its_folder_and_never_for_all_to_write(
    tmp_path: Path, folder: int, file: int
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(folder)
    with files.as_open_as(tmp_path / "shared" / "missing"):
        (tmp_path / "shared" / "page.md").touch()
    assert mode(tmp_path / "shared" / "page.md") == file
