"""Reads what the rows of a campaign have played so far: rows that have passed, play now, or were stopped early.

Only outcomes of today's row hash count, with the row's own batch size, a valid simulator and a proven engine. A row
that crashed or was interrupted has none: it plays its episodes again.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core import fact_cache, files
from ..core.errors import TrackaError
from ..engines.failure import STOPPED
from . import claims, run
from .claims import Outcomes, Start
from .episode_progress import Progress, Reader, TaskProgress
from .stop_decision import Played


def read(campaign: Campaign, rows: "dict[str, RowOutcomes]") -> Played:
    """Returns the outcomes of the compared rows.

    `rows` keeps what has been read of each row, by run id, so that a later call reads only what is new.
    """
    with fact_cache.scope():
        for row in campaign.compared_rows:
            rows.setdefault(row.run_id, RowOutcomes(campaign, row)).look()
    return Played(
        {run_id: each.successes_first for run_id, each in rows.items()},
        {run_id: each.failures_first for run_id, each in rows.items()},
        {run_id: each.known for run_id, each in rows.items()},
    )


def is_current(campaign: Campaign, run_id: str, row_hash: str | None) -> bool:
    """Returns whether a row would run today with the row hash `row_hash`, and its last attempt had the same."""
    manifest = files.read_or_empty(campaign.layout.run(run_id).manifest)
    if row_hash is None or manifest.get("row_hash") != row_hash:
        return False
    try:
        plan = run.plan_row(campaign, campaign.row(run_id), run.load_host(campaign.layout))
    except TrackaError:
        return False
    return plan.row_hash == row_hash


class RowOutcomes:
    """The outcomes of one row; see `stop_decision.Played` for their two orders, and for `known`."""

    def __init__(self, campaign: Campaign, row: Row) -> None:
        self.successes_first: Outcomes = {}
        self.failures_first: Outcomes = {}
        self.known: Outcomes = {}
        self._campaign, self._row = campaign, row
        self._reader = Reader(campaign.layout, row.run_id)
        self._files: tuple[object, ...] = ()  # which manifest and which result were read
        self._grows = False  # whether the outcomes are those of a progress

    def look(self) -> None:
        """Reads what is new. A finished row is read again only where its manifest or its result has changed."""
        folder = self._campaign.layout.run(self._row.run_id)
        if (identities := (_identity(folder.manifest), _identity(folder.result))) != self._files:
            self._files = identities
            self._begin()
        if self._grows and (progress := self._reader.read()):
            self.successes_first = dict(self._outcomes(progress, successes_first=True))
            self.failures_first = dict(self._outcomes(progress, successes_first=False))
            self.known = dict(self._known(progress))

    def _begin(self) -> None:
        manifest, result = run.read_files(self._campaign.layout, self._row.run_id)
        self.successes_first, self.failures_first, self.known = {}, {}, {}
        is_fit = manifest.get("comparable") and not manifest.get("invalid") and not manifest.get("unproven")
        is_fit = bool(is_fit) and is_current(self._campaign, self._row.run_id, manifest.get("row_hash"))
        self._grows = is_fit and (result is None or result["reason"] == STOPPED)
        if is_fit and result is not None and result["status"] == "pass":
            self.successes_first = self.failures_first = self.known = claims.outcomes(self._campaign, self._row)

    def _outcomes(self, progress: Progress, successes_first: bool) -> Iterator[tuple[Start, bool]]:
        for task, starts in self._tasks(progress):
            yield from zip(starts, _in_order(task, successes_first), strict=False)

    def _known(self, progress: Progress) -> Iterator[tuple[Start, bool]]:
        for task, starts in self._tasks(progress):
            yield from zip(starts, _of_known_places(task), strict=False)

    def _tasks(self, progress: Progress) -> Iterator[tuple[TaskProgress, Iterator[Start]]]:
        for task in progress.tasks:
            if task.suite == self._row.task_suite and task.task_id in self._campaign.task_ids(self._row):
                yield task, claims.starts(self._campaign, self._row, (task.task_id,))


def _in_order(task: TaskProgress, successes_first: bool) -> Iterator[bool]:
    """Yields the outcomes of a task's first episodes, with the successes of each look first, or last."""
    for (played, won), (played_now, won_now) in pairwise([(0, 0), *task.looks]):
        outcomes = [True] * (won_now - won) + [False] * (played_now - played - won_now + won)
        yield from outcomes if successes_first else reversed(outcomes)


def _of_known_places(task: TaskProgress) -> Iterator[bool]:
    """Yields the outcomes of a task's first episodes, up to a batch of which some succeeded and some did not."""
    for (played, won), (played_now, won_now) in pairwise([(0, 0), *task.looks]):
        if 0 < won_now - won < played_now - played:
            return
        yield from [won_now > won] * (played_now - played)


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Returns what changes if a file is written again; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
