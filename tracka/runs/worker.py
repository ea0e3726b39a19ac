"""Runs one row in its own process: python -m tracka.runs.worker, which reads from stdin what to do.

A process that waits for its row plans another one first. Then all that planning imports, and reads once in a process,
is there when the row comes.

Guarantees: the kernel ends this process together with its parent, from the first instruction on. Ctrl-C and the end of
the terminal, which reach the whole process group, are left to the parent, which ends the row by TERM. The row closes
its attempt before it ends.
"""

import contextlib
import errno
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, NoReturn, cast

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..checkpoints import checkpoint
from ..core import files, system_errors
from ..core.artifacts import Result
from ..core.errors import TrackaError, screen
from ..engines import video
from ..execution import ending_signals, lease, prctl, process, process_setup
from . import early_stop, row_state, run
from .plan import Host
from .run import RerunPolicy

RUN, REHEARSE = "run", "rehearse"  # what a process is told to do with a row
OF_THE_TERMINAL = (signal.SIGINT, signal.SIGHUP)  # signals that reach the whole process group
Work = tuple[Campaign, Row, Host, RerunPolicy]
Child = subprocess.Popen[bytes]


def prepare(slot: int) -> Child:
    """Starts a process that will run the row that `give` gives it. `slot` is the number by which it asks for a GPU."""
    command, environ, parent = (
        process.python("tracka.runs.worker"),
        {**os.environ, lease.WORKER: str(slot)},
        os.getpid(),
    )

    def bind() -> None:
        prctl.end_with_parent(parent)
        for number in OF_THE_TERMINAL:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ending_signals.ALL)

    with system_errors.as_own_errors():
        return subprocess.Popen(command, stdin=subprocess.PIPE, env=environ, preexec_fn=bind)


def rehearse(child: Child, work: Work) -> None:
    """Tells a process that `prepare` has started to plan a row, which is not run."""
    campaign, row, host, policy = work
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        # Of one row only, so that the message fits into the pipe and nobody waits until the process reads it.
        pickle.dump((REHEARSE, (replace(campaign, rows=(row,)), row, host, policy)), child.stdin)
        child.stdin.flush()


def give(child: Child, work: Work) -> None:
    """Tells a process that `prepare` has started which row to run."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
        pickle.dump((RUN, work), pipe)


def received_work(stream: IO[bytes]) -> Work:
    """Returns the row to run, as soon as the parent has told it. Plans the rows to be rehearsed until then."""
    while True:
        request, work = pickle.load(stream)
        if request == RUN:
            return cast(Work, work)
        _rehearse(work)


def _rehearse(work: Work) -> None:
    """Plans a row and keeps nothing of the plan, and loads what judges a row's films.

    Downloads nothing; a row that is refused is reported when it runs.
    """
    campaign, row, host, _ = work
    video.load_decoder()
    with contextlib.suppress(TrackaError, OSError):
        if checkpoint.is_here(row.policy_path, campaign.layout.root):
            run.plan_row(campaign, row, host).proof_key  # noqa: B018 - a property that reads the installed software


def refuse(work: Work, error: OSError) -> int:
    """Records that the system has started no process for the row, prints so, and returns the row's exit code."""
    campaign, row, host, _ = work
    try:
        run.refuse(campaign, row, host, error)
    except TrackaError as refused:
        print_redacted(screen(refused.findings, f"error: row {row.run_id}: "), error=True)
    return 1


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Holds back the signals that end a session, since an interrupt here would leave a child that nobody knows."""
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, ending_signals.ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)


def execute(
    campaign: Campaign,
    row: Row,
    host: Host,
    policy: RerunPolicy,
    retry_index: int = 0,
    watch: early_stop.Watch | None = None,
) -> int:
    """Runs one row, prints its outcome in one line, and returns 0 if the row passed, else 1.

    Where `watch` ends the campaign early, the exit code is 0 if every claim has passed.
    """
    try:
        result = run.run_row(campaign, row, host, policy, retry_index, [watch] if watch else [])
    except early_stop.StoppedEarly as stopped:
        print_redacted(f"{row.run_id}: not started, {stopped.findings[0].what}")
        return stopped.exit_code
    print_redacted(f"{row.run_id}: {_outcome_line(result)}")
    decision = early_stop.excused(campaign, row) if watch and result["status"] != "pass" else None
    return 0 if result["status"] == "pass" or (decision and decision.outcome == "pass") else 1


def print_redacted(text: str, error: bool = False) -> None:
    """Prints `text` without secrets to stdout, or to stderr for an error. A closed pipe or terminal changes no outcome.

    The text and its newline are one write, since rows that run at the same time print into one pipe.
    """
    stream = sys.stderr if error else sys.stdout
    try:
        print(f"{files.redacted(text)}\n", end="", file=stream, flush=True)  # does nothing where the stream is closed
    except OSError as problem:
        if problem.errno not in (errno.EPIPE, errno.EIO):  # EIO is of a terminal that has been closed
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2 if error else 1)


def _outcome_line(result: Result) -> str:
    counts = f"{result['successes']} of {result['episodes']} episodes succeeded"
    outcome = result["error_message"] if result["episodes"] is None else counts
    status = row_state.status_text(result["status"], result["reason"], result["invalid"], result["unproven"])
    return f"{status}, {outcome}"


def main(work: Work) -> int:
    """Runs the row of `work`, prints any error, and returns the process's exit code."""
    row = work[1]
    ending_signals.interrupt_once()
    try:
        with system_errors.as_own_errors():
            return execute(*work, watch=early_stop.watch(*work[:2]))
    except TrackaError as error:
        print_redacted(screen(error.findings, f"error: row {row.run_id}: "), error=True)
        return error.exit_code
    except OSError as error:
        print_redacted(f"error: row {row.run_id}: {system_errors.finding(error)}", error=True)
        return 1
    except KeyboardInterrupt:
        return ending_signals.EXIT_CODE
    finally:
        ending_signals.mark_as_handled()


def _end(code: int) -> NoReturn:
    """Ends this process at once: the next row waits for its end, and the interpreter has nothing to clean up."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None where the process has been started without
        with contextlib.suppress(OSError, ValueError):  # a pipe without a reader, or a closed stream
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    process_setup.prepare()
    files.keep_private()
    _end(main(received_work(sys.stdin.buffer)))
