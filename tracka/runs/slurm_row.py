"""Runs a row's program on a Slurm cluster, behind srun, and says how it ended.

Guarantees: a job or step that an earlier harness left of the row is ended before the row runs, and none of this call is
left when it returns, raises or is interrupted, as far as the controller answers; a row that waits says for what.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..campaign.campaign import Campaign
from ..campaign.layout import Layout, RunFolder
from ..campaign.matrix import CPU, Row
from ..core import files, schema
from ..core.artifacts import Manifest, StepRecord
from ..core.errors import Finding, TrackaError
from ..engines import failure
from ..execution import gpu, lease, orphans, process, slurm, slurm_launch, slurm_outcome
from ..execution.gpu import Device
from ..execution.process import CANCELLED, Bounds, Exit
from ..execution.slurm_launch import Launch
from ..execution.slurm_step import StepRequest
from . import row_state
from .plan import Plan

RECORD = "step.json"
BEAT_SECS = 1.0
ASK_SECS = 30.0  # between two questions why a job waits, so that many rows do not tire the controller
FIRST_ASK_SECS = 5.0
LINGER_SECS = 30.0  # that srun may take to end after the program, as while the controller does not answer
START_SECS = 300.0  # for a step to begin and to end, beside its waiting and its own deadline


@contextlib.contextmanager
def hold_device(campaign: Campaign, row: Row, keep: bool = True) -> Iterator[Device]:
    """Holds what the row computes on: a GPU of this host or the CPU, or on a cluster what Slurm will give.

    There Slurm takes the lease's place: any GPU stands for the one that the matrix numbers. `keep` is as of
    `lease.hold`.
    """
    if not campaign.is_on_slurm:
        with lease.hold(row.gpu_id, lease.worker_number(), keep=keep) as device:
            yield device
    else:
        yield gpu.CPU_DEVICE if row.gpu_id == CPU else Device(max(row.gpu_id, 0), "")


def end_left_behind(campaign: Campaign, run_id: str) -> None:
    """Ends the jobs and steps that an earlier harness has left of the row, by their name.

    Raises TrackaError where the controller does not answer, or with the jobs that do not end.
    """
    if not campaign.is_on_slurm:
        return
    name = slurm_launch.name(campaign.layout.artifacts, run_id)
    if left := slurm.end(lambda each: each == name):
        where = f"row {run_id}, {', '.join(map(str, left))}"
        what = "it is left of an earlier call and has not ended, though Slurm was asked to"
        raise TrackaError(Finding(where, what, f"Run `scancel {left[0].id}`, see `squeue`, then run the row again"))


@dataclass
class _Wait:
    """What is asked every few seconds while srun runs: whether the row is still wanted, and why it waits."""

    layout: Layout
    run_id: str
    name: str
    record: Path
    patience: float
    cancel: Callable[[], bool] | None
    begun: float = field(default_factory=time.monotonic)
    asked: float = 0.0
    ended: float | None = None
    has_started: bool = False
    reason: str = ""  # why the row is no longer wanted, if Slurm is the cause

    def __call__(self) -> bool:
        """Returns whether srun has to end."""
        if self.cancel and self.cancel():
            return True
        now = time.monotonic()
        if not self.has_started:
            return self._waits_too_long(now)
        record = schema.read_or_none("step", self.record)
        if record and record["end"] is not None:
            self.ended = self.ended or now
        return self.ended is not None and now - self.ended > LINGER_SECS

    def _waits_too_long(self, now: float) -> bool:
        if self.record.is_file():
            self.has_started = True
            row_state.note_running_held(self.layout, self.run_id, "")
            return False
        if now - self.begun > self.patience:
            self.reason = slurm_outcome.PENDING
            return True
        if now - max(self.asked, self.begun + FIRST_ASK_SECS - ASK_SECS) > ASK_SECS:
            self.asked = now
            row_state.note_running_held(self.layout, self.run_id, self._why())
        return False

    def _why(self) -> str:
        """Returns why the row waits, in Slurm's words."""
        try:
            jobs = slurm.find(lambda each: each == self.name)
        except TrackaError as error:
            return error.findings[0].what
        if pending := [job for job in jobs if job.state == "PENDING"]:
            return f"job {pending[0].id} is pending: {pending[0].reason}"
        return "waits for a step of the allocation" if slurm.allocation() else "waits for Slurm"


@dataclass(frozen=True)
class Program:
    """What is to run on the cluster for a row: its words, its folder, its environment, and what it needs.

    `name` names the job, `marks` the processes on this host, and `batch` is how many episodes are played at a time.
    """

    words: tuple[str, ...]
    folder: RunFolder
    environ: Mapping[str, str]
    bounds: Bounds
    name: str
    comment: str
    backend: str
    batch: int
    has_gpu: bool
    marks: Mapping[str, str]
    secrets: tuple[bytes, ...] = ()

    @property
    def record(self) -> Path:
        return self.folder.path / RECORD

    @property
    def logs(self) -> tuple[Path, Path]:
        return self.folder.stdout, self.folder.stderr


def play(
    plan: Plan,
    folder: RunFolder,
    manifest: Manifest,
    environ: Mapping[str, str],
    secrets: tuple[bytes, ...],
    cancel: Callable[[], bool] | None,
) -> tuple[Exit, Manifest]:
    """Runs the plan's program on the cluster, and returns how it ended and the manifest with where it ran."""
    layout, run_id = plan.campaign.layout, plan.row.run_id
    program = program_of(plan, plan.started_words(manifest["command"] or []), folder, environ, run_id)
    program = replace(program, secrets=secrets, marks=orphans.marks(layout.run(run_id).path, None))
    wait = _Wait(layout, run_id, program.name, program.record, plan.campaign.slurm.wait_secs, cancel)
    ended, record = run_program(plan.campaign, program, run_id, wait)
    return ended, _placed(folder, manifest, record)


def program_of(plan: Plan, words: Sequence[str], folder: RunFolder, environ: Mapping[str, str], what: str) -> Program:
    """Returns the program of a plan; `what` names its job, beside the token of the artifacts."""
    layout = plan.campaign.layout
    return Program(
        tuple(words),
        folder,
        environ,
        plan.bounds,
        slurm_launch.name(layout.artifacts, what),
        f"Track A: {folder.path}",
        plan.host.backend,
        plan.played_batch,
        plan.row.gpu_id != CPU,
        {},
    )


def run_program(
    campaign: Campaign, program: Program, label: str, wait: "_Wait | None" = None
) -> tuple[Exit, StepRecord | None]:
    """Runs a program on the cluster, and returns how it ended and the record of its step, None if none began."""
    left = slurm.patiently(slurm_launch.seconds_left)
    allowed = program.bounds.timeout if left is None else min(left, program.bounds.timeout)
    settings = campaign.slurm
    still_there: list[slurm.Job] = []
    is_over = False
    try:
        process_exit = process.run(
            _srun(campaign, program, allowed),
            cwd=campaign.layout.root,
            env={**slurm_launch.environment(program.environ), **program.marks},
            stdout=program.folder.stdout,
            stderr=program.folder.stderr,
            bounds=_bounds_of_srun(program.bounds, settings.wait_secs + START_SECS),
            secrets=program.secrets,
            watched=failure.WATCHED,
            label=label,
            cancel=wait,
            beat=BEAT_SECS,
        )
        is_over = process_exit.code == 0 and not process_exit.stopped  # srun has seen the end of its step
    finally:
        if not is_over:
            still_there = _end_own(program.name)
    record = _ended_record(program.record, settings.shared_secs, is_expected=process_exit.code == 0)
    ended = _outcome(process_exit, wait, record, program.logs, allowed >= program.bounds.timeout)
    if still_there and not ended.stopped:
        ended = replace(ended, stopped="survived")
    if not ended.stopped and ended.code == 0 and not _is_seen(program.folder.output, record, settings.shared_secs):
        ended = replace(ended, stopped=slurm_outcome.UNSEEN)
    return ended, record


def _srun(campaign: Campaign, program: Program, allowed: float) -> list[str]:
    """Returns the argv of srun for a program that may run for `allowed` seconds."""
    settings, bounds = campaign.slurm, program.bounds
    step = StepRequest(
        program.words,
        str(campaign.layout.root),
        str(program.record),
        str(program.folder.output),
        allowed,
        bounds.grace,
        settings.lost_secs,
        slurm.allocation() is None,
        program.has_gpu,
        program.backend,
        cuda_to_egl={str(cuda): egl for cuda, egl in campaign.cuda_to_egl.items()},
    )
    cores, minutes = settings.cores(program.batch), settings.minutes(bounds.timeout, bounds.grace)
    launch = Launch(program.name, program.comment, cores, minutes, program.has_gpu)
    return slurm_launch.words(launch, settings, step, program.environ)


def _bounds_of_srun(bounds: Bounds, more: float) -> Bounds:
    """Returns the bounds of srun: the step on the node keeps the row's own deadline, these are the backstop."""
    return replace(bounds, timeout=bounds.timeout + bounds.grace + more)


def _end_own(name: str) -> list[slurm.Job]:
    """Ends what srun has left, and returns what does not end; nothing where the controller does not answer."""
    try:
        return slurm.end(lambda each: each == name)
    except TrackaError:
        return []


def _outcome(
    process_exit: Exit, wait: _Wait | None, record: StepRecord | None, logs: Sequence[Path], is_own: bool
) -> Exit:
    """Returns how the program ended; `is_own` says whether its time was its row's, not what an allocation had left."""
    if wait and wait.reason:
        return replace(process_exit, stopped=wait.reason, code=process_exit.code or 1)
    has_ended = record is not None and record["end"] is not None
    if process_exit.stopped == CANCELLED and not (has_ended and wait and wait.ended):
        return replace(process_exit, code=process_exit.code or 1)  # srun may end with 0 where its step was ended
    if process_exit.stopped in ("flood", "lost", "survived", "timeout"):
        return process_exit
    return slurm_outcome.of(replace(process_exit, stopped=""), record, logs, is_own)


def _ended_record(path: Path, seconds: float, is_expected: bool) -> StepRecord | None:
    """Returns the step's record once it tells of an end, or as it is after `seconds`; None where there is none.

    A node's file may be seen later on another node. A step that was killed writes no end, so where srun tells of a
    failure less is waited for.
    """
    deadline = time.monotonic() + (seconds if is_expected else min(seconds, 5.0))
    while True:
        _look_again(path.parent)
        record = schema.read_or_none("step", path)
        is_there = record is not None and record["end"] is not None
        if is_there or time.monotonic() > deadline or (record is None and not is_expected):
            return record
        time.sleep(0.2)


def _is_seen(output: Path, record: StepRecord | None, seconds: float) -> bool:
    """Returns whether the files that the program left on its node are seen here, at the latest after `seconds`."""
    expected = record["end"]["files"] if record and record["end"] else {}
    deadline = time.monotonic() + seconds
    while not all(_size(output / name) == size for name, size in expected.items()):
        if time.monotonic() > deadline:
            return False
        for folder in {(output / name).parent for name in expected}:
            _look_again(folder)
        time.sleep(0.5)
    return True


def _look_again(folder: Path) -> None:
    """Opens a folder, which makes a network file system ask its server for what is new there."""
    with contextlib.suppress(OSError), os.scandir(folder) as listing:
        next(listing, None)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return -1


def _placed(folder: RunFolder, manifest: Manifest, record: StepRecord | None) -> Manifest:
    """Writes into the attempt's manifest where Slurm ran it, and returns the manifest.

    Its `gpu_id` is then the GPU's index on that node.
    """
    if record is None:
        return manifest
    word = record["gpu"] or ""
    placed: Manifest = {
        **manifest,
        "gpu_id": int(word) if word.isdigit() else manifest["gpu_id"],
        "gpu_uuid": record["gpu_uuid"],
        "env": manifest["env"] | record["variables"],
        "slurm": {
            "node": record["node"],
            "job_id": record["job_id"],
            "step_id": record["step_id"],
            "restarts": record["restarts"],
            "gpu": record["gpu"],
        },
    }
    files.write_json(folder.manifest, placed)
    return placed
