"""Plays rows of a campaign a second time, beside the first: the same rows, so that what differs is noise.

Guarantees: the campaign's own artifacts stay as they are. Only rows that have passed with today's inputs are repeated.
A call that was interrupted is continued by the next.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..core import files
from ..core.errors import Finding, UsageError, collect_findings
from ..core.files import Json
from . import evidence, run, sweep
from .plan import Host
from .run import RerunPolicy

FOLDER = "noise"  # in the campaign's artifacts: runs, markers and locks of the repetition
POLICY = RerunPolicy(resume=True, allow_overwrite=True)  # a repetition with other inputs than today's is of no use


def of(campaign: Campaign, rows: Sequence[Row]) -> Campaign:
    """Returns the campaign of the repeated rows: the same settings, with artifacts in a folder of its own.

    It has nothing to show, so no row of it is stopped early.
    """
    layout = replace(campaign.layout, artifacts_name=f"{campaign.layout.artifacts_name}/{FOLDER}")
    return replace(campaign, layout=layout, rows=(*rows,), verdict=None)


def play(campaign: Campaign, rows: Sequence[Row], host: Host, max_parallel: int) -> dict[str, int]:
    """Plays `rows` again and returns the exit code of each by its run id: 0 for a row that is repeated.

    Raises UsageError, before anything starts, with all rows that have not passed with today's inputs.
    """
    findings: list[Finding] = []
    for row in rows:
        collect_findings(findings, partial(run.passed_result, campaign, row, host))
    if findings:
        raise UsageError(findings)
    again = of(campaign, rows)
    for path in files.walk_files(campaign.layout.parity):  # what proves the resident engine for these rows
        target = again.layout.parity / path.relative_to(campaign.layout.parity)
        files.make_folder(target.parent)
        files.copy_atomic(path, target)
    return sweep.sweep(again, rows, host, POLICY, max_parallel)


def episodes(campaign: Campaign, row: Row, row_hash: str | None) -> list[Json]:
    """Returns the episodes of a row's repetition, as in episodes.jsonl, if it has passed with this row hash.

    Returns none where there is no such repetition, or where its evidence is not sound.
    """
    again = of(campaign, (row,))
    result = run.read_result(again.layout, row.run_id)
    if result is None or result["status"] != "pass" or result["row_hash"] != row_hash:
        return []
    if result["invalid"] or result["unproven"] or evidence.refusals(again, row):
        return []
    return files.read_lines(again.layout.run(row.run_id).episodes)
