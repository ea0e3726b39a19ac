"""Bounded children: how they end, and that nothing of them is left. Every process here ends by itself in 20 s."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import is_alive, wait_until

from tracka.execution import process
from tracka.execution.process import Bounds, Exit

SPAWN = """
import os, signal, subprocess, sys, time
print(os.getpid(), flush=True)
print(subprocess.Popen(["sleep", "20"], start_new_session={session}).pid, flush=True)
{then}
"""
ENDS = {
    "passes": "time.sleep(1.5)",
    "is_killed": "time.sleep(1.5); os.kill(os.getpid(), signal.SIGKILL)",
    "times_out": "time.sleep(20)",
    "ignores_term": "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(20)",
}


def run_command(
    folder: Path,
    command: list[str],
    *,
    env: dict[str, str] | None = None,
    timeout: float = 10,
    grace: float = 1,
    flood: int = 1 << 20,
    kept: int = 1 << 20,
    **words: Any,
) -> Exit:
    """Runs a command with its output in `folder`."""
    return process.run(
        command,
        cwd=folder,
        env=dict(os.environ) if env is None else env,
        stdout=folder / "out",
        stderr=folder / "err",
        bounds=Bounds(timeout, grace, flood, kept),
        **words,
    )


def run(folder: Path, code: str, timeout: float = 10, grace: float = 1, **words: Any) -> Exit:
    """Runs Python on `code`."""
    return run_command(folder, [sys.executable, "-c", code], timeout=timeout, grace=grace, **words)


def printed_pids(folder: Path) -> list[int]:
    path = folder / "out"
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def are_gone(pids: list[int]) -> bool:
    return not any(is_alive(pid) for pid in pids)


CALLER = """
import os, sys
from pathlib import Path
from tracka.execution import process
from tracka.execution.process import Bounds
folder = Path(sys.argv[1])
process.run(
    ["sleep", "20"], cwd=folder, env=dict(os.environ), stdout=folder / "out", stderr=folder / "err",
    bounds=Bounds(15), farewell=["touch", str(folder / "farewell")], cancel=lambda: bool((folder / "running").touch()),
)
"""


def test_a_child_that_is_cancelled_is_followed_by_its_farewell_and_one_that_ends_is_not(tmp_path: Path) -> None:
    said = tmp_path / "farewell"
    assert run(tmp_path, "", farewell=["touch", str(said)]).code == 0 and not said.exists()
    assert run(tmp_path, "import time; time.sleep(20)", timeout=0.5, farewell=["touch", str(said)]).stopped == "timeout"
    assert not said.exists()
    words: dict[str, Any] = {"cancel": lambda: True, "farewell": ["touch", str(said)]}
    assert run(tmp_path, "import time; time.sleep(20)", **words).stopped == "cancelled" and said.exists()
    words["farewell"] = ["no-such-program"]
    assert run(tmp_path, "import time; time.sleep(20)", **words).stopped == "cancelled"


def test_a_child_whose_caller_is_killed_is_followed_by_its_farewell(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", CALLER, str(tmp_path)]) as caller:
        wait_until((tmp_path / "running").exists)
        caller.kill()
    wait_until((tmp_path / "farewell").exists)


@pytest.mark.parametrize("code", [0, 1, 3, 125])
def test_an_exit_code_is_handed_on(tmp_path: Path, code: int) -> None:
    ended = run(tmp_path, f"raise SystemExit({code})")
    assert (ended.code, ended.stopped) == (code, "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGSEGV])
def test_a_signal_is_a_negative_exit_code(tmp_path: Path, number: signal.Signals) -> None:
    ended = run(tmp_path, f"import os; os.kill(os.getpid(), {number.value})")
    assert (ended.code, ended.stopped) == (-number, "")


def test_output_goes_to_its_two_files(tmp_path: Path) -> None:
    run(tmp_path, "import sys; print('said'); print('complained', file=sys.stderr)")
    assert ((tmp_path / "out").read_text(), (tmp_path / "err").read_text()) == ("said\n", "complained\n")


def test_the_child_reads_nothing_from_the_callers_terminal(tmp_path: Path) -> None:
    run(tmp_path, "import sys; print(repr(sys.stdin.read()))")
    assert (tmp_path / "out").read_text() == "''\n"


def test_the_child_gets_the_given_environment_and_folder_alone(tmp_path: Path) -> None:
    run_command(tmp_path, ["/bin/sh", "-c", "env; pwd"], env={"ONLY": "this"})
    lines = (tmp_path / "out").read_text().splitlines()
    assert "ONLY=this" in lines and lines[-1] == str(tmp_path)
    assert not [line for line in lines if line.startswith(("HOME=", "PATH="))]


def test_a_child_that_takes_too_long_is_asked_to_end(tmp_path: Path) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); time.sleep(20)"
    ended = run(tmp_path, code, timeout=1, grace=5)
    assert (ended.code, ended.stopped) == (7, "timeout")
    assert 1 <= ended.seconds < 4


def test_a_child_that_ignores_term_is_killed_after_the_grace(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(20)"
    ended = run(tmp_path, code, timeout=1, grace=1)
    assert (ended.code, ended.stopped) == (-signal.SIGKILL, "timeout")
    assert 2 <= ended.seconds < 5


@pytest.mark.parametrize("session", [False, True], ids=["same_session", "own_session"])
@pytest.mark.parametrize("end", ENDS)
def test_a_grandchild_is_gone_however_the_child_ends(tmp_path: Path, session: bool, end: str) -> None:
    run(tmp_path, SPAWN.format(session=session, then=ENDS[end]), timeout=2.2)
    assert len(printed_pids(tmp_path)) == 2
    wait_until(lambda: are_gone(printed_pids(tmp_path)), 2)


def test_a_grandchild_born_in_the_last_second_is_gone_too(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "setsid sleep 20 & echo $!; exec sleep 20"]
    for _ in range(3):
        run_command(tmp_path, command, timeout=0.5)
        assert len(printed_pids(tmp_path)) == 1
        wait_until(lambda: are_gone(printed_pids(tmp_path)), 2)


def test_a_great_grandchild_is_gone_after_a_timeout(tmp_path: Path) -> None:
    code = SPAWN.format(session=True, then=ENDS["times_out"])
    run(tmp_path, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])", timeout=2)
    assert len(printed_pids(tmp_path)) == 2
    wait_until(lambda: are_gone(printed_pids(tmp_path)), 2)


def test_a_pipe_held_open_by_a_grandchild_delays_nothing(tmp_path: Path) -> None:
    ended = run(tmp_path, SPAWN.format(session=False, then=""))
    assert ended.code == 0
    assert ended.seconds < 2


INTERRUPTED = f"""
import signal, sys
from pathlib import Path
sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:3]]!r}
import test_process
signal.signal(signal.SIGINT, signal.default_int_handler)
test_process.run(Path(sys.argv[1]), test_process.SPAWN.format(session=sys.argv[2] == "True", then="time.sleep(20)"), 20)
"""


@pytest.mark.parametrize("session", [False, True], ids=["same_session", "own_session"])
def test_an_interrupt_leaves_no_process(tmp_path: Path, session: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, tmp_path, str(session)], stderr=subprocess.PIPE
    ) as caller:
        wait_until(lambda: len(printed_pids(tmp_path)) == 2)
        time.sleep(0.1)
        caller.send_signal(signal.SIGINT)
        errors = caller.communicate(timeout=10)[1]
    assert b"KeyboardInterrupt" in errors
    wait_until(lambda: are_gone(printed_pids(tmp_path)), 2)


def test_a_program_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        run_command(tmp_path, [str(tmp_path / "nowhere")])


def test_a_lease_is_held_as_long_as_the_supervisor_lives_and_the_child_does_not_have_it(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    ended = run(tmp_path, f"import os; os.fstat({theirs})", lease=(theirs,))
    os.close(theirs)
    assert os.read(ours, 1) == b""  # nobody has the other end any more
    os.close(ours)
    assert ended.code == 1 and "Bad file descriptor" in (tmp_path / "err").read_text()


KILLED = INTERRUPTED.replace("signal.signal(signal.SIGINT, signal.default_int_handler)", "print('ready', flush=True)")


def supervisor_of(pid: int) -> psutil.Process:
    """The nearest living ancestor: PIDs of a supervised child's own tree are given by the child."""
    parent = psutil.Process(pid).parent()
    assert parent is not None and "tracka.execution.supervisor" in parent.cmdline()
    return parent


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_caller_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path, "True"], stderr=subprocess.PIPE) as caller:
        wait_until(lambda: len(printed_pids(tmp_path)) == 2)
        supervisor = supervisor_of(printed_pids(tmp_path)[0])
        caller.send_signal(number)
        caller.communicate(timeout=10)
    wait_until(lambda: are_gone([*printed_pids(tmp_path), supervisor.pid]), 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_meant_for_all_does_not_end_the_supervisor(tmp_path: Path, number: signal.Signals) -> None:
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(run, tmp_path, SPAWN.format(session=False, then="time.sleep(2)"))
        wait_until(lambda: len(printed_pids(tmp_path)) == 2)
        supervisor_of(printed_pids(tmp_path)[0]).send_signal(number)
        assert (ended.result().code, ended.result().stopped) == (0, "")


def test_a_caller_that_is_killed_while_its_child_is_being_ended_shortens_the_grace(tmp_path: Path) -> None:
    code = KILLED.replace('then="time.sleep(20)"), 20)', "then=test_process.ENDS['ignores_term']), 1, 60)")
    with subprocess.Popen([sys.executable, "-c", code, tmp_path, "True"], stderr=subprocess.PIPE) as caller:
        wait_until(lambda: len(printed_pids(tmp_path)) == 2)
        time.sleep(1.5)
        caller.kill()
        caller.communicate()
    wait_until(lambda: are_gone(printed_pids(tmp_path)), 5)


def test_a_killed_supervisor_takes_the_tree_along_and_nothing_is_known_of_its_end(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(run, tmp_path, SPAWN.format(session=True, then="time.sleep(20)"))
        wait_until(lambda: len(printed_pids(tmp_path)) == 2)
        supervisor_of(printed_pids(tmp_path)[0]).kill()
        assert (ended.result().stopped, ended.result().seconds < 15) == ("lost", True)
    assert are_gone(printed_pids(tmp_path))


def test_the_journal_tells_when_the_child_began_and_when_nothing_of_it_was_left(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.touch()
    run(tmp_path, SPAWN.format(session=True, then=""), journal=journal, label="row_a")
    run(tmp_path, "", journal=journal, label="row_b")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    expected = [("start", "row_a"), ("end", "row_a"), ("start", "row_b"), ("end", "row_b")]
    assert [(line["event"], line["label"]) for line in lines] == expected
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)


SLOWLY = "import time; print(1, flush=True); time.sleep(3)"


def test_a_child_that_ends_late_while_its_supervisor_is_stopped_has_run_out_of_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(run, tmp_path, f"import os; print(os.getpid(), flush=True); {SLOWLY}", timeout=2)
        wait_until(lambda: bool(printed_pids(tmp_path)))
        supervisor = supervisor_of(printed_pids(tmp_path)[0])
        supervisor.suspend()
        time.sleep(4)
        supervisor.resume()
        assert ended.result().stopped == "timeout"


def test_a_supervisor_that_stays_stopped_is_killed_when_all_its_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "SPARE_SECS", 1.0)
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(run, tmp_path, SPAWN.format(session=True, then="time.sleep(20)"), timeout=2)
        wait_until(lambda: len(printed_pids(tmp_path)) == 2)
        supervisor_of(printed_pids(tmp_path)[0]).suspend()
        assert ended.result().stopped == "lost"
    assert are_gone(printed_pids(tmp_path))


def test_a_journal_that_is_lost_meanwhile_costs_no_result(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.touch()
    ended = run(tmp_path, f"import os; os.unlink({str(journal)!r})", journal=journal)
    assert (ended.code, ended.stopped) == (0, "")


def test_a_big_environment_arrives_whole(tmp_path: Path) -> None:
    env = {f"BIG_{number}": "x" * 100_000 for number in range(8)}
    run_command(tmp_path, ["/bin/sh", "-c", "echo ${#BIG_7}"], env=env)
    assert (tmp_path / "out").read_text() == "100000\n"


def test_the_exit_code_is_known_though_our_parent_ignored_the_ends_of_children(tmp_path: Path) -> None:
    code = INTERRUPTED.replace("test_process.run(", "print(test_process.run(").replace("), 20)", "), 20).code)")
    code = code.replace(
        'test_process.SPAWN.format(session=sys.argv[2] == "True", then="time.sleep(20)")', "'raise SystemExit(3)'"
    )
    script = 'trap "" CHLD; exec "$@"'
    command = ["bash", "-c", script, "bash", sys.executable, "-c", code, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.stdout.split() == ["3"], ended.stderr


# output


FLOOD = "import time; print('x' * {size}, end='', flush=True); time.sleep({seconds})"


@pytest.mark.parametrize("stream", ["out", "err"])
def test_a_child_that_prints_too_much_is_ended_within_seconds(tmp_path: Path, stream: str) -> None:
    code = f"import os\nwhile True: os.write({('out', 'err').index(stream) + 1}, b'x' * 1000)"
    ended = run(tmp_path, code, flood=50_000, kept=10_000)
    assert (ended.code, ended.stopped) == (-signal.SIGTERM, "flood")
    assert ended.seconds < 5
    assert 10_000 < (tmp_path / stream).stat().st_size < 10_100


def test_a_child_that_prints_on_after_term_is_killed_and_its_log_stays_short(tmp_path: Path) -> None:
    code = "import signal, os; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: os.write(1, b'x' * 1000)"
    ended = run(tmp_path, code, flood=50_000, kept=10_000)
    assert (ended.code, ended.stopped) == (-signal.SIGKILL, "flood")
    assert (tmp_path / "out").stat().st_size < 10_100


def test_a_child_that_floods_its_log_and_ends_at_once_has_flooded_it_too(tmp_path: Path) -> None:
    ended = run(tmp_path, FLOOD.format(size=50_001, seconds=0), flood=50_000)
    assert (ended.code in (0, -signal.SIGTERM), ended.stopped) == (True, "flood")


def test_a_child_that_prints_as_much_as_a_log_may_take_is_left_alone(tmp_path: Path) -> None:
    ended = run(tmp_path, FLOOD.format(size=50_000, seconds=2), flood=50_000)
    assert (ended.code, ended.stopped) == (0, "")
    assert (tmp_path / "out").stat().st_size == 50_000


def test_what_a_flooding_child_has_started_is_gone_too(tmp_path: Path) -> None:
    code = SPAWN.format(session=True, then=f"print('x' * 60_000, file=sys.stderr, flush=True); {ENDS['times_out']}")
    assert run(tmp_path, code, flood=50_000).stopped == "flood"
    assert len(printed_pids(tmp_path)) == 2
    wait_until(lambda: are_gone(printed_pids(tmp_path)), 2)


def test_a_long_log_keeps_its_head_and_its_tail(tmp_path: Path) -> None:
    code = "print('first'); [print(number) for number in range(100_000)]; print('last')"
    run(tmp_path, code, kept=1000)
    text = (tmp_path / "out").read_text()
    head, tail = text.split("bytes are left out here]")
    assert text.startswith("first\n0\n1\n") and text.endswith("99998\n99999\nlast\n")
    printed = sum(len(f"{number}\n") for number in range(100_000)) + len("first\nlast\n")
    assert f"[tracka: {printed - 1000} " in head and len(tail) - 1 == 500


def test_three_hundred_megabytes_leave_a_short_log(tmp_path: Path) -> None:
    ended = run(tmp_path, "import os; [os.write(1, b'x' * 1_000_000) for _ in range(300)]", flood=1 << 30, kept=8 << 20)
    assert (ended.code, ended.stopped) == (0, "")
    assert (8 << 20) < (tmp_path / "out").stat().st_size < (8 << 20) + 100


def test_a_watched_word_is_in_the_log_wherever_it_was_printed(tmp_path: Path) -> None:
    code = "print('x' * 5000, 'a watched word', 'y' * 5000)"
    run(tmp_path, code, kept=100, watched=("a watched word", "another"))
    text = (tmp_path / "out").read_text()
    assert "a watched word" in text and "another" not in text


def test_a_log_can_be_followed_while_the_child_runs(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(run, tmp_path, "import time; print('early', flush=True); time.sleep(3)")
        wait_until(lambda: (tmp_path / "out").exists() and "early" in (tmp_path / "out").read_text(), 2.5)
        assert not ended.done()


def test_a_secret_is_in_no_log_even_if_it_was_printed_in_pieces(tmp_path: Path) -> None:
    code = "import sys, time; sys.stdout.write('key: hf_can'); sys.stdout.flush(); time.sleep(0.3); print('ary123 end')"
    run(tmp_path, code, secrets=(b"hf_canary123",))
    assert (tmp_path / "out").read_text() == "key: [redacted] end\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_log_that_cannot_be_written_is_an_error_of_the_system_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*out"):
        run(tmp_path, SPAWN.format(session=True, then="time.sleep(20)"))


def test_a_child_that_is_no_longer_wanted_is_ended_with_its_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "POLL_SECS", 0.05)
    ended = run(
        tmp_path, SPAWN.format(session=True, then=ENDS["times_out"]), cancel=lambda: len(printed_pids(tmp_path)) > 1
    )
    assert (ended.code, ended.stopped) == (-signal.SIGTERM, "cancelled")
    assert ended.seconds < 8
    assert are_gone(printed_pids(tmp_path))


def test_a_child_that_is_no_longer_wanted_and_ignores_term_is_killed_a_second_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "POLL_SECS", 0.05)
    code = SPAWN.format(session=False, then=ENDS["ignores_term"] + "; time.sleep(20)")
    ended = run(tmp_path, code, cancel=lambda: len(printed_pids(tmp_path)) > 1)
    assert ended.stopped == "cancelled" and ended.code < 0
    assert are_gone(printed_pids(tmp_path))


def test_a_child_that_stays_wanted_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "POLL_SECS", 0.05)
    answers = iter([False] * 1000)
    ended = run(tmp_path, "import time; time.sleep(0.5)", cancel=lambda: next(answers))
    assert (ended.code, ended.stopped) == (0, "")
    assert len(list(answers)) < 1000


def test_a_question_that_fails_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "POLL_SECS", 0.05)

    def ask() -> bool:
        if len(printed_pids(tmp_path)) > 1:
            raise ValueError("nobody knows")
        return False

    with pytest.raises(ValueError, match="nobody knows"):
        run(tmp_path, SPAWN.format(session=True, then=ENDS["times_out"]), cancel=ask)
    assert are_gone(printed_pids(tmp_path))
