"""Checks where Track A may write and what it may run, before anything is written.

No artifact may lie behind a link, and neither artifacts, policies nor settings may lie where other users can change
them: settings name programs, builders and flags, so they are code. Only
the artifacts folder itself may be a link, to a larger disk. The folder of the TODO pages is the one place outside of
the campaign that may be written to.
"""

import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core.errors import Finding, UsageError, shortened
from . import write_access
from .layout import Layout


def require(layout: Layout, run_id: str | None = None) -> None:
    """Raises UsageError where artifacts or TODO pages must not be written, and where others can change the settings.

    Checks the artifacts of all rows, or of the row `run_id`.
    """
    links = map(_link_finding, dict.fromkeys(_links(layout, run_id)))
    # Only a campaign has pages of progress, and a tier of it has none.
    pages = _todo_findings(layout) if layout.settings.is_file() and layout.progress_pages else ()
    folders = dict.fromkeys([layout.own_artifacts, *_tier_folders(layout)])
    roots = (finding for folder in folders for finding in _root_findings(folder))
    _raise_if_any([*_configs_findings(layout.settings.parent), *roots, *links, *pages])


def _tier_folders(layout: Layout) -> tuple[Path, ...]:
    """Returns the folders that lead from the campaign's artifacts to those of the tier; none for a whole campaign."""
    return (layout.tiers, layout.artifacts) if layout.tier else ()


def require_folder(folder: Path) -> None:
    """Raises UsageError where artifacts must not be written to `folder`, which a command line names."""
    _raise_if_any([*_root_findings(folder), *map(_link_finding, _links_below(folder))])


def _raise_if_any(findings: list[Finding]) -> None:
    if findings:
        raise UsageError(findings)


def _configs_findings(configs: Path) -> Iterator[Finding]:
    """Yields why the campaign's settings must not be followed: others can change them, or a folder that leads there.

    Links are resolved: a link in `configs/` is as safe as what it points to and the folders above that.
    """
    if not configs.is_dir():
        return  # `tracka run` needs no campaign
    paths = [configs.resolve(), *(path.resolve() for path in sorted(configs.rglob("*")))]
    above = dict.fromkeys(parent for path in paths for parent in path.parents if parent not in paths)
    if found := write_access.first_open(paths, above):
        path, who = found
        what = f"{who} may change the campaign's settings, which name programs to start, because of write access to"
        yield Finding(str(configs), f"{what} {path}", f"Run `chmod go-w {shlex.quote(str(path))}`")


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
    return Finding(str(path), f"it {_is_link(path)}", _REPLACE_LINK)


def _is_link(path: Path) -> str:
    return f"is a link to {shortened(path.readlink())}, and Track A does not write through links"


_REPLACE_LINK = "Replace the link by what it points to; only the artifacts folder itself may be a link"


def _links(layout: Layout, run_id: str | None) -> Iterator[Path]:
    """Yields the links among the campaign's pages and artifact folders, and those inside for all rows or one row."""
    folders = [layout.state, layout.rows, layout.locks, layout.preflight, layout.runs, layout.summary]
    inside = [path for path in (layout.todo_folder, *layout.todo_folder.parents) if path.is_relative_to(layout.root)]
    pages = [layout.plan, *inside, layout.todo, layout.todo_list, layout.todo_lock] if layout.progress_pages else []
    yield from (path for path in (*_tier_folders(layout), *folders, *pages) if path.is_symlink())
    folders_of_all_rows = [layout.state, layout.preflight, layout.summary, layout.runs]
    for top in folders_of_all_rows if run_id is None else [layout.marker(run_id), layout.run(run_id).path]:
        yield from _links_below(top)


SET_ASIDE = ".unstarted."  # in the name of an attempt that has no sound manifest


def _links_below(top: Path) -> Iterator[Path]:
    """Yields `top` if it is a link, otherwise the links below it.

    The subfolders of an attempt are not searched, since lerobot-eval writes them, nor is an attempt that was set aside,
    since nothing is written there any more.
    """
    if top.is_symlink():
        yield top
        return
    for parent, folders, names in os.walk(top):
        folders[:] = [name for name in folders if SET_ASIDE not in name]
        written = sorted(name for name in (*folders, *names) if SET_ASIDE not in name)
        yield from (path for name in written if (path := Path(parent) / name).is_symlink())
        if Path(parent).parent.name == "attempts":
            folders.clear()


# Parts of a campaign's folder that Track A writes or reads whole, so that no page may lie there.
_NOT_FOR_PAGES = ("artifacts", "checkpoints", "configs", "replays")


def _todo_findings(layout: Layout) -> Iterator[Finding]:
    """Yields why the folder of the TODO pages, which campaign.toml names, must not be written to."""
    folder, where = layout.todo_folder, f"{layout.settings}, key progress.todo"
    if not folder.is_relative_to(layout.project):
        what = f"{folder} is outside of {layout.project}, the campaign's project"
        yield Finding(where, what, "Name a folder inside the project, such as ../../todo")
        return
    if layout.todo in (layout.todo_list, layout.plan, layout.runbook, layout.results):
        what = f"{layout.todo} would be two pages in one"
        yield Finding(where, what, "Name another folder, or rename the campaign's folder")
    if campaign_part := _not_for_pages(layout):
        yield Finding(where, f"{folder} is in {campaign_part}", "Name another folder, such as ../../todo")
    yield from (Finding(where, what, remedy) for what, remedy in _unsafe(layout))


def _not_for_pages(layout: Layout) -> str | None:
    """Returns the part of this or another campaign that holds the TODO folder though it is not for pages, or None."""
    folder = layout.todo_folder
    if folder.is_relative_to(layout.artifacts.resolve()):
        return "the campaign's artifacts"
    tops = [top for top in (folder, *folder.parents) if top.is_relative_to(layout.project)]
    root = next((top for top in tops if (top / "configs" / "campaign.toml").is_file()), None)
    part = folder.relative_to(root).parts[:1] if root else ()
    if root == layout.root:
        return f"the campaign's {part[0]}" if part and part[0] in _NOT_FOR_PAGES else None
    return f"another campaign, {root}" if root and part != ("todo",) else None


def _unsafe(layout: Layout) -> Iterator[tuple[str, str]]:
    """Yields (what, remedy) where the TODO folder cannot be written to, or others could change what is written."""
    folder = layout.todo_folder
    links = [path for path in (folder, *folder.parents) if path.is_symlink()]
    if links:
        # `_links` reports a link inside the campaign.
        outer = [path for path in links if not path.is_relative_to(layout.root)]
        yield from ((f"{path} {_is_link(path)}", _REPLACE_LINK) for path in outer)
    elif os.path.lexists(folder) or not folder.is_relative_to(layout.root):
        yield from _unsafe_place(folder, layout.root.stat().st_uid)


def _unsafe_place(folder: Path, owner: int) -> Iterator[tuple[str, str]]:
    """Yields (what, remedy) for a folder, or for the nearest folder above it that exists.

    The folder may belong to this user or to `owner`, the owner of the campaign's folder.
    """
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    status = nearest.stat()
    if not nearest.is_dir():
        yield f"{nearest} is not a folder", "Name a folder"
    elif status.st_uid not in (os.geteuid(), owner):
        yield f"{nearest} belongs to another user (uid {status.st_uid})", "Name a folder of your own"
    elif status.st_mode & stat.S_IWOTH and (nearest == folder or not status.st_mode & stat.S_ISVTX):
        yield f"every user may write to {nearest}", f"Name a folder of your own, or run `chmod o-w {nearest}`"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        yield f"{nearest} cannot be written to", "Name a folder that you may write to"


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
