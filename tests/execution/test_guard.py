"""A guard ends the process that it guards once nobody needs it, and all that this process has started."""

import subprocess
import sys
import time

import pytest
from processes import is_alive, wait_until

# Prints the ids of the guard, of the guarded process and of its child; nobody needs them once stdin is closed.
GUARDED = """
import os, select, sys, time
from tracka.execution import guard

def is_needed():
    return not select.select([0], [], [], 0)[0]

kind = sys.argv[1]
guard.fork(is_needed, kept=0, ending_secs=0.5, ends_with_guard=kind == "bound")
child = os.fork()
if child == 0:
    time.sleep(600)
print(os.getppid(), os.getpid(), child, flush=True)
time.sleep(600)
"""


def start(kind: str) -> tuple[subprocess.Popen[str], list[int]]:
    """Returns the guard and the ids of the guard, of the process that it guards and of that process's child."""
    words = [sys.executable, "-c", GUARDED, kind]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, [int(word) for word in process.stdout.readline().split()]


def close(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def test_a_process_that_does_not_end_by_itself_is_killed_soon_after_it_is_needed_no_more() -> None:
    process, pids = start("alone")
    began = time.monotonic()
    close(process)
    assert time.monotonic() - began < 10
    wait_until(lambda: not any(map(is_alive, pids)), 5)


@pytest.mark.parametrize(("kind", "lives"), [("bound", False), ("alone", True)])
def test_a_killed_guard_takes_the_process_with_it_only_where_that_was_asked_for(kind: str, lives: bool) -> None:
    process, (_, guarded, child) = start(kind)
    process.kill()
    close(process)
    try:
        if lives:
            time.sleep(1)
        else:
            wait_until(lambda: not is_alive(guarded), 5)
        assert is_alive(guarded) == lives
    finally:
        for pid in (guarded, child):
            subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)
