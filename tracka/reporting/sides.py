"""Defines one side of a comparison: the episodes that it has played, and what played them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..core.baselines import PlayedRow
from ..core.errors import Finding

Kind = Literal["campaign", "baseline", "eval_info.json"]
Task = tuple[str, int]  # suite and LIBERO task


@dataclass(frozen=True)
class PlayedEpisode:
    """One episode and how it began. What the files of its side do not say is None.

    `length` is the number of control steps after which it ends, and `fixed_start` whether it began at a stored init
    state. `repeated` is its outcome when `tracka noise` played it again.
    """

    task: Task
    number: int  # counted from 0 in its task
    init_state: int
    success: bool
    video: Path | None
    seed: int | None = None
    reset_ordinal: int | None = None  # how often its environment had been reset before
    length: int | None = None
    fixed_start: bool | None = None
    repeated: bool | None = None


@dataclass(frozen=True)
class Side:
    """One side of a comparison. `findings` says why some of its results cannot be compared.

    `left_out` names each row that has no passed result; `rows` says what played, and is empty where nobody knows.
    `baseline` is the run id of the campaign's baseline where that row is not compared.
    """

    name: str
    kind: Kind
    episodes: tuple[PlayedEpisode, ...]
    left_out: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    rows: tuple[PlayedRow, ...] = ()
    baseline: str = ""

    @property
    def tasks(self) -> frozenset[Task]:
        """The tasks that this side has played."""
        return frozenset(episode.task for episode in self.episodes)

    @property
    def checkpoints(self) -> frozenset[str]:
        """The hashes of the checkpoints that played."""
        return frozenset(row["checkpoint_sha256"] for row in self.rows)
