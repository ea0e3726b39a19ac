"""Asks a Slurm cluster by its own programs: which jobs and steps there are, why one waits, and ends them.

Guarantees: each question has a time limit; what Slurm prints is read as text of bounded length and trusted for nothing
but states and names; a job or step is ended by its number, and only where its name is one that the caller gives.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ..core import escaping
from ..core.errors import Finding, ToolMissing, TrackaError, shortened

PROGRAMS = ("srun", "squeue", "scancel", "scontrol", "sinfo")
ASK_SECS = 20.0  # for one question
PATIENCE_SECS = 60.0  # for a controller that does not answer, as one that is restarted
END_SECS = 90.0  # for a job to end: longer than KillWait, which is 30 s unless the cluster says otherwise
JOBS, STEPS = KINDS = ("jobs", "steps")
COMPLETING = "COMPLETING"  # of a job whose programs have ended, while Slurm tidies its node
SPLIT = "\x1f"
MOST = 1 << 22
IN_ALLOCATION = ("SLURM_JOB_ID", "SLURM_JOBID")
OF_THE_CLUSTER = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_CONF_SERVER")
UNREACHABLE = re.compile(
    r"Unable to contact slurm controller|slurm_load_\w+ error|Connection (?:refused|timed out)|Socket timed out"
    r"|Zero Bytes were transmitted|Communication connection failure|Resource temporarily unavailable"
    r"|authentication|munge",
    re.IGNORECASE,
)


class Unreachable(TrackaError):
    """Raised where the cluster's controller does not answer."""


class Refused(TrackaError):
    """Raised where a Slurm program answers with an error."""


@dataclass(frozen=True)
class Job:
    """A job, or a step of one, whose `step` is then not empty. `reason` is Slurm's word for why it waits."""

    number: str
    step: str
    name: str
    state: str
    reason: str
    nodes: str

    @property
    def id(self) -> str:
        """Returns the number by which scancel knows it."""
        return f"{self.number}.{self.step}" if self.step else self.number

    def __str__(self) -> str:
        where = f" on {self.nodes}" if self.nodes else ""
        return f"{'step' if self.step else 'job'} {self.id}{where} ({self.state or 'RUNNING'})"


def require_programs() -> None:
    """Raises ToolMissing with the programs of Slurm that this host lacks."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        what = f"this host has no {', '.join(missing)}"
        remedy = (
            "Run from a login node of the cluster (Debian: apt-get install slurm-client), or set launcher = 'local'"
        )
        raise ToolMissing(Finding("launcher slurm", what, remedy))


def allocation() -> str | None:
    """Returns the job in whose allocation this process runs, as sbatch and salloc say it; None on a login node."""
    return next((os.environ[name] for name in IN_ALLOCATION if os.environ.get(name)), None)


def environment() -> dict[str, str]:
    """Returns the variables by which Slurm's programs find the cluster and the allocation that this process runs in.

    All other variables of Slurm are left out: they are options of srun, and those of sbatch would be the steps' too.
    """
    names = (*OF_THE_CLUSTER, *IN_ALLOCATION)
    return {name: os.environ[name] for name in names if name in os.environ}


def ask(*words: str) -> str:
    """Returns what a program of Slurm prints. Raises Unreachable, or Refused with what it says is wrong."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SQUEUE_", "SINFO_"))}
    try:
        ended = subprocess.run(
            words,
            env=own | environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_SECS,
        )
    except FileNotFoundError:
        require_programs()
        raise
    except subprocess.TimeoutExpired:
        raise _unreachable(words[0], f"no answer within {ASK_SECS:g} s") from None
    said = ended.stderr[:MOST].decode(errors="replace")
    if ended.returncode:
        line = escaping.line(shortened(said.strip() or f"exit code {ended.returncode}"))
        if UNREACHABLE.search(said):
            raise _unreachable(words[0], line)
        raise Refused(Finding(f"{words[0]}", line, "See `sinfo` and the settings under [slurm]"))
    return ended.stdout[:MOST].decode(errors="replace")


def _unreachable(program: str, line: str) -> Unreachable:
    remedy = "Wait until `sinfo` answers, then run again with --resume"
    return Unreachable(Finding("slurmctld", f"the cluster's controller cannot be asked: {program}: {line}", remedy))


def patiently[T](question: Callable[[], T], seconds: float = PATIENCE_SECS) -> T:
    """Returns the answer to `question`, asked again while the controller does not answer, for `seconds` at most."""
    deadline, pause = time.monotonic() + seconds, 0.5
    while True:
        try:
            return question()
        except Unreachable:
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(5.0, 2 * pause)


def own_kind() -> tuple[str, ...]:
    """Returns what the programs of this process are to Slurm: steps inside an allocation, jobs elsewhere."""
    return (STEPS,) if allocation() else (JOBS,)


def find(name: str, kinds: Collection[str] = KINDS) -> list[Job]:
    """Returns this user's jobs and steps that have not ended and are called `name`; others are not even listed.

    Each of `kinds` is a question of its own to the controller.
    """
    named = f"--name={name}"
    found = [*(_jobs(named) if JOBS in kinds else ()), *(_steps(named) if STEPS in kinds else ())]
    return [job for job in found if job.name == name]


def beginning_with(prefix: str) -> list[Job]:
    """Returns this user's jobs whose names begin with `prefix`, without those that have ended for all but Slurm."""
    return [job for job in _jobs() if job.name.startswith(prefix) and job.state != COMPLETING]


def _jobs(*filters: str) -> list[Job]:
    text = ask("squeue", *_mine(), *filters, "-o", SPLIT.join(("%i", "%T", "%r", "%j", "%N")))
    return [Job(number, "", called, state, why, nodes) for number, state, why, called, nodes in _lines(text, 5)]


def _steps(*filters: str) -> list[Job]:
    text = ask("squeue", "-s", *_mine(), *filters, "-o", SPLIT.join(("%i", "%j", "%N")))
    split = [(number.partition("."), called, nodes) for number, called, nodes in _lines(text, 3)]
    return [Job(job, step, called, "", "", nodes) for (job, _, step), called, nodes in split]


def _mine() -> tuple[str, ...]:
    return ("-h", f"--user={os.getuid()}")


def _lines(text: str, count: int) -> list[list[str]]:
    return [words for line in text.splitlines() if len(words := line.split(SPLIT)) == count]


def cancel(jobs: Sequence[Job]) -> None:
    """Asks Slurm to end jobs and steps; one that has ended meanwhile is none of our business."""
    if jobs:
        try:
            ask("scancel", "--quiet", *(job.id for job in jobs))
        except Refused:
            return


def end(name: str, kinds: Collection[str] = KINDS, seconds: float = END_SECS) -> list[Job]:
    """Ends this user's jobs and steps that are called `name`, and returns those that are still there after `seconds`.

    Looks for those of `kinds`. Raises Unreachable where the controller does not answer.
    """
    deadline, pause = time.monotonic() + seconds, 0.1
    asked_for: set[str] = set()
    while left := patiently(lambda: find(name, kinds)):
        cancel([job for job in left if job.id not in asked_for])
        asked_for |= {job.id for job in left}
        if time.monotonic() > deadline:
            return left
        time.sleep(pause)
        pause = min(2.0, 2 * pause)
    return []


def fields(*words: str) -> dict[str, str]:
    """Returns what `scontrol -o show` prints of one thing, by its keys; an empty dict where Slurm does not know it."""
    try:
        line = ask("scontrol", "-o", "show", *words).splitlines()
    except Refused:
        return {}
    return dict(re.findall(r"(?:^|\s)([A-Z][A-Za-z/:]*)=(\S*)", line[0])) if line else {}
