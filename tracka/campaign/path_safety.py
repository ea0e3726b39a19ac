"""Checks where Track A may write and what it may run, before anything is written.

No artifact may lie behind a link, and neither artifacts nor policies may lie where other users can change them. Only
the artifacts folder itself may be a link, to a larger disk.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core.errors import Finding, UsageError, shortened
from .layout import Layout


def require(layout: Layout, run_id: str | None = None) -> None:
    """Raises UsageError where artifacts must not be written.

    Checks the artifacts of all rows, or of the row `run_id`.
    """
    _raise_if_any([*_root_findings(layout.artifacts), *map(_link_finding, dict.fromkeys(_links(layout, run_id)))])


def require_folder(folder: Path) -> None:
    """Raises UsageError where artifacts must not be written to `folder`, which a command line names."""
    _raise_if_any([*_root_findings(folder), *map(_link_finding, _links_below(folder))])


def _raise_if_any(findings: list[Finding]) -> None:
    if findings:
        raise UsageError(findings)


def _root_findings(artifacts: Path) -> Iterator[Finding]:
    try:
        status = artifacts.stat()
    except OSError:
        return  # a missing folder will be made for the user alone
    if status.st_uid != os.geteuid():
        what = f"the folder belongs to another user (uid {status.st_uid})"
        yield Finding(str(artifacts), what, "Run as that user, or name a folder of your own")
    elif status.st_mode & stat.S_IWOTH:
        remedy = f"Name a folder of your own, or run `chmod o-w {artifacts}`"
        yield Finding(str(artifacts), "every user may write to this folder", remedy)


def _link_finding(path: Path) -> Finding:
    remedy = "Replace the link by what it points to; only the artifacts folder itself may be a link"
    return Finding(
        str(path), f"it is a link to {shortened(path.readlink())}, and Track A does not write through links", remedy
    )


def _links(layout: Layout, run_id: str | None) -> Iterator[Path]:
    """Yields the links among the campaign's pages and artifact folders, and those inside for all rows or one row."""
    folders = [layout.state, layout.rows, layout.locks, layout.preflight, layout.runs, layout.summary]
    pages = [layout.plan, layout.todo.parent, layout.todo, layout.todo_list]
    yield from (path for path in (*folders, *pages) if path.is_symlink())
    folders_of_all_rows = [layout.state, layout.preflight, layout.summary, layout.runs]
    for top in folders_of_all_rows if run_id is None else [layout.marker(run_id), layout.run(run_id).path]:
        yield from _links_below(top)


def _links_below(top: Path) -> Iterator[Path]:
    """Yields `top` if it is a link, otherwise the links below it.

    The subfolders of an attempt are not searched: lerobot-eval writes them.
    """
    if top.is_symlink():
        yield top
        return
    for parent, folders, names in os.walk(top):
        yield from (path for name in sorted((*folders, *names)) if (path := Path(parent) / name).is_symlink())
        if Path(parent).parent.name == "attempts":
            folders.clear()


def policy_faults(folder: Path, roots: Sequence[Path]) -> Iterator[Finding]:
    """Yields why the policy in `folder`, links resolved, must not run: others can change it, and a policy is code.

    `roots` are folders that the campaign trusts nevertheless.
    """
    if any(folder.is_relative_to(root) for root in roots):
        return
    for path in (folder, *folder.parents, *sorted(folder.rglob("*"))):
        mode = path.stat().st_mode if path.exists() else 0
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:  # in a sticky folder, as /tmp, users change their own files
            what = f"everybody may change the policy, because every user may write to {path}"
            remedy = f"Run `chmod o-w {path}`, or trust its folder: policy_roots below [security] in campaign.toml"
            yield Finding(str(folder), what, remedy)
            return
