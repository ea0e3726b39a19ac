"""Runs a row's program on a Slurm cluster, in the place of a process of this host.

Guarantees: a job or step that an earlier harness left of the row is ended before the row runs; a row that waits says
for what; the attempt's manifest says where the row ran.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from ..campaign.campaign import Campaign
from ..campaign.layout import RunFolder
from ..campaign.matrix import CPU, Row
from ..core import files
from ..core.artifacts import Manifest, StepRecord
from ..core.errors import Finding, TrackaError
from ..execution import gpu, lease, orphans, slurm, slurm_launch
from ..execution.gpu import Device
from ..execution.process import Exit
from . import slurm_program
from .plan import Plan
from .slurm_program import Program
from .slurm_wait import Wait


@contextlib.contextmanager
def hold_device(
    campaign: Campaign, row: Row, keep: bool = True, require_wanted: Callable[[], None] = lambda: None
) -> Iterator[Device]:
    """Holds what the row computes on: a GPU of this host or the CPU, or on a cluster what Slurm will give.

    There Slurm takes the lease's place: any GPU stands for the one that the matrix numbers. `keep` and
    `require_wanted` are as of `lease.hold`.
    """
    if not campaign.is_on_slurm:
        with lease.hold(row.gpu_id, lease.worker_number(), keep=keep, require_wanted=require_wanted) as device:
            yield device
    else:
        yield gpu.CPU_DEVICE if row.gpu_id == CPU else Device(max(row.gpu_id, 0), "")


def end_left_behind(campaign: Campaign, run_id: str) -> None:
    """Ends the jobs and steps that an earlier harness has left of the row, by their name.

    A row that has no attempt has left nothing, unless its folder was removed: then one question to Slurm is enough, for
    what this harness itself would start. Raises TrackaError where the controller does not answer, or with the jobs that
    do not end.
    """
    if not campaign.is_on_slurm:
        return
    name = slurm_launch.name(campaign.layout.artifacts, run_id)
    kinds = slurm.KINDS if campaign.layout.run(run_id).numbers() else slurm.own_kind()
    if left := slurm.end(name, kinds):
        where = f"row {run_id}, {', '.join(map(str, left))}"
        what = "it is left of an earlier call and has not ended, though Slurm was asked to"
        raise TrackaError(Finding(where, what, f"Run `scancel {left[0].id}`, see `squeue`, then run the row again"))


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
    wait = Wait(layout, run_id, program.name, program.record, plan.campaign.slurm.wait_secs, cancel)
    ended, record = slurm_program.run_program(plan.campaign, program, run_id, wait)
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
