"""Selects the rows of one checkpoint whose results are exported, with everything that keeps them from that."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..campaign import campaign as campaigns
from ..campaign.campaign import Campaign
from ..campaign.layout import RunFolder
from ..campaign.matrix import Row
from ..core.artifacts import Result
from ..core.errors import Finding, joined_names
from ..reporting import blocked_phase, played_episodes
from ..reporting.sides import Side
from ..runs import run


@dataclass(frozen=True)
class PlayedRows:
    """The rows to be exported and what they have played. `findings` says why they cannot be exported."""

    campaign: Campaign
    rows: tuple[Row, ...]
    side: Side
    findings: tuple[Finding, ...]

    def result(self, row: Row) -> Result:
        """Returns the row's result. The rows must have no findings."""
        result = run.read_result(self.campaign.layout, row.run_id)
        if result is None:
            raise ValueError(f"row {row.run_id} has no result")
        return result

    def attempt(self, row: Row) -> RunFolder:
        """Returns the folder of the attempt whose result the row has."""
        return self.campaign.layout.run(row.run_id).attempt(self.result(row)["attempt"])


def read(path: Path, tier: str | None = None, run_ids: Sequence[str] = ()) -> PlayedRows:
    """Returns the rows of the campaign at `path`, a folder or `FOLDER::POLICY`: those called `run_ids`, or all.

    Raises UsageError where the path is no campaign's, or names none of several checkpoints.
    """
    folder, policy = played_episodes.place_and_policy(path)
    campaign = campaigns.load(folder, tier)
    place = played_episodes.named(campaign.layout.naming_folder, policy)
    known = played_episodes.rows(campaign, place)
    chosen = tuple(row for row in known if not run_ids or row.run_id in run_ids)
    side = played_episodes.of_rows(campaign, place, chosen)
    findings = (*_unknown(known, run_ids), *_left_out(campaign, side), *side.findings, *_repeated(campaign, chosen))
    return PlayedRows(campaign, chosen, side, findings)


def _unknown(known: Sequence[Row], run_ids: Sequence[str]) -> Iterator[Finding]:
    names = [row.run_id for row in known]
    for run_id in run_ids:
        if run_id not in names:
            what = f"no row whose result counts is called {run_id!r}"
            yield Finding("--row", what, f"Name one of {joined_names(names)}")


def _left_out(campaign: Campaign, side: Side) -> Iterator[Finding]:
    for words in side.left_out:
        remedy = f"{blocked_phase.remedy(campaign.layout)}; or name the rows to export with --row"
        yield Finding(str(campaign.layout.runs), f"a row has no passed result: {words}", remedy)


def _repeated(campaign: Campaign, rows: Sequence[Row]) -> Iterator[Finding]:
    """Yields each task that several rows have played: its episodes would stand in one list, as if they were one's."""
    players: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        for task in campaign.task_ids(row):
            players.setdefault((row.task_suite, task), []).append(row.run_id)
    for (suite, task), run_ids in players.items():
        if len(run_ids) > 1:
            what = f"{suite} {task} is played by {joined_names(run_ids)}, and an export has each task once"
            yield Finding(str(campaign.layout.matrix), what, "Name one of these rows with --row")
