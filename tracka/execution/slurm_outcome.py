"""Says why a program on a Slurm cluster ended that did not end by itself, in one word that programs can act on."""

import re
from collections.abc import Sequence
from pathlib import Path

from ..core import reading
from ..core.artifacts import StepRecord
from ..core.errors import TrackaError
from . import slurm
from .process import Exit
from .slurm_step import LOST, NO_DEVICE, TERMINATED, TIMEOUT

TIME_LIMIT, MEMORY, PREEMPTED, NODE_LOST = "time_limit", "job_memory", "preempted", "node_lost"
CANCELLED, CONTROLLER, PENDING, REFUSED = "job_cancelled", "controller_lost", "never_started", "slurm_refused"
HARNESS, NO_GPU, UNSEEN = "harness_lost", "device", "not_shared"
WHY = {  # outcome -> what happened, and what helps
    TIME_LIMIT: (
        "the job's time limit was reached",
        "Ask for a longer allocation, or raise [slurm] time_minutes, then run again with --resume",
    ),
    MEMORY: (
        "the job used more memory than it was given",
        "Raise [slurm] memory_mib, or lower the row's batch_size",
    ),
    PREEMPTED: (
        "another job took its node (preemption)",
        "Run again with --resume, or choose a partition or qos that is not preempted",
    ),
    NODE_LOST: (
        "its node failed, or was taken out of service",
        "See `sinfo -R`, then run again with --resume; [slurm] extra = ['--exclude=NODE'] avoids a node",
    ),
    CANCELLED: (
        "the job was cancelled from outside",
        "Find out who called scancel (`sacct -j JOB`), then run again with --resume",
    ),
    CONTROLLER: (
        "the cluster's controller did not answer",
        "Wait until `sinfo` answers, then run again with --resume",
    ),
    PENDING: (
        "the job did not start within [slurm] wait_secs",
        "See `squeue --start`; ask for less, name another partition, or raise [slurm] wait_secs",
    ),
    REFUSED: (
        "Slurm refused the job",
        "Correct the key under [slurm] that the message names; `sinfo -o '%P %G %f %l'` shows what there is",
    ),
    HARNESS: (
        "the step did not hear of its harness any more",
        "See that the login node and its network are well; [slurm] lost_secs says how long a step waits",
    ),
    UNSEEN: (
        "the program's files were not seen here in time",
        "Put the artifacts on a file system that all nodes share, or raise [slurm] shared_secs",
    ),
}
REMEDIES = {reason: remedy for reason, (_, remedy) in WHY.items()}
_STATES = {
    "TIMEOUT": TIME_LIMIT,
    "DEADLINE": TIME_LIMIT,
    "OUT_OF_MEMORY": MEMORY,
    "PREEMPTED": PREEMPTED,
    "NODE_FAIL": NODE_LOST,
    "BOOT_FAIL": NODE_LOST,
    "CANCELLED": CANCELLED,
}
# What srun and slurmstepd print, the more telling first. A program can print the same, so this counts only where the
# step did not end the program by itself.
_SIGNS = (
    (MEMORY, r"exceeded (?:job |step )?memory limit|oom[-_ ]kill|Out Of Memory"),
    (TIME_LIMIT, r"DUE TO TIME LIMIT|time limit"),
    (PREEMPTED, r"DUE TO PREEMPTION|preempt"),
    (NODE_LOST, r"DUE TO NODE (?:FAILURE|FAIL)|Node failure|node fail|lost connection|has been drained|launch failed"),
    (CONTROLLER, r"Unable to contact slurm controller|controller (?:is )?not responding"),
)
_OF_SLURM = re.compile(r"^(?:srun|slurmstepd\S*|slurmd\S*|salloc): (?:error: )?(.*)$", re.MULTILINE)


def of(process_exit: Exit, record: StepRecord | None, logs: Sequence[Path], deadline_is_own: bool = True) -> Exit:
    """Returns how the program on the node ended, by the step's record or else by what Slurm says.

    `process_exit` is how srun ended. `deadline_is_own` is False where the program was given less time than its row has,
    since the allocation ends before.
    """
    if record is None:
        return _unstarted(process_exit, logs)
    end = record["end"]
    if end is None or end["stopped"] == TERMINATED:
        seconds = end["seconds"] if end else process_exit.seconds
        return _ended_outside(process_exit, record, logs, seconds)
    if end["stopped"] == TIMEOUT:
        reason = "timeout" if deadline_is_own else TIME_LIMIT
        return Exit(end["code"], reason, end["seconds"])
    if end["stopped"] in (LOST, NO_DEVICE):
        return Exit(end["code"], HARNESS if end["stopped"] == LOST else NO_GPU, end["seconds"])
    if end["code"] in (-9, 137) and _sign(_said(logs)) == MEMORY:
        return Exit(end["code"], MEMORY, end["seconds"])
    return Exit(end["code"], "", end["seconds"])


def _unstarted(process_exit: Exit, logs: Sequence[Path]) -> Exit:
    """Returns the end of a program that has left no record: Slurm refused it, or something ended it as it began."""
    said = _said(logs)
    reason = _sign(said) or (CANCELLED if re.search("CANCELLED|revoked", said) else REFUSED)
    return Exit(process_exit.code or 1, process_exit.stopped or reason, process_exit.seconds)


def _ended_outside(process_exit: Exit, record: StepRecord, logs: Sequence[Path], seconds: float) -> Exit:
    state = _state(record["job_id"])
    reason = _STATES.get(state, "")
    said = _sign(_said(logs))
    if reason in ("", CANCELLED):  # a job that Slurm ends for a cause may count as cancelled, and a step has no state
        reason = said or CANCELLED
    return Exit(process_exit.code or 1, process_exit.stopped or reason, seconds)


def _state(job: str) -> str:
    """Returns the state of a job, which Slurm knows for some minutes after the job's end; empty where it does not."""
    try:
        return slurm.patiently(lambda: slurm.fields("job", job).get("JobState", ""))
    except TrackaError:
        return ""


def _said(logs: Sequence[Path]) -> str:
    """Returns what Slurm's programs have printed last."""
    return "\n".join(match for log in logs for match in _OF_SLURM.findall(reading.tail(log)))


def _sign(said: str) -> str:
    return next((reason for reason, pattern in _SIGNS if re.search(pattern, said, re.IGNORECASE)), "")


def message(stopped: str, logs: Sequence[Path]) -> str:
    """Returns an outcome in a sentence, with the last thing that Slurm said."""
    said = [line for line in _said(logs).splitlines() if line.strip()]
    return f"{WHY[stopped][0]}{f': {said[-1][:300]}' if said else ''}"
