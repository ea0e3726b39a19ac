"""Makes the batch script that runs a campaign inside one allocation of a Slurm cluster: `tracka slurm-script`."""

import os
import re
import shlex
import sys
from collections.abc import Iterator

from .campaign.campaign import Campaign
from .campaign.matrix import CPU
from .core import redaction
from .core.errors import Finding, UsageError
from .execution import environment

HARNESS_MIB = 1024  # of the session itself, beside its workers
WORKER_MIB = 80  # of a worker, which only waits
END_SECS = 120  # before the end of the allocation the session is asked to end, and closes its rows
INSTALLED = ["-p", "tracka.plugin", "-p", "tracka.fixtures.gates", "--pyargs", "tracka.acceptance"]
TEMPLATE = """\
#!/bin/bash
# Runs the campaign {name} inside one allocation: `sbatch` this file. A row is a step, which starts without queueing.
# Requeued, it goes on with the rows that have not passed.
{options}
set -euo pipefail
cd {cwd}
exec {command}
"""


def text(campaign: Campaign, at_once: int, nodes: int, minutes: int, python: str = sys.executable) -> str:
    """Returns the script. `at_once` rows run at a time on `nodes` nodes, for `minutes` at most.

    Raises UsageError where the rows do not fit into that.
    """
    findings = [*_faults(campaign, at_once, nodes, minutes)]
    if findings:
        raise UsageError(findings)
    root, project = campaign.layout.root, campaign.layout.project
    gates = ["acceptance"] if (project / "acceptance").is_dir() else INSTALLED
    words = [python, "-m", "pytest", *gates, "--campaign", str(root), "--launcher", "slurm", "-n", str(at_once)]
    words += ["--tier", campaign.layout.tier] if campaign.layout.tier else []
    options = "\n".join(f"#SBATCH {option}" for option in _options(campaign, at_once, nodes, minutes))
    return TEMPLATE.format(
        name=shlex.quote(campaign.name),
        options=options,
        cwd=shlex.quote(str(project)),
        command=shlex.join(words),
    )


def _faults(campaign: Campaign, at_once: int, nodes: int, minutes: int) -> Iterator[Finding]:
    if at_once % nodes:
        what = f"{at_once} rows at a time cannot be spread evenly over {nodes} nodes"
        yield Finding("--at-once", what, f"Give a multiple of {nodes}, or another --nodes")
    longest = max(campaign.enabled, key=campaign.timeout, default=None)
    if longest is not None:
        needed = campaign.timeout(longest) + campaign.grace_secs + END_SECS
        if 60 * minutes < needed:
            what = f"the row {longest.run_id} alone may take {needed} s, and the allocation ends after {60 * minutes} s"
            yield Finding("--time-minutes", what, f"Give {-(-needed // 60)} or more")


def _options(campaign: Campaign, at_once: int, nodes: int, minutes: int) -> Iterator[str]:
    """Yields the options of sbatch."""
    settings, per_node = campaign.slurm, at_once // nodes
    cores = max((settings.cores(row.batch_size) for row in campaign.enabled), default=1)
    yield f"--job-name=tracka-{campaign.layout.root.name}"
    for option in ("partition", "account", "qos", "constraint"):
        if value := getattr(settings, option):
            yield f"--{option}={value}"
    yield f"--nodes={nodes}"
    yield f"--ntasks-per-node={per_node}"
    yield f"--cpus-per-task={cores}"
    if any(row.gpu_id != CPU for row in campaign.enabled):
        yield f"--gres={_times(settings.gres, per_node)}"
    if settings.memory_mib:
        yield f"--mem={per_node * settings.memory_mib + HARNESS_MIB + WORKER_MIB * at_once}M"
    yield f"--time={minutes}"
    yield f"--signal=B:TERM@{END_SECS}"
    yield "--requeue"
    yield "--open-mode=append"
    yield f"--output={campaign.layout.root}/slurm-%j.log"
    yield f"--export={','.join(exported())}"


def _times(gres: str, count: int) -> str:
    """Returns what `count` rows need together: gpu:2 of each three are gpu:6."""
    return ",".join(_one_times(word, count) for word in gres.split(","))


def _one_times(word: str, count: int) -> str:
    match = re.fullmatch(r"(.+):(\d+)", word)
    return f"{match[1]}:{int(match[2]) * count}" if match else f"{word}:{count}"


def exported() -> list[str]:
    """Returns the names of the variables that the job takes along: those that a row may see, but no secret.

    A batch job's variables are stored by the controller. The hub's client finds its token in its own file.
    """
    names = {name for name in os.environ if environment.is_inheritable(name) and not redaction.NAME.fullmatch(name)}
    return sorted(name for name in names | {"PATH", "HOME"} if not name.startswith(("SLURM_", "CUDA_VISIBLE")))
