"""Many rows, several at once, each in a process of its own: the longest first, and no failure stops the others.

Guarantees: `max_parallel` rows at most run at a time, one GPU each; when this process is interrupted, its rows close
their attempts first; when it is killed, the kernel ends them. No summary is written: that is the business of one
other process.
"""

import contextlib
import multiprocessing
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from . import collect, cost, lease, lock, marker, run, supervisor
from .campaign import Campaign
from .dealer import Dealer
from .errors import Finding, RunExists, TrackaError, screen
from .matrix import Row
from .plan import Host
from .run import Policy

ENDING = (signal.SIGINT, signal.SIGTERM)
Work = tuple[Campaign, Row, Host, Policy]
Slots = dict[int, tuple[SpawnProcess, Row]]


def sweep(campaign: Campaign, rows: Sequence[Row], host: Host, policy: Policy, max_parallel: int) -> dict[str, int]:
    """Runs `rows` and returns each one's exit code: 0 for a run that passed.

    Raises RunExists for all run folders that are in the way, before anything starts, and Busy where another session
    has the whole campaign; a shard of its rows may run beside other shards.
    """
    with contextlib.ExitStack() as held:
        if {row.run_id for row in rows} == {row.run_id for row in campaign.enabled}:
            held.enter_context(lock.session(campaign.layout.locks, campaign.name))
        if not policy.resume:
            _refuse_existing(campaign, rows)
        marker.ensure_pending(campaign.layout, rows)
        held.enter_context(_interrupted_by_term())
        dealer = Dealer(cost.gpus(rows))
        dealer.add(cost.jobs(campaign, dict(enumerate(rows)), policy.resume))
        return _run_all(campaign, [(campaign, row, host, policy) for row in rows], dealer, max_parallel)


def _refuse_existing(campaign: Campaign, rows: Sequence[Row]) -> None:
    layout = campaign.layout
    there = [row.run_id for row in rows if layout.run(row.run_id).path.exists() and not run.is_dry(layout, row.run_id)]
    remedy = "Pass --resume to run what has not passed, or name other rows"
    if there:
        raise RunExists([Finding(str(layout.run(run_id).path), "the run folder exists", remedy) for run_id in there])


def execute(campaign: Campaign, row: Row, host: Host, policy: Policy, retry_index: int = 0) -> int:
    """Runs one row, says in one line how it went, and returns 0 if it passed."""
    result = run.run_row(campaign, row, host, policy, retry_index)
    counts = f"{result['successes']} of {result['episodes']} episodes succeeded"
    outcome = result["error_message"] if result["episodes"] is None else counts
    print(f"{row.run_id}: {collect.status_text(result['status'], result['reason'])}, {outcome}", flush=True)
    return 0 if result["status"] == "pass" else 1


def _run_all(campaign: Campaign, works: Sequence[Work], dealer: Dealer, max_parallel: int) -> dict[str, int]:
    resource_tracker.ensure_running()  # the first child would start it, and that unblocks signals
    codes: dict[str, int] = {}
    slots: Slots = {}
    try:
        while dealer.piles or slots:
            for slot, job in dealer.deal(range(max_parallel)).items():
                _start(slots, slot, works[job.index])
            codes |= _ended(campaign, slots, dealer)
    finally:
        for child, _ in slots.values():
            child.terminate()
        for child, _ in slots.values():
            child.join()
    return codes


def _start(slots: Slots, slot: int, work: Work) -> None:
    context, row = multiprocessing.get_context("spawn"), work[1]
    child = context.Process(target=_child, args=(slot, os.getpid(), *work), name=row.run_id)
    with _undisturbed():  # or an interrupt leaves a child that nobody knows
        child.start()
        slots[slot] = (child, row)


def _ended(campaign: Campaign, slots: Slots, dealer: Dealer) -> dict[str, int]:
    """Waits until a row ends, takes those that have from `slots`, and returns their exit codes."""
    sentinels = wait([child.sentinel for child, _ in slots.values()])
    ended = {slot: each for slot, each in slots.items() if each[0].sentinel in sentinels}
    codes = {row.run_id: _exit_code(child) for child, row in ended.values()}
    for slot, (_, row) in ended.items():
        run.close_left_behind(campaign.layout, row.run_id)  # its process may have been killed
        dealer.done(slot)
        del slots[slot]
    return codes


def _exit_code(child: SpawnProcess) -> int:
    child.join()
    code = child.exitcode or 0
    if code < 0:
        print(f"error: row {child.name}: its process was killed by signal {-code}", file=sys.stderr)
    return code


def _child(slot: int, parent: int, campaign: Campaign, row: Row, host: Host, policy: Policy) -> None:
    supervisor.end_with_parent()
    if os.getppid() != parent:
        return  # it was killed before the kernel knew what to do then
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and once is enough: by TERM
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ[lease.WORKER] = str(slot)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        code = execute(campaign, row, host, policy)
    except TrackaError as error:
        print(screen(error.findings, f"error: row {row.run_id}: "), file=sys.stderr)
        code = error.exit_code
    except OSError as error:
        print(f"error: row {row.run_id}: {error.filename}: {error.strerror}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.exit(code)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Holds the signals that end a session back; a child that is started meanwhile has to let them in."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _interrupted_by_term() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def replay(matrix: Path, artifacts_root: Path, status_dir: Path, max_parallel: int, run_ids: Sequence[str]) -> str:
    """The command that runs again what of `run_ids` has not passed, the same whatever happened."""
    places = ["--matrix", matrix, "--artifacts-root", artifacts_root, "--status-dir", status_dir]
    words = [*places, "--rows", ",".join(run_ids), "--max-parallel", max_parallel, "--resume"]
    return shlex.join(["tracka", "sweep", *map(str, words)])
