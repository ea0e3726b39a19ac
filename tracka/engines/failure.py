"""Diagnoses why an evaluation failed, in one word that programs can act on, and decides what the row may try next."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core import escaping, log_cause, reading, system_errors
from ..execution import slurm_outcome
from ..execution.process import Exit
from . import load_warnings
from .lerobot_eval import Metrics

_SIGNS = (
    ("weights", "|".join(map(re.escape, load_warnings.SIGNS))),
    (
        "oom",
        r"CUDA out of memory|OutOfMemoryError|^MemoryError|Cannot allocate memory|std::bad_alloc|can't allocate memory",
    ),
    (
        "rendering",
        r"\bEGL\w*(?:Error|_BAD|_NOT)|eglInitialize|Cannot initialize a EGL|GLFWError|OSMesa\w* failed|gladLoadGL",
    ),
    ("hub", r"GatedRepoError|RepositoryNotFoundError|LocalEntryNotFoundError|OfflineModeIsEnabled|Cannot access gated"),
    ("import", r"^(?:ModuleNotFoundError|ImportError)"),
)
# MuJoCo's warning. LIBERO clips actions that are too large, so only NaN comes that far, and the rollout goes on
# without the action.
BAD_ACTION = "Nan, Inf or huge value in CTRL"
ON_CPU = "Switching to 'cpu'"  # lerobot's warning as it goes on with the CPU, where torch finds no GPU
WATCHED = (BAD_ACTION, ON_CPU, *load_warnings.SIGNS)  # phrases that a log must keep wherever they were printed
# The reasons of a row that could not start. The checkpoint is refused by that name alone; an evaluation may fail by the
# other three too.
CHECKPOINT, HUB, IMPORT, DEVICE = "checkpoint", "hub", "import", "device"
# What ends an evaluation part-way: the campaign's outcome no longer depends on it, or its session stops.
STOPPED, SESSION_STOP = "stopped", "session_stop"
ENDED = {
    STOPPED: "the campaign was stopped early",
    SESSION_STOP: "the session stops before its end (-x, --maxfail)",
}
SHRINKS_THE_BATCH = ("oom", "timeout", slurm_outcome.MEMORY)
# What lasts: the row would only meet the same again.
LASTING = (
    "weights",
    "device",
    *ENDED,
    system_errors.DISK_FULL,
    system_errors.READ_ONLY,
    *(set(slurm_outcome.WHY) - {slurm_outcome.MEMORY, slurm_outcome.PREEMPTED, slurm_outcome.NODE_LOST}),
)


@dataclass(frozen=True)
class Failure:
    """Describes a failure: `message` is the line that says it, and `reason` is one word.

    The reason is one of timeout, flood, weights, device, oom, rendering, hub, import, disk_full, read_only, file_limit,
    process_limit, killed, crash, bad_action, no_result, invalid_result, interrupted, not_started, checkpoint, stopped,
    session_stop, or one of `slurm_outcome.WHY`.
    """

    reason: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "message", escaping.line(self.message)
        )  # the message comes from a log or eval_info.json


def diagnose(
    process_exit: Exit,
    metrics: Metrics,
    suite: str,
    expected: dict[int, int],
    logs: Sequence[Path],
    device: str = "cpu",
) -> Failure | None:
    """Returns the failure of an ended evaluation, or None where the evaluation passed.

    Returns None only for exit code 0 with exactly the episodes expected of the suite, on the device, `cpu` or `cuda`,
    that was asked for. `expected` has the number of episodes of each LIBERO task.
    """
    if process_exit.stopped == "timeout":
        return Failure(
            "timeout", f"the evaluation was not done after {process_exit.seconds:.0f} s, so Track A ended it"
        )
    if process_exit.stopped == "flood":
        what = (
            f"the evaluation printed more than a log may hold within {process_exit.seconds:.0f} s, so Track A ended it"
        )
        return Failure("flood", what)
    if process_exit.stopped in slurm_outcome.WHY:
        return Failure(process_exit.stopped, slurm_outcome.message(process_exit.stopped, logs))
    if process_exit.stopped == slurm_outcome.NO_GPU:
        return Failure(DEVICE, "Slurm gave the step no GPU: see [slurm] gres, and `sinfo -o '%N %G'`")
    if process_exit.stopped in ENDED and process_exit.code != 0:
        what = f"{ENDED[process_exit.stopped]}, so Track A ended the evaluation after {process_exit.seconds:.0f} s"
        return Failure(process_exit.stopped, what)
    if process_exit.stopped == "lost":
        return Failure("killed", "the process that supervised the run was killed, so the run's exit code is unknown")
    if process_exit.stopped == "survived":
        return Failure(
            "killed", "a process of the run could not be ended: it is another user's, or the kernel holds it"
        )
    if process_exit.code != 0:
        return _crash(process_exit, logs)
    if fault := fault_in_logs(logs, device):
        return fault
    if metrics.source != "eval_info.json":
        return Failure("no_result", f"exit code 0, but {'; '.join(metrics.warnings)}")
    counted = {task.task_id: len(task.successes) for task in metrics.tasks}
    if counted != expected or len(counted) != len(metrics.tasks):
        return Failure("invalid_result", f"episodes by task are {counted}, expected {expected}")
    if other_suites := {task.suite for task in metrics.tasks} - {suite}:
        return Failure("invalid_result", f"the episodes are of {', '.join(sorted(other_suites))}, expected {suite}")
    if metrics.warnings:
        return Failure("invalid_result", "; ".join(metrics.warnings))
    return None


def fault_in_logs(logs: Sequence[Path], device: str) -> Failure | None:
    """Returns the fault for which no outcome of an evaluation counts, however it ended; None if its logs show none.

    The policy ran without its weights, on another device than `device`, or returned what is not a number.
    """
    if line := next(filter(None, map(_weights_warning, logs)), None):
        return Failure("weights", f"the policy ran without its weights: {line}")
    if device != "cpu" and any(reading.mentions(log, ON_CPU.encode()) for log in logs):
        what = "torch found no GPU, so lerobot used the CPU: see stderr.log, and run nvidia-smi"
        return Failure("device", what)
    if any(reading.mentions(log, BAD_ACTION.encode()) for log in logs):
        return Failure(
            "bad_action", "the policy returned an action that is not a number, and MuJoCo left it out: see stdout.log"
        )
    return None


def _weights_warning(log: Path) -> str | None:
    """Returns the first line of a log that tells of weights which were not loaded; None without such a line."""
    signs = (sign[:500] for line in reading.lines(log) if (sign := load_warnings.first_sign_line(line)))
    return next(signs, None)


def _crash(process_exit: Exit, logs: Sequence[Path]) -> Failure:
    text = log_cause.without_ignored("\n".join(map(reading.tail, logs)))
    for reason, pattern in _SIGNS:
        if match := re.search(pattern, text, re.MULTILINE):
            return Failure(reason, _line(text, match.start()))
    cause = log_cause.how_it_ended(process_exit.code, log_cause.read(*logs))
    if limit := system_errors.reason_of_text(cause):
        return Failure(limit, cause)
    return Failure("killed", cause) if process_exit.code < 0 else Failure("crash", cause)


def _line(text: str, position: int) -> str:
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    return text[start : end if end >= 0 else None].strip()[:500]


def next_batch(reason: str | None, batch_size: int) -> int | None:
    """Returns the batch size of the one retry; None where no retry helps.

    No retry helps where memory ran out at batch 1, where weights are lacking, where there is no GPU, where a disk is
    full or read-only, where the campaign or the session was stopped, or where a cluster refuses the job, ends it on
    purpose or cannot be reached.
    """
    if reason in LASTING:
        return None
    if reason not in SHRINKS_THE_BATCH:
        return batch_size
    if batch_size == 1:
        return 1 if reason == "timeout" else None
    return batch_size // 2
