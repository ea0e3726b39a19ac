"""Runs a program on a Slurm cluster behind srun, and says how it ended.

Guarantees: no job of the call is left when it returns, raises or is interrupted, as far as the controller answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..campaign.campaign import Campaign
from ..campaign.layout import RunFolder
from ..core.artifacts import StepRecord
from ..core.errors import TrackaError
from ..engines import failure
from ..execution import process, shared_folder, slurm, slurm_launch, slurm_outcome
from ..execution.process import CANCELLED, Bounds, Exit
from ..execution.slurm_launch import Launch
from ..execution.slurm_step import StepRequest
from .slurm_wait import Wait

RECORD = "step.json"
BEAT_SECS = 1.0
START_SECS = 300.0  # for a step to begin and to end, beside its waiting and its own deadline


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


def run_program(
    campaign: Campaign, program: Program, label: str, wait: Wait | None = None
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
            farewell=slurm_launch.farewell(program.name),
        )
        is_over = process_exit.code == 0 and not process_exit.stopped  # srun has seen the end of its step
    finally:
        if not is_over:
            still_there = _end_own(program.name)
    record = shared_folder.ended_record(program.record, settings.shared_secs, is_expected=process_exit.code == 0)
    ended = _outcome(process_exit, wait, record, program.logs, allowed >= program.bounds.timeout)
    if still_there and not ended.stopped:
        ended = replace(ended, stopped="survived")
    output, has_passed = program.folder.output, not ended.stopped and ended.code == 0
    if has_passed and not shared_folder.is_seen(output, record, settings.shared_secs):
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
        return slurm.end(name)
    except TrackaError:
        return []


def _outcome(
    process_exit: Exit, wait: Wait | None, record: StepRecord | None, logs: Sequence[Path], is_own: bool
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
