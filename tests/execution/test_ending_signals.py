"""Ctrl-C and TERM end a program once and for all, also where Python or a library drops the interrupt."""

import signal
import subprocess
import sys
import time

import pytest

BEGIN = """
import signal, sys, time, weakref
from tracka.execution import ending_signals
ending_signals.interrupt_once()
def ask(number=signal.SIGINT): signal.raise_signal(number); sum(range(10))
def play(): print("playing", flush=True); time.sleep(30)
"""
MAIN = """
try:
    {statements}
except KeyboardInterrupt:
    print("caught")
    time.sleep(1.5)  # such as the hand-over of a phase
    print("closed")
finally:
    ending_signals.mark_as_handled()
"""
WEAK_REFERENCE = """
    class Module: pass
    module = Module()
    reference = weakref.ref(module, lambda _: ask())
    del module
    play()
"""
FINALIZER = """
    class Module:
        def __del__(self): ask()
    Module()
    play()
"""
LIBRARY = """
    try: ask()
    except BaseException: pass
    play()
"""
OTHER_ERROR = """
    try:
        try: ask()
        except BaseException: raise ImportError("the C extension failed") from None
    except ImportError: pass
    play()
"""
TWICE = """
    for step in (lambda: ask(signal.SIGTERM), lambda: time.sleep(30)):
        try: step()
        except BaseException: pass
    play()
"""
CLEANING = """
    try: ask()
    finally:
        time.sleep(1.5)  # such as the end of a row
        try: raise OSError("a file is gone")
        except OSError: time.sleep(1.5)
        print("cleaned")
"""


def program(statements: str) -> subprocess.Popen[str]:
    text = BEGIN + MAIN.format(statements=statements.strip())
    return subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


@pytest.mark.parametrize(
    "statements",
    [WEAK_REFERENCE, FINALIZER, LIBRARY, OTHER_ERROR, TWICE],
    ids=["weak reference", "finalizer", "library", "other error", "twice"],
)
def test_an_interrupt_that_is_lost_is_raised_again_and_ends_the_program(statements: str) -> None:
    began = time.monotonic()
    out, err = program(statements).communicate(timeout=60)
    assert out.splitlines() == ["playing", "caught", "closed"], err
    assert time.monotonic() - began < 25, "it has played to its end"


def test_an_interrupt_on_its_way_is_not_raised_again_however_long_the_program_closes_its_rows() -> None:
    out, err = program(CLEANING).communicate(timeout=60)
    assert out.splitlines() == ["cleaned", "caught", "closed"]
    assert err == ""


def test_a_second_ctrl_c_changes_nothing_while_the_first_is_handled() -> None:
    with program("play()") as process:
        assert process.stdout is not None and process.stdout.readline() == "playing\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "caught\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("closed\n", "", 0)
