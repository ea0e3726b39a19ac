"""Ends the jobs of rows that nobody plays, when a session on a cluster begins and when it ends.

A slurmctld that is killed and started again knows its jobs as of its last save, seconds before. A job that ended since
then is running once more for it, without a process, and would keep its node until its time limit; its row may have
passed, so that no row's start would look for it.

Guarantees: only this user's jobs of this folder of artifacts are ended, and none whose row a process holds.
"""

from collections.abc import Sequence

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core.errors import Busy, ToolMissing, TrackaError
from ..execution import slurm, slurm_launch
from . import row_state

PATIENCE_SECS = 10.0  # for a controller that is being restarted while the session ends


def end(campaign: Campaign, rows: Sequence[Row], patience_secs: float = 0.0) -> list[str]:
    """Ends the jobs of `rows` that nobody plays, and returns a line for each.

    A controller that does not answer within `patience_secs` is reported by a line: the next session looks again. Inside
    an allocation there is nothing to end, since its steps end with it.
    """
    if not campaign.is_on_slurm or slurm.allocation():
        return []
    names = {row.run_id for row in rows}
    prefix = slurm_launch.name(campaign.layout.artifacts, "")
    try:
        jobs = slurm.patiently(lambda: slurm.beginning_with(prefix), patience_secs)
        run_ids = {job: job.name.removeprefix(prefix) for job in jobs}
        return [line for job, run_id in run_ids.items() if run_id in names for line in _end(campaign, run_id, job)]
    except ToolMissing:  # where Slurm is missing, phase 2 and each row say so
        return []
    except TrackaError as error:
        return [f"warning: jobs that nobody plays may be left of this campaign: {error.findings[0]}"]


def _end(campaign: Campaign, run_id: str, job: slurm.Job) -> list[str]:
    try:
        with row_state.lock(campaign.layout, run_id):
            slurm.cancel([job])
    except Busy:  # a process plays the row
        return []
    return [f"warning: {job} of row {run_id} was played by nobody and is ended"]
