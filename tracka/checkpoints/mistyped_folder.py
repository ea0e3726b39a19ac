"""Tells a mistyped folder of a policy from a repository of the hub, by its path and the folders that are here."""

from pathlib import Path

from ..core import close_match
from ..core.errors import Finding, shortened
from . import checkpoint, checkpoint_format
from .checkpoint_format import NAME_FOLDER

BUILT = "checkpoints/"  # of a campaign: its `[build]` may make this folder later


def finding(policy_path: str, root: Path) -> Finding | None:
    """Returns a finding where `policy_path` can only mean a folder, and there is no such folder.

    The path is relative to the current folder or to the campaign's folder `root`. A path whose first part is a folder
    here means a folder too, but for a repository whose config.json is known. A folder around the policy's own, and a
    folder with a revision, are findings too.
    """
    if not policy_path:
        return None
    for folder in (checkpoint.local_folder(policy_path, root), Path(policy_path)):
        if folder.is_dir():
            return checkpoint_format.folder_finding(folder, policy_path)
    name, _, revision = policy_path.partition("@")
    if revision and (checkpoint.local_folder(name, root).is_dir() or Path(name).is_dir()):
        what = f"{name} is a folder here, which has no revisions"
        return Finding(shortened(policy_path), what, f"Leave @{revision} out")
    if not _means_folder(policy_path, root):
        return None
    path = Path(policy_path).expanduser() if policy_path.startswith("~/") else Path(policy_path)
    remedy = f"{close_match.asked(path)}{NAME_FOLDER}"
    if checkpoint.is_repository(policy_path):
        remedy += f", with its revision: {policy_path}@main"
    return Finding(shortened(policy_path), "there is no such folder", remedy)


def is_taken_as_repository(policy_path: str, root: Path) -> bool:
    """Returns whether a path without a folder names a repository of the hub."""
    return checkpoint.is_repository(policy_path) and not checkpoint.local_folder(policy_path, root).is_dir()


def _means_folder(policy_path: str, root: Path) -> bool:
    name, has_revision, _ = policy_path.partition("@")
    if name.startswith(BUILT):
        return False
    if name.startswith(("/", "./", "../", "~")) or name.count("/") != 1:
        return True
    is_below_folder = not has_revision and Path(name).parent.is_dir()
    return is_below_folder and not checkpoint.find_config(policy_path, root)
