"""A policy's checkpoint: from the matrix's `policy_path` to a local folder with a content hash.

A policy_path is a folder (relative to the campaign, or absolute), or a hub repository, `repo` or `repo@revision`. A
repository becomes a local snapshot first, because lerobot-eval's own `pretrained_revision` pins neither the config
nor the processors: with a folder, everything that runs is what was hashed.
"""

import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..campaign import place
from ..core import digest, files, memo
from ..core.errors import Finding, TrackaError
from . import form, hub
from .hub import Wanted

REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
CONFIG = ("config.json",)
PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
ADAPTER = (form.ADAPTER_CONFIG, form.ADAPTER_WEIGHTS)
OF_A_REPOSITORY = (*CONFIG, f"{form.WEIGHTS}|{form.ADAPTER_WEIGHTS}", *PROCESSORS)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine. `tree_sha256` covers every file below `folder` by path and content."""

    source: str
    revision: str | None  # the commit, for a repository
    folder: Path
    policy_type: str
    tree_sha256: str


@memo.remembered
def resolve(policy_path: str, root: Path, trusted: tuple[Path, ...] = ()) -> Checkpoint:
    """The checkpoint that `policy_path` names, downloaded if need be; `root` is the campaign's folder.

    Raises TrackaError naming what is missing and what to do, also where everybody may change it and it is not below
    one of the `trusted` folders.
    """
    folder = in_campaign(policy_path, root)
    if folder.is_dir():
        if faults := list(place.policy_faults(folder, trusted)):
            raise TrackaError(faults)
        return _inspect(policy_path, None, folder)
    if not is_repository(policy_path):
        remedy = "Build or copy the checkpoint there; tracka preflight builds those of [build] in campaign.toml"
        raise hub.Unresolved("missing", Finding(policy_path, f"there is no folder {folder}", remedy))
    try:
        snapshot = hub.fetch(wanted(policy_path))
    except hub.Unresolved as error:  # a path with a slip of the pen looks like a repository
        (finding,) = error.findings
        what = f"{finding.what}; and there is no folder {folder}"
        raise hub.Unresolved(error.outcome, replace(finding, what=what)) from error
    return _inspect(policy_path, snapshot.name, snapshot)


def wanted(policy_path: str) -> Wanted:
    """The repository that a `policy_path` like repo@revision names."""
    repo, _, revision = policy_path.partition("@")
    return Wanted(repo, revision or None, required=OF_A_REPOSITORY)


def without_download(policy_path: str, root: Path) -> Checkpoint:
    """The checkpoint if it is a folder here, else one in name only, with a hash of zeros: for dry runs."""
    try:
        return _inspect(policy_path, None, in_campaign(policy_path, root))
    except TrackaError:
        return Checkpoint(policy_path, None, Path(policy_path), "unknown", "0" * 64)


def in_campaign(policy_path: str, root: Path) -> Path:
    """The folder that `policy_path` means if it means one: from the campaign's folder, a home folder, or absolute."""
    try:
        return (root / Path(policy_path).expanduser()).resolve()
    except RuntimeError:  # ~nobody-by-that-name
        return (root / policy_path).resolve()


def _inspect(source: str, revision: str | None, folder: Path) -> Checkpoint:
    if found := training_folder(folder):
        raise TrackaError(found)
    missing = [name for name in _required(folder) if not (folder / name).is_file()]
    if missing:
        raise TrackaError(list(dict.fromkeys(form.lacking(folder, name) for name in missing)))
    return Checkpoint(source, revision, folder, policy_type(folder / "config.json"), digest.of_tree(folder))


def _required(folder: Path) -> tuple[str, ...]:
    """The files without which lerobot loads no policy from `folder`, which may be an adapter by its config.json."""
    weights = ADAPTER if files.read_or_empty(folder / "config.json").get("use_peft") else (form.WEIGHTS,)
    return (*CONFIG, *weights, *PROCESSORS)


def training_folder(folder: Path) -> Finding | None:
    """Returns where the policy lies if `folder` is one that a training run made around it."""
    trained = None if (folder / "config.json").is_file() else form.trained(folder)
    if trained is None:
        return None
    what = f"it is a folder of a training run; the policy lies in {trained}"
    return Finding(str(folder), what, f"Give {trained} as policy_path")


def named_type(policy_path: str, root: Path) -> str | None:
    """The policy type by config.json alone: of a folder here, else of the repository, from the cache or the hub.

    A training run's folder has the type of the policy in it: `resolve` says that it is one. Returns None where there is
    no such file, or nobody can be asked for it.
    """
    folder = in_campaign(policy_path, root)
    if not folder.is_dir() and not is_repository(policy_path):
        return None
    with contextlib.suppress(TrackaError):
        repo, _, revision = policy_path.partition("@")
        here = (
            form.trained(folder) or folder
            if folder.is_dir()
            else hub.fetch(Wanted(repo, revision or None, CONFIG, CONFIG))
        )
        return policy_type(here / "config.json")
    return None


def is_repository(policy_path: str) -> bool:
    """Whether a path that is no folder can name a repository of the hub."""
    return REPO.fullmatch(policy_path) is not None and not policy_path.startswith(("./", "../", "checkpoints/"))


def policy_type(config: Path) -> str:
    """The type that a checkpoint's config.json names, such as pi0."""
    kind = files.read_json(config).get("type")
    if not isinstance(kind, str):
        raise TrackaError(Finding(f"{config}, key type", "the policy's type is missing", "Save it with lerobot 0.6"))
    return kind
