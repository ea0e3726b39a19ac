"""Where Track A may write and what it may run: artifacts behind no link and in nobody else's reach, policies likewise.

Checked before anything is written. Only the artifacts folder itself may be a link, to a larger disk.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core.errors import Finding, UsageError, short
from .layout import Layout


def require(layout: Layout, run_id: str | None = None) -> None:
    """Raises UsageError where artifacts must not be written: those of all rows, or of one."""
    _refuse([*_root(layout.artifacts), *map(_link, dict.fromkeys(_links(layout, run_id)))])


def require_folder(folder: Path) -> None:
    """The same for one folder of artifacts that a command line names."""
    _refuse([*_root(folder), *map(_link, _links_below(folder))])


def _refuse(findings: list[Finding]) -> None:
    if findings:
        raise UsageError(findings)


def _root(artifacts: Path) -> Iterator[Finding]:
    try:
        status = artifacts.stat()
    except OSError:
        return  # it will be made, for the user alone
    if status.st_uid != os.geteuid():
        what = f"it belongs to another user, number {status.st_uid}"
        yield Finding(str(artifacts), what, "Run as that user, or name a folder of your own")
    elif status.st_mode & stat.S_IWOTH:
        yield Finding(
            str(artifacts), "everybody may write there", f"Name a folder of your own, or chmod o-w {artifacts}"
        )


def _link(path: Path) -> Finding:
    remedy = "Put what it points at in its place; the artifacts folder alone may be a link"
    return Finding(str(path), f"it is a link to {short(path.readlink())}, and none is followed", remedy)


def _links(layout: Layout, run_id: str | None) -> Iterator[Path]:
    """The links among the pages and the folders of artifacts, and in those of all rows or of one."""
    folders = [layout.state, layout.rows, layout.locks, layout.preflight, layout.runs, layout.summary]
    pages = [layout.plan, layout.todo.parent, layout.todo, layout.todo_list]
    yield from (path for path in (*folders, *pages) if path.is_symlink())
    everything = [layout.state, layout.preflight, layout.summary, layout.runs]
    for top in everything if run_id is None else [layout.marker(run_id), layout.run(run_id).path]:
        yield from _links_below(top)


def _links_below(top: Path) -> Iterator[Path]:
    """`top` if it is a link, else the links below it, but for what lerobot-eval leaves in an attempt's folder."""
    if top.is_symlink():
        yield top
        return
    for place, folders, names in os.walk(top):
        yield from (path for name in sorted((*folders, *names)) if (path := Path(place) / name).is_symlink())
        if Path(place).parent.name == "attempts":
            folders.clear()


def policy_faults(folder: Path, roots: Sequence[Path]) -> Iterator[Finding]:
    """Why a policy in `folder`, links resolved, must not run: others can change it, and a policy is code.

    `roots` are those that the campaign trusts nevertheless.
    """
    if any(folder.is_relative_to(root) for root in roots):
        return
    for place in (folder, *folder.parents, *sorted(folder.rglob("*"))):
        mode = place.stat().st_mode if place.exists() else 0
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:  # in a sticky folder, such as /tmp, each has his own
            what = f"everybody may change the policy, for {place} can be written by all"
            remedy = f"chmod o-w {place}, or trust it: policy_roots below [security] in campaign.toml"
            yield Finding(str(folder), what, remedy)
            return
