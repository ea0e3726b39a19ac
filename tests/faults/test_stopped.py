"""Processes that are stopped (SIGSTOP) end too, once what they work for has died: at once, or with the next start."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from campaigns import REPOSITORY, Made
from processes import is_alive, of_campaign, wait_for_the_end_of, wait_until

from tracka.core import held_folder
from tracka.execution import harness_session, orphans

ROW, OTHER = "long_b1_e6", "wide_b4_e4"


@pytest.fixture
def row(ready: Made) -> Iterator[subprocess.Popen[bytes]]:
    """A sweep of one row whose evaluation has begun and has a grandchild in a session of its own."""
    ready.behave(**{ROW: ["hang", "ok"]})
    sweep = start_sweep(ready, ROW)
    wait_until(lambda: len(of_campaign(ready.root)) >= 6)
    yield sweep
    sweep.kill()
    sweep.wait()


def start_sweep(made: Made, rows: str) -> subprocess.Popen[bytes]:
    words = made.sweep_words("--resume", "--rows", rows)
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-m", "tracka", *words], cwd=REPOSITORY, stdout=quiet, stderr=quiet)


def supervisor_of(made: Made) -> psutil.Process:
    parent = psutil.Process(made.pids()[-1]).parent()
    assert parent is not None
    return parent


def kill(sweep: subprocess.Popen[bytes]) -> None:
    sweep.kill()
    sweep.wait()


def test_a_stopped_supervisor_of_a_killed_sweep_ends_though_nobody_starts_anything(
    ready: Made, row: subprocess.Popen[bytes]
) -> None:
    supervisor_of(ready).suspend()
    kill(row)
    wait_for_the_end_of(ready.root, 5)


def test_a_stopped_evaluation_or_worker_of_a_killed_sweep_ends_though_nobody_starts_anything(
    ready: Made, row: subprocess.Popen[bytes]
) -> None:
    for process in (psutil.Process(ready.pids()[-1]), *psutil.Process(row.pid).children()):
        process.suspend()
    kill(row)
    wait_for_the_end_of(ready.root, 5)


def test_where_every_process_of_a_killed_sweep_is_stopped_the_next_start_ends_them_whatever_row_it_is_for(
    ready: Made, row: subprocess.Popen[bytes]
) -> None:
    of_row = of_campaign(ready.root)
    for pid in of_row:
        if pid != row.pid:
            os.kill(pid, signal.SIGSTOP)
    kill(row)
    assert any(map(is_alive, of_row))  # the guard, the supervisor and what is below it
    began = time.monotonic()
    start_sweep(ready, OTHER)
    wait_until(lambda: not any(map(is_alive, of_row)), 10)
    print(f"gone {time.monotonic() - began:.1f} s after the next start")
    wait_for_the_end_of(ready.root)
    assert ready.results(OTHER) == [("pass", None)]


def test_a_sweep_that_lives_is_left_alone_stopped_or_not(ready: Made, row: subprocess.Popen[bytes]) -> None:
    of_row = of_campaign(ready.root)
    row.send_signal(signal.SIGSTOP)
    assert start_sweep(ready, OTHER).wait() == 0
    assert [pid for pid in of_row if not is_alive(pid)] == []


HOLDS = """
import subprocess, sys
from tracka.execution import harness_session
with harness_session.hold():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(harness_session.own_folder(), child.pid, flush=True)
    sys.stdin.read()
"""
Held = tuple[subprocess.Popen[str], Path, int]


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Held]]:
    """Starts a session in a process of its own with a child; returns the process, the folder and the child's id."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv(orphans.SESSION, raising=False)
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    started: list[subprocess.Popen[str]] = []

    def start() -> Held:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS], cwd=REPOSITORY, env=environ, stdin=pipe, stdout=pipe, text=True
        )
        started.append(process)
        assert process.stdout is not None
        folder, pid = process.stdout.readline().split()
        return process, Path(folder), int(pid)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_session_that_ends_leaves_no_folder(held: Callable[[], Held]) -> None:
    process, folder, child = held()
    assert folder.is_dir()
    process.communicate("")
    assert not folder.exists()
    os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_the_next_session_ends_what_a_killed_one_left_and_removes_its_folder(held: Callable[[], Held]) -> None:
    (dead, of_dead, left), (_, of_living, other) = held(), held()
    dead.kill()
    dead.wait()
    os.kill(left, signal.SIGSTOP)
    with harness_session.hold() as survivors:
        assert survivors == []
        assert not is_alive(left) and not of_dead.exists()
        assert is_alive(other) and of_living.is_dir()


def test_a_process_of_a_dead_session_that_cannot_be_ended_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_folder, "PREFIX", "tracka-of-this-test-")  # which no other session on this host looks at
    marks = {orphans.SESSION: str(tmp_path / "tracka-of-this-test-1"), orphans.ROW: "/campaign/runs/row_7"}
    with subprocess.Popen(["sleep", "20"], env=marks) as left:
        with monkeypatch.context() as kernel:
            kernel.setattr(psutil.Process, "kill", lambda process: None)  # as where the kernel holds a process
            kernel.setattr(orphans, "KILL_SECS", 0.3)
            kernel.setattr(orphans, "PATIENCE_SECS", 0.3)
            (warning,) = harness_session.warnings(orphans.end_of_dead_sessions())
        expected = f"process {left.pid} (sleep 20) of row row_7 (/campaign/runs/row_7)"
        assert expected in warning and "restart this host" in warning
        assert orphans.end_of_dead_sessions() == []
        assert left.wait() == -signal.SIGKILL


def test_a_process_that_ends_while_it_is_looked_at_makes_its_session_no_dead_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with held_folder.make() as folder:
        marked = os.environ | {orphans.SESSION: str(folder)}
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=marked) as process:
            namespace = Path(f"/proc/{process.pid}/ns/mnt")
            wait_until(lambda: process.pid in orphans.pids_with_mark(orphans.SESSION, str(folder)))
            ours, readlink, taken_for_dead = namespace.readlink(), Path.readlink, []

            def end_and_read(path: Path) -> Path:
                if path != namespace:
                    return readlink(path)
                process.kill()
                process.wait()
                return ours

            monkeypatch.setattr(psutil, "pids", lambda: [process.pid])  # other tests leave dead sessions, too
            monkeypatch.setattr(Path, "readlink", end_and_read)
            monkeypatch.setattr(orphans, "_let_finish", lambda find: taken_for_dead.append(folder))
            orphans.end_of_dead_sessions()
            assert process.returncode and not taken_for_dead


# Starts a child every few milliseconds, each of which has the process's marks, and prints how its children ended.
PARENT = """
import os, sys, time
codes = set()
print(flush=True)
while not os.path.exists(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        time.sleep(0.02)
        os._exit(0)
    codes.add(os.waitpid(pid, 0)[1])
print(codes)
"""


def test_a_process_that_is_kept_keeps_what_it_starts_meanwhile(tmp_path: Path) -> None:
    kept, end = ("TRACKA_STANDS_BY", str(tmp_path / "socket")), tmp_path / "end"
    marked = os.environ | {orphans.LEASE: str(tmp_path / "lock"), kept[0]: kept[1]}
    command = [sys.executable, "-c", PARENT, str(end)]
    with subprocess.Popen(command, env=marked, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        for _ in range(20):
            assert orphans.end(orphans.LEASE, str(tmp_path / "lock"), except_marked=kept) == []
        end.touch()
        assert parent.stdout.read().strip() == "{0}"


def test_a_folder_that_is_being_made_is_no_dead_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    new, old = tmp_path / "tracka-new-a", tmp_path / "tracka-new-b"
    for folder in (new, old):
        folder.mkdir()
    os.utime(old, (0, 0))
    held_folder.remove_of_dead()
    assert list(tmp_path.iterdir()) == [new]
