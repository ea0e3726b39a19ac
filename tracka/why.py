"""Why a row that has passed runs again: the identities of two results, or of a result and today, side by side."""

from collections.abc import Iterator
from pathlib import Path

from . import campaign, identity, markup, run
from .errors import Finding, UsageError
from .files import Json
from .layout import RunFolder

TODAY = "today"
NO_IDENTITY = f"it has no {identity.NAME}: no attempt began, or its row hash is older than version {identity.VERSION}"


def compare(root: Path, result: str, other: str | None) -> tuple[Json, Json]:
    """The identities of a result and of another one, or of what its row would run today.

    A result is named by its run id in the campaign at `root`, or by the folder of a run or of an attempt.
    Raises UsageError where one of them has no identity, and TrackaError where today's row cannot be planned.
    """
    before = _stored(root, result)
    return before, _stored(root, other) if other else _today(root, result)


def table(one: Json, two: Json, names: tuple[str, str], whole: bool = False) -> Iterator[str]:
    """The lines that show two identities side by side: what differs, or with `whole` everything."""
    ours, theirs = dict(identity.flat(one)), dict(identity.flat(two))
    different = {name for name, _, _ in identity.differences(one, two)}
    rows = [("", *names)] + [
        (name, identity.shown(ours.get(name, identity.MISSING)), identity.shown(theirs.get(name, identity.MISSING)))
        for name in [*ours, *(name for name in theirs if name not in ours)]
        if whole or name in different
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, before, now in rows if len(rows) > 1 else ():
        mark = "!" if whole and name in different else " " if whole else ""
        yield markup.plain(f"{mark}{name:{widths[0]}}  {before:{widths[1]}}  {now}").rstrip()
    yield f"{len(different)} of {len(ours.keys() | theirs.keys())} parts differ"


def _folder(root: Path, result: str) -> RunFolder:
    """The attempt that a run id or a folder names; of a run, the last one."""
    return identity.folder_of(Path(result) if "/" in result or Path(result).is_dir() else _layout_folder(root, result))


def _layout_folder(root: Path, run_id: str) -> Path:
    spec = campaign.load(root)
    known = [row.run_id for row in spec.rows]
    if run_id not in known:
        raise UsageError(Finding("RUN", f"the matrix has no row {run_id!r}", f"Name one of {', '.join(known[:8])}"))
    return spec.layout.run(run_id).path


def _stored(root: Path, result: str) -> Json:
    folder = _folder(root, result)
    if (parts := identity.read(folder)) is None:
        raise UsageError(Finding(str(folder.path), NO_IDENTITY, identity.KEEP))
    return parts


def _today(root: Path, run_id: str) -> Json:
    """What the row would run today. A folder's row is the one of that name in the campaign at `root`."""
    spec = campaign.load(root)
    name = Path(run_id).name if "/" in run_id else run_id
    if name not in {row.run_id for row in spec.rows}:
        what = f"the campaign {root} has no row {name!r} to compare with"
        raise UsageError(Finding("RUN", what, "Name a run id of the campaign, or a second result"))
    return run.plan_row(spec, spec.row(name), run.load_host(spec.layout)).identity_parts
