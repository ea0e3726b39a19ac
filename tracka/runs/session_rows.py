"""Keeps which rows a session has begun and ended, for whoever watches the session from another thread.

What a row itself has done is on disk: marker, manifest, logs and result. Only the session knows which rows it still has
to run, and which workers it has.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..campaign.matrix import Row


@dataclass
class SessionRows:
    """The rows of one session: those that it is going to run, those under way and those that have ended.

    Attributes:
        rows: the rows that the session runs or judges
        workers: the names of the workers, as manifests have them: each runs a row at a time
        resume: whether a passed row is only judged again
        phase: the phase of the gates that runs, such as `phase4`; empty in a sweep and before the first phase
        started: when the session began (seconds since the epoch, as all times here)
        begun: run id -> when the row began, of each row under way
        ended: run id -> whether the row passed, of each row that the session is done with
        steps: what else is under way, in words -> when it began
    """

    rows: Sequence[Row] = ()
    workers: Sequence[str] = ("gw0",)
    resume: bool = True
    phase: str = ""
    started: float = field(default_factory=time.time)
    begun: dict[str, float] = field(default_factory=dict)
    ended: dict[str, bool] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)

    @property
    def has_begun(self) -> bool:
        """Returns whether anything of the session has begun."""
        return bool(self.begun or self.ended or self.steps or self.phase)

    def begin(self, run_id: str) -> None:
        """Records that a worker has begun with the row."""
        self.begun[run_id] = time.time()
        self.ended.pop(run_id, None)

    def end(self, run_id: str, passed: bool) -> None:
        """Records that the worker is done with the row."""
        self.ended[run_id] = passed
        self.begun.pop(run_id, None)
