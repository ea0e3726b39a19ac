"""Resolves the matrix's `policy_path` to a policy's checkpoint: a local folder with a content hash.

A policy_path is a folder (relative to the campaign, or absolute), or a hub repository, `repo` or `repo@revision`. A
repository becomes a local snapshot first, because lerobot-eval's own `pretrained_revision` pins neither the config nor
the processors: with a folder, everything that runs is what was hashed.
"""

import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..campaign import path_safety
from ..core import fact_cache, files, hashing
from ..core.errors import Finding, TrackaError
from . import checkpoint_format, contained_files, hub
from .hub import DownloadSpec

REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
CONFIG = ("config.json",)
PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
ADAPTER = (checkpoint_format.ADAPTER_CONFIG, checkpoint_format.ADAPTER_WEIGHTS)
REPOSITORY_FILES = (*CONFIG, f"{checkpoint_format.WEIGHTS}|{checkpoint_format.ADAPTER_WEIGHTS}", *PROCESSORS)


@dataclass(frozen=True)
class Checkpoint:
    """Describes a checkpoint on this machine. `tree_sha256` covers every file below `folder` by path and content."""

    source: str
    revision: str | None  # the commit, for a hub repository
    folder: Path
    policy_type: str
    tree_sha256: str


@fact_cache.remembered
def resolve(policy_path: str, root: Path, trusted: tuple[Path, ...] = ()) -> Checkpoint:
    """Returns the checkpoint that `policy_path` names, downloaded if need be; `root` is the campaign's folder.

    Raises TrackaError naming what is missing and what to do, and also where everybody may change the checkpoint and the
    checkpoint is not below one of the `trusted` folders.
    """
    folder = local_folder(policy_path, root)
    if folder.is_dir():
        _require_whole(folder)  # the search below ends only in a folder without links
        if faults := list(path_safety.policy_faults(folder, trusted)):
            raise TrackaError(faults)
        return _inspect(policy_path, None, folder)
    if not is_repository(policy_path):
        remedy = (
            "Copy the checkpoint there, or define it below [build] in campaign.toml: `tracka preflight` then builds it"
        )
        raise hub.MissingFolder(Finding(policy_path, f"there is no folder {folder}", remedy))
    try:
        snapshot = hub.fetch(download_spec(policy_path))
    except hub.Unresolved as error:  # a mistyped path of a folder looks like a repository
        (finding,) = error.findings
        what = f"{finding.what}; and there is no folder {folder}"
        raise hub.Unresolved(error.outcome, replace(finding, what=what)) from error
    _require_whole(snapshot)
    return _inspect(policy_path, snapshot.name, snapshot)


def download_spec(policy_path: str) -> DownloadSpec:
    """Returns what is needed of the repository that a `policy_path` such as repo@revision names."""
    repo, _, revision = policy_path.partition("@")
    return DownloadSpec(repo, revision or None, required=REPOSITORY_FILES)


def resolve_without_download(policy_path: str, root: Path) -> Checkpoint:
    """Returns the checkpoint if it is a sound local folder, else a checkpoint in name only, with a hash of zeros.

    Dry runs use this function.
    """
    folder = local_folder(policy_path, root)
    try:
        _require_whole(folder)
        return _inspect(policy_path, None, folder)
    except TrackaError:
        return Checkpoint(policy_path, None, Path(policy_path), "unknown", "0" * 64)


def is_here(policy_path: str, root: Path) -> bool:
    """Returns whether the checkpoint is a folder, or a repository that is whole in the cache; the hub is not asked."""
    folder = local_folder(policy_path, root).is_dir()
    return folder or (is_repository(policy_path) and hub.cached_snapshot(download_spec(policy_path)) is not None)


def local_folder(policy_path: str, root: Path) -> Path:
    """Returns the folder that `policy_path` would mean: relative to the campaign, in a home folder, or absolute."""
    try:
        return (root / Path(policy_path).expanduser()).resolve()
    except RuntimeError:  # the path begins with ~ and the name of no user
        return (root / policy_path).resolve()


def _inspect(source: str, revision: str | None, folder: Path) -> Checkpoint:
    """Returns the checkpoint in a folder that `_require_whole` has passed."""
    return Checkpoint(source, revision, folder, policy_type(folder / "config.json"), hashing.of_tree(folder))


def _require_whole(folder: Path) -> None:
    """Raises TrackaError where the folder is no policy's, lacks files, or holds or names what is outside of it."""
    if finding := checkpoint_format.folder_finding(folder):
        raise TrackaError(finding)
    missing = [name for name in _required(folder) if not (folder / name).is_file()]
    if missing:
        raise TrackaError(list(dict.fromkeys(checkpoint_format.missing_file_finding(folder, name) for name in missing)))
    contained_files.require(folder)


def _required(folder: Path) -> tuple[str, ...]:
    """Returns the files that lerobot needs to load the policy, or by config.json the adapter, in `folder`."""
    weights = ADAPTER if files.read_or_empty(folder / "config.json").get("use_peft") else (checkpoint_format.WEIGHTS,)
    return (*CONFIG, *weights, *PROCESSORS)


def find_policy_type(policy_path: str, root: Path) -> str | None:
    """Returns the policy type by config.json alone; None where `find_config` finds none, or the file names no type."""
    kind = find_config(policy_path, root).get("type")
    return kind if isinstance(kind, str) else None


def find_config(policy_path: str, root: Path) -> dict[str, Any]:
    """Returns the config.json of a local folder, else of the repository, from cache or hub.

    A training run's folder has the file of the policy in it; `resolve` reports such a folder. The dict is empty where
    there is no such file, or where the file cannot be fetched.
    """
    folder = local_folder(policy_path, root)
    if not folder.is_dir() and not is_repository(policy_path):
        return {}
    with contextlib.suppress(TrackaError):
        repo, _, revision = policy_path.partition("@")
        policy_folder = (
            checkpoint_format.trained_policy_folder(folder) or folder
            if folder.is_dir()
            else hub.fetch(DownloadSpec(repo, revision or None, CONFIG, CONFIG))
        )
        return files.read_json(policy_folder / "config.json")
    return {}


def is_repository(policy_path: str) -> bool:
    """Returns whether a path that is no folder can name a repository of the hub."""
    return REPO.fullmatch(policy_path) is not None and not policy_path.startswith(("./", "../", "checkpoints/"))


def policy_type(config: Path) -> str:
    """Returns the type that a checkpoint's config.json names, such as pi0. Raises TrackaError where there is none."""
    kind = files.read_json(config).get("type")
    if not isinstance(kind, str):
        raise TrackaError(
            Finding(f"{config}, key type", "the policy's type is missing", "Save the policy with lerobot 0.6")
        )
    return kind
