"""Makes the command line that runs a program on a Slurm cluster: srun with its options, and the step on the node.

From a login node each program is a job of its own. Inside an allocation it is a step that starts without queueing.

Guarantees: no variable of the harness's environment reaches the node unless it is named; a job's name carries a token
that no other folder of artifacts has, not even a copy of it.
"""

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..campaign.slurm_settings import SlurmSettings
from ..core import files, reading
from . import process, slurm
from .slurm_step import StepRequest

PREFIX = "tracka"
TOKEN_FILE = "slurm_token"
TOKEN_LENGTH = 12
RESERVE_SECS = 60.0  # that a row's deadline leaves of its allocation


@dataclass(frozen=True)
class Launch:
    """A program that is to run on the cluster: its job's name and a comment for people, its cores, and its time."""

    name: str
    comment: str
    cores: int
    minutes: int
    has_gpu: bool


def token(artifacts: Path) -> str:
    """Returns the word in the names of all jobs of this folder of artifacts, made with the first job.

    A copy of the folder has another word, since it has another path, and so has a folder of the same path elsewhere.
    """
    path = artifacts / "state" / TOKEN_FILE
    if not path.is_file():
        files.make_folder(path.parent)
        _write_once(path, uuid.uuid4().hex)
    parts = [reading.text_or_empty(path).strip(), str(artifacts.resolve()), str(artifacts.resolve().stat().st_ino)]
    return files.sha256(files.canonical(parts))[:TOKEN_LENGTH]


def _write_once(path: Path, text: str) -> None:
    """Writes a new file; where another process was quicker, that one's stays."""
    own = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    own.write_text(f"{text}\n")
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()


def name(artifacts: Path, what: str) -> str:
    """Returns the name of the job of `what`, such as a run id."""
    return f"{PREFIX}-{token(artifacts)}-{what}"


def words(
    launch: Launch, settings: SlurmSettings, step: StepRequest, exported: Mapping[str, str], node: str = ""
) -> list[str]:
    """Returns the argv that runs `step`, on the node called `node` if one is named.

    The variables in `exported` are those of the node's environment.
    """
    return [
        *options(launch, settings),
        *([f"--nodelist={node}"] if node else []),
        f"--chdir={step.cwd}",
        f"--export={','.join(sorted(exported))}",
        "--unbuffered",
        *_container(settings),
        *process.python("tracka.execution.slurm_step", step.to_text()),
    ]


def options(launch: Launch, settings: SlurmSettings) -> list[str]:
    """Returns srun and what it asks of Slurm for a job, or for a step where this process is inside an allocation."""
    is_step = slurm.allocation() is not None
    return [
        "srun",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={launch.cores}",
        f"--job-name={launch.name}",
        *(_of_step(settings) if is_step else _of_job(launch, settings)),
        *([f"--gres={settings.gres}"] if launch.has_gpu else ["--gres=none"] if is_step else []),
        *settings.extra,
    ]


def _of_step(settings: SlurmSettings) -> list[str]:
    # Without a size, a step would take all memory of its job, and the next one would wait for it.
    return ["--exact", f"--mem={settings.memory_mib or 0}M"]


def _of_job(launch: Launch, settings: SlurmSettings) -> list[str]:
    named = {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "mem": settings.memory_mib and f"{settings.memory_mib}M",
    }
    return [
        *(f"--{option}={value}" for option, value in named.items() if value),
        f"--time={launch.minutes}",
        f"--comment={launch.comment}",
    ]


def _container(settings: SlurmSettings) -> list[str]:
    mounts = ",".join(settings.container_mounts)
    named = {"image": settings.container_image, "mounts": mounts, "workdir": settings.container_workdir}
    return [f"--container-{option}={value}" for option, value in named.items() if value]


def farewell(name: str) -> list[str]:
    """Returns the command that ends the job called `name` where its srun has gone and nobody else is left to end it.

    Empty inside an allocation, whose steps end with it.
    """
    return [] if slurm.allocation() else ["scancel", "--quiet", f"--user={os.getuid()}", f"--name={name}"]


def environment(exported: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of srun itself: what it exports, and how it finds the cluster."""
    return {**exported, **slurm.environment()}


def seconds_left() -> float | None:
    """Returns how long a program may run in this process's allocation; None on a login node, and without a limit."""
    job = slurm.allocation()
    if job is None:
        return None
    left = slurm.patiently(lambda: slurm.ask("squeue", "-h", "-j", job, "-o", "%L")).strip()
    return None if not _is_time(left) else max(1.0, _seconds(left) - RESERVE_SECS)


def _is_time(text: str) -> bool:
    return bool(text) and text.replace("-", "").replace(":", "").isdigit()


def _seconds(text: str) -> float:
    """Returns a duration as Slurm prints it, DAYS-HOURS:MINUTES:SECONDS or less of it, in seconds."""
    days, _, clock = text.rpartition("-")
    parts: Sequence[int] = [int(part) for part in clock.split(":")]
    seconds = sum(part * 60**power for power, part in enumerate(reversed(parts)))
    return float(int(days or 0) * 86400 + seconds)
