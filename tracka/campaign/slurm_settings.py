"""Reads how a campaign's rows run on a Slurm cluster: `[slurm]` in campaign.toml."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..core.errors import Finding

Launcher = Literal["local", "slurm"]
LAUNCHERS: tuple[Launcher, ...] = ("local", "slurm")
SPARE_SECS = 120  # time of a job beyond its row's own deadline, for its start, its end and KillWait
# Options of srun that Track A sets, or that have a key of their own.
DECIDED = frozenset(
    (
        "account",
        "chdir",
        "comment",
        "constraint",
        "container-image",
        "container-mounts",
        "container-workdir",
        "cpus-per-task",
        "error",
        "exact",
        "export",
        "export-file",
        "gpus",
        "gpus-per-node",
        "gpus-per-task",
        "gres",
        "input",
        "job-name",
        "jobid",
        "mem",
        "mem-per-cpu",
        "nodes",
        "ntasks",
        "output",
        "overlap",
        "partition",
        "pty",
        "qos",
        "time",
        "unbuffered",
    )
)
SHORT = "ADCJNcdehinopqt"  # the short names of the same


@dataclass(frozen=True)
class SlurmSettings:
    """What a row asks of Slurm. None leaves the cluster's own default in force. Sizes are in MiB, times in seconds."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str = "gpu:1"  # of a row that asks for a GPU
    cpus: int | None = None  # of a row; its batch size and one otherwise
    memory_mib: int | None = None
    time_minutes: int | None = None  # of a job; the row's own deadline and a little more otherwise
    wait_secs: int = 86400  # how long a job may be pending before it is given up
    lost_secs: int = 30  # how long a step goes on that does not hear of its harness
    shared_secs: int = 60  # how long a file written on one node may take to be seen on another
    container_image: str | None = None
    container_mounts: tuple[str, ...] = ()
    container_workdir: str | None = None
    extra: tuple[str, ...] = ()

    def cores(self, batch_size: int) -> int:
        """Returns the cores of a row that plays `batch_size` episodes at a time."""
        return self.cpus or batch_size + 1

    def minutes(self, timeout_secs: float, grace_secs: float) -> int:
        """Returns the time limit of a row's job, in minutes as Slurm counts: later than the row's own deadline."""
        return self.time_minutes or -(-int(timeout_secs + grace_secs + SPARE_SECS) // 60)


def of_table(table: Mapping[str, Any] | None) -> SlurmSettings:
    """Returns the settings in a table that follows its schema; the defaults where the campaign has no `[slurm]`."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in (table or {}).items()
    }
    return SlurmSettings(**values)


def faults(settings: SlurmSettings, where: str, deadlines: Mapping[str, float]) -> Iterator[Finding]:
    """Yields what is wrong with a `[slurm]` although it follows its schema.

    `where` names the table, and `deadlines` has the seconds after which each row is ended, with the time it is given.
    """
    for word in settings.extra:
        if is_decided(word):
            what = f"{word} is set by Track A, or has a key of its own"
            yield Finding(f"{where}, key extra", what, "Leave it out, or set the key under [slurm]")
    if settings.time_minutes is None:
        return
    for run_id, seconds in deadlines.items():
        if seconds + SPARE_SECS > 60 * settings.time_minutes:
            what = f"the job ends after {settings.time_minutes} minutes, before the row's own deadline ({seconds:g} s)"
            least = -(-int(seconds + SPARE_SECS) // 60)
            remedy = f"Set it to {least} or more, leave it out, or give the row less time ([timeouts] row_secs)"
            yield Finding(f"{where}, key time_minutes, row {run_id}", what, remedy)


def is_decided(word: str) -> bool:
    """Returns whether an argument of srun is one that Track A sets itself."""
    if word.startswith("--"):
        return word[2:].partition("=")[0] in DECIDED
    return word.startswith("-") and word[1:2] in SHORT
