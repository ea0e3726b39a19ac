"""Explains why a row is not accepted, and why a row that has passed runs again.

Two identities are shown side by side: those of two results, or of a result and of what would run today.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .campaign import campaign, commands, nearby
from .campaign.layout import Layout, RunFolder
from .core import escaping, files
from .core.artifacts import IdentityParts
from .core.errors import Finding, TrackaError, UsageError, joined_names, shortened
from .report_page import matrix_rows
from .reporting import blocked_phase, rejected_rows
from .runs import identity, run

TODAY = "today"


@dataclass(frozen=True)
class ResultLocation:
    """A result as the command line names it: the folder of its attempt, its row, and the campaign around it."""

    folder: RunFolder
    run_id: str
    layout: Layout


def compare(
    root: Path | None, result: str, other: str | None, tier: str | None = None
) -> tuple[IdentityParts, IdentityParts]:
    """Returns the identities of a result and of another result, or of what its row would run today.

    A result is named by its run id in the campaign at `root`, or in its `tier`, or by the folder of a run or of an
    attempt; that folder's campaign then has the row. Raises UsageError where a result has no identity, or today's row
    cannot be planned.
    """
    location = _locate(root, result, tier)
    parts = _stored_identity(location)
    return parts, _stored_identity(_locate(root, other, tier)) if other else _identity_today(location)


def rejection(root: Path | None, result: str, tier: str | None = None) -> Iterator[str]:
    """Yields why the row of a result is not accepted, and the remedy; nothing of an accepted row."""
    location = _locate(root, result, tier)
    if not location.layout.has_settings:
        return
    spec = campaign.load(location.layout.root, location.layout.tier)
    if reason := rejected_rows.reasons(spec).get(location.run_id):
        words = rejected_rows.in_words(spec, location.run_id, reason)
        yield escaping.plain(f"{location.run_id} is not accepted ({reason}): {words}".removesuffix(": "))
        yield f"remedy: {matrix_rows.REMEDIES.get(reason, matrix_rows.CHANGE)}"


def table(first: IdentityParts, second: IdentityParts, names: tuple[str, str], show_all: bool = False) -> Iterator[str]:
    """Yields the lines that show two identities side by side: what differs, or with `show_all` everything.

    The last line counts the parts that differ.
    """
    ours, theirs = dict(identity.flat(first)), dict(identity.flat(second))
    different = {name for name, _, _ in identity.differences(first, second)}
    rows = [("", *names)] + [
        (
            name,
            identity.short_value(ours.get(name, identity.MISSING)),
            identity.short_value(theirs.get(name, identity.MISSING)),
        )
        for name in [*ours, *(name for name in theirs if name not in ours)]
        if show_all or name in different
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, before, now in rows if len(rows) > 1 else ():
        mark = "!" if show_all and name in different else " " if show_all else ""
        yield escaping.plain(f"{mark}{name:{widths[0]}}  {before:{widths[1]}}  {now}").rstrip()
    yield f"{len(different)} of {len(ours.keys() | theirs.keys())} parts differ"


def _locate(root: Path | None, name: str, tier: str | None) -> ResultLocation:
    if root and not root.is_dir():
        campaign.load(root)  # which says what is wrong with the name
    layout = Layout((root or _campaign_with(name)).resolve(), tier=tier)
    run_ids = [row.run_id for row in campaign.load(layout.root, tier).rows] if layout.has_settings else []
    if name in run_ids:
        return ResultLocation(_last_attempt(layout.run(name)), name, layout)
    folder = Path(name).resolve()
    if not folder.is_dir():
        rows = f"; its rows are {joined_names(run_ids)}" if run_ids else ""
        kind = "a row of the campaign" if layout.has_settings else "a run of a campaign in"
        what = f"{shortened(name)!r} is neither a folder nor {kind} {layout.root}{rows}"
        raise UsageError(
            Finding("RUN", what, "Name a run id with --root CAMPAIGN, or the folder of a run or of an attempt")
        )
    if (there := Layout(folder, tier=tier)).has_settings:
        listed = joined_names([row.run_id for row in campaign.load(there.root, tier).rows])
        what = f"{shortened(name)!r} is a campaign, but one of its runs is asked for: {listed}"
        raise UsageError(Finding("RUN", what, f"Name one of them: tracka why RUN --root {shlex.quote(name)}"))
    top = folder.parent.parent if folder.parent.name == "attempts" else folder
    own = Layout.of_runs(top.parent)
    layout = Layout(root.resolve(), tier=tier or own.tier) if root else own
    return ResultLocation(_last_attempt(RunFolder(folder)), top.name, layout)


def _campaign_with(run_id: str) -> Path:
    """Returns the folder of the campaign here that has this run: the current folder, one in it, or one below tasks/.

    A campaign has it by the run's folder, else by its matrix. Returns the current folder where no campaign has it.
    Raises UsageError where several have it.
    """
    here = Path()
    if Layout(here.resolve()).has_settings or Path(run_id).is_dir():
        return here
    roots = nearby.campaigns(here)
    having = [root for root in roots if Layout(root.resolve()).run(run_id).path.is_dir()]
    having = having or [root for root in roots if run_id in _run_ids(root)]  # a row that has not run has no folder
    if len(having) > 1:
        what = f"several campaigns have the run {shortened(run_id)!r}: {joined_names([*map(str, having)])}"
        raise UsageError(Finding("RUN", what, f"Name one: --root {shlex.quote(str(having[0]))}"))
    return having[0] if having else here


def _run_ids(root: Path) -> list[str]:
    """Returns the run ids of a campaign's matrix; none where the campaign cannot be read."""
    try:
        return [row.run_id for row in campaign.load(root.resolve()).rows]
    except TrackaError:
        return []


def _last_attempt(top: RunFolder) -> RunFolder:
    numbers = top.numbers()
    return top.attempt(numbers[-1]) if numbers else top


def _stored_identity(result: ResultLocation) -> IdentityParts:
    if (parts := identity.read(result.folder)) is not None:
        return parts
    if (result.folder.path / identity.NAME).is_file():
        what, remedy = f"the file {identity.NAME} is damaged", identity.AGAIN
    elif files.read_or_empty(result.folder.manifest).get("row_hash", "") is None:
        why = files.read_or_empty(result.folder.result).get("error_message")
        what, remedy = (
            f"the row could not start: {why}",
            f"Mend that, then run it: {commands.gates(result.layout)}, or tracka run",
        )
    elif result.folder.manifest.is_file():
        what, remedy = f"the run has no {identity.NAME}, since an older Track A made its row hash", identity.KEEP
    else:
        what, remedy = "the run has no attempt", f"Run the row first: {commands.gates(result.layout)}, or tracka run"
        if blocked := blocked_phase.reason(result.layout):
            what, remedy = f"the row has not run, since {blocked}", blocked_phase.remedy(result.layout)
    raise UsageError(Finding(str(result.folder.path), what, remedy))


def _identity_today(result: ResultLocation) -> IdentityParts:
    """Returns the identity of what the row would run today."""
    spec = campaign.load(result.layout.root, result.layout.tier)
    if result.run_id not in {row.run_id for row in spec.rows}:
        what = f"the campaign {result.layout.root} has no row {result.run_id!r} to compare with"
        raise UsageError(Finding("RUN", what, "Name a second result, or the campaign with --root"))
    try:
        return run.plan_row(spec, spec.row(result.run_id), run.load_host(spec.layout)).identity_parts
    except TrackaError as error:
        raise UsageError(error.findings) from error
