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
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from . import collect, gpu, lock, marker, process, run
from .campaign import Campaign
from .errors import Finding, RunExists, TrackaError
from .matrix import Row
from .plan import Host
from .run import Policy

Entry = Callable[[Campaign, Row, Host, Policy], int]


def sweep(campaign: Campaign, rows: Sequence[Row], host: Host, policy: Policy, max_parallel: int) -> dict[str, int]:
    """Runs `rows` and returns each one's exit code: 0 for a run that passed.

    Raises RunExists for all run folders that are in the way, before anything starts, and Busy where another session
    has the whole campaign; a shard of its rows may run beside other shards.
    """
    if not policy.resume:
        _refuse_existing(campaign, rows)
    with contextlib.ExitStack() as held:
        if len(rows) == len(campaign.enabled):
            held.enter_context(lock.session(campaign.layout.locks, campaign.name))
        marker.ensure_pending(campaign.layout, rows)
        held.enter_context(_interrupted_by_term())
        ordered = sorted(rows, key=campaign.cost, reverse=True)
        return _run_all([(row, (campaign, row, host, policy)) for row in ordered], max_parallel)


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


Work = tuple[Campaign, Row, Host, Policy]


def _run_all(waiting: list[tuple[Row, Work]], max_parallel: int) -> dict[str, int]:
    context = multiprocessing.get_context("spawn")
    codes: dict[str, int] = {}
    slots: dict[int, tuple[SpawnProcess, Row]] = {}
    try:
        while waiting or slots:
            for slot in (number for number in range(max_parallel) if waiting and number not in slots):
                row, work = waiting.pop(0)
                child = context.Process(target=_child, args=(slot, os.getpid(), *work), name=row.run_id)
                child.start()
                slots[slot] = (child, row)
            ended = wait([child.sentinel for child, _ in slots.values()])
            for slot, (child, row) in list(slots.items()):
                if child.sentinel in ended:
                    codes[row.run_id] = _exit_code(child)
                    del slots[slot]
    finally:
        for child, _ in slots.values():
            child.terminate()
        for child, _ in slots.values():
            child.join()
    return codes


def _exit_code(child: SpawnProcess) -> int:
    child.join()
    code = child.exitcode or 0
    if code < 0:
        print(f"error: row {child.name}: its process was killed by signal {-code}", file=sys.stderr)
    return code


def _child(slot: int, parent: int, campaign: Campaign, row: Row, host: Host, policy: Policy) -> None:
    process.end_with_parent()
    if os.getppid() != parent:
        return  # it was killed before the kernel knew what to do then
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and once is enough: by TERM
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ[gpu.WORKER] = str(slot)
    try:
        code = execute(campaign, row, host, policy)
    except TrackaError as error:
        for finding in error.findings:
            print(f"error: row {row.run_id}: {finding}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.exit(code)


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
