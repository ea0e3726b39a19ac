"""Runs many rows, several at once, each in its own process: the longest first, and no failure stops the others.

Guarantees: at most `max_parallel` rows run at a time, one GPU each. If this process is interrupted, its rows close
their attempts first; if this process is killed, the kernel ends its rows. A sweep writes no summary, which is the task
of one other process.
"""

import contextlib
import shlex
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..campaign.shards import Shard
from ..core import lock
from ..core.errors import Finding, UsageError
from ..execution import ending_signals, harness_session
from . import row_durations, row_state, run, time_budget, unplayed_jobs, worker
from .plan import Host
from .row_processes import RowProcesses
from .row_scheduler import RowScheduler
from .run import RerunPolicy
from .session_rows import SessionRows
from .worker import Child, Work

POLL_SECS = 0.01
WAIT_SECS = 0.5  # between two looks whether a row's next process is due
MOST_NAMES = 32 << 10  # bytes of run ids in one argument: Linux takes 128 KiB, also for a whole line behind `ssh HOST`
Slots = dict[int, tuple[Child, Row]]  # worker number -> the process that runs there, and its row


def sweep(
    campaign: Campaign,
    rows: Sequence[Row],
    host: Host,
    policy: RerunPolicy,
    max_parallel: int,
    session: SessionRows | None = None,
) -> dict[str, int]:
    """Runs `rows` and returns the exit code of each by its run id: 0 for a run that passed.

    `session` gets to know which rows have begun and ended. Raises UsageError, before anything starts, with all policies
    that may not run and all run folders in the way. Raises Busy where another session has the whole campaign; a shard
    of a campaign's rows may run beside other shards.
    """
    with contextlib.ExitStack() as stack:
        if {row.run_id for row in rows} == {row.run_id for row in campaign.enabled}:
            stack.enter_context(lock.session(campaign.layout.locks, campaign.name))
        if findings := [
            *run.untrusted_code_findings(campaign, rows),
            *([] if policy.resume else _existing_run_folders(campaign, rows)),
        ]:
            raise UsageError(findings)
        row_state.ensure_pending(campaign.layout, rows)
        ending_signals.interrupt_once()
        stack.callback(ending_signals.mark_as_handled)  # whoever has called this function may go on
        survivors = stack.enter_context(harness_session.hold())
        _print_all([*harness_session.warnings(survivors), *unplayed_jobs.end(campaign, rows)])
        policy = replace(policy, budget=time_budget.of_session(campaign, time.monotonic()))
        scheduler = RowScheduler(row_durations.gpus(campaign, rows))
        scheduler.add(row_durations.jobs(campaign, dict(enumerate(rows)), policy.resume))
        works = [(campaign, row, host, policy) for row in rows]
        codes = _run_all(campaign, works, scheduler, max_parallel, session or SessionRows())
        _print_all(unplayed_jobs.end(campaign, rows, unplayed_jobs.PATIENCE_SECS))
        return codes


def _print_all(warnings: Sequence[str]) -> None:
    for warning in warnings:
        worker.print_redacted(warning, error=True)


def _existing_run_folders(campaign: Campaign, rows: Sequence[Row]) -> list[Finding]:
    """Returns a finding for each run folder that is in the way."""
    layout = campaign.layout
    run_ids = [row.run_id for row in rows if run.is_in_the_way(layout, row.run_id)]
    remedy = "Pass --resume to run the rows that have not passed, or name other rows"
    return [Finding(str(layout.run(run_id).path), "the run folder exists", remedy) for run_id in run_ids]


def _run_all(
    campaign: Campaign, works: Sequence[Work], scheduler: RowScheduler, max_parallel: int, session: SessionRows
) -> dict[str, int]:
    codes: dict[str, int] = {}
    slots: Slots = {}
    numbers: Collection[int] = range(max_parallel)
    processes = RowProcesses()
    try:
        while scheduler.queues or slots:
            for slot, job in scheduler.assign(numbers).items():
                work = works[job.index]
                try:
                    with worker.undisturbed():
                        slots[slot] = (processes.start(work, slot), work[1])
                    session.begin(work[1].run_id)
                except OSError as error:
                    scheduler.done(slot)
                    if slots:  # the row waits, and from now on no more rows run at a time than run now
                        scheduler.add([job])
                        numbers = set(slots)
                    else:
                        codes[work[1].run_id] = worker.refuse(work, error)
            with worker.undisturbed():
                if scheduler.queues:
                    longest = next(iter(scheduler.queues.values()))[-1]
                    for slot in slots:
                        processes.prepare(slot, works[longest.index])
            ended = _wait_for_rows(campaign, slots, scheduler) if slots else {}
            for run_id, code in ended.items():
                session.end(run_id, passed=not code)
            codes |= ended
    finally:
        processes.end()
        for child, _ in slots.values():
            child.terminate()
        for child, _ in slots.values():
            child.wait()
    return codes


def _wait_for_rows(campaign: Campaign, slots: Slots, scheduler: RowScheduler) -> dict[str, int]:
    """Waits until a row ends, removes the rows that have ended from `slots`, and returns their exit codes by run id.

    Returns none where none ends within WAIT_SECS.
    """
    deadline = time.monotonic() + WAIT_SECS
    while not (ended_slots := {slot: (child, row) for slot, (child, row) in slots.items() if child.poll() is not None}):
        if time.monotonic() > deadline:
            return {}
        time.sleep(POLL_SECS)
    for slot, (_, row) in ended_slots.items():
        run.close_left_behind(campaign.layout, row.run_id)  # the row's process may have been killed
        scheduler.done(slot)
        del slots[slot]
    return {row.run_id: _exit_code(child, row) for child, row in ended_slots.values()}


def _exit_code(child: Child, row: Row) -> int:
    if child.returncode < 0:
        text = f"error: row {row.run_id}: its process was killed by signal {-child.returncode}"
        worker.print_redacted(text, error=True)
    return child.returncode


def replay(
    matrix: Path,
    artifacts_root: Path,
    status_dir: Path,
    max_parallel: int,
    run_ids: Sequence[str],
    shard: Shard | None = None,
) -> str:
    """Returns the command that runs those of `run_ids` again that have not passed. What happened does not change it.

    Where `run_ids` is empty, or too long for one argument, the command names all rows of `shard`, or of the matrix
    without one, and `--resume` finds those among them that have not passed.
    """
    paths = ["--matrix", matrix, "--artifacts-root", artifacts_root, "--status-dir", status_dir]
    names, whole = ",".join(run_ids), ["--shard", shard] if shard else []
    rows = ["--rows", names] if 0 < len(names) <= MOST_NAMES else whole
    return shlex.join(["tracka", "sweep", *map(str, [*paths, *rows, "--max-parallel", max_parallel, "--resume"])])
