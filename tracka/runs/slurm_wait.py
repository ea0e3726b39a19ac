"""Asks, while srun runs, whether its row is still wanted and why the row waits, in Slurm's words."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..campaign.layout import Layout
from ..core import schema
from ..core.errors import TrackaError
from ..execution import slurm, slurm_outcome
from . import row_state

ASK_SECS = 30.0  # between two questions why a job waits, so that many rows do not tire the controller
FIRST_ASK_SECS = 5.0
LINGER_SECS = 30.0  # that srun may take to end after the program, as while the controller does not answer


@dataclass
class Wait:
    """What is asked every few seconds while srun runs.

    Attributes:
        name: the name of the row's job
        record: the file that the row's step writes on its node
        patience: the seconds after which a job that has not started is given up
        cancel: returns whether the caller no longer wants the row; None where the caller always does
        ended: when the program's end was first seen here
        reason: why the row is no longer wanted, if Slurm is the cause
    """

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
    reason: str = ""

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
            jobs = slurm.find(self.name, (slurm.JOBS,))
        except TrackaError as error:
            return error.findings[0].what
        if pending := [job for job in jobs if job.state == "PENDING"]:
            return f"job {pending[0].id} is pending: {pending[0].reason}"
        return "waits for a step of the allocation" if slurm.allocation() else "waits for Slurm"
