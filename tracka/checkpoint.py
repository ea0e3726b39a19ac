"""A policy's checkpoint: from the matrix's `policy_path` to a local folder with a content hash.

A policy_path is a folder (relative to the campaign, or absolute), or a hub repository, `repo` or `repo@revision`. A
repository becomes a local snapshot first, because lerobot-eval's own `pretrained_revision` pins neither the config
nor the processors: with a folder, everything that runs is what was hashed.
"""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import files, memo, place
from .errors import Finding, TrackaError

REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
# What a policy's processors load where its checkpoint names nothing else (lerobot/policies/pi0/processor_pi0.py).
DEFAULT_TOKENIZERS = dict.fromkeys(("pi0", "pi05", "pi0_fast"), "google/paligemma-3b-pt-224")
AS_FOLDER = "copy it here and give its folder as policy_path"
AS_TOKENIZER = "give a folder with its files as tokenizer_name in the checkpoint's policy_preprocessor.json"
REQUIRED = ("config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json")


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
    match = REPO.fullmatch(policy_path)
    if match is None or policy_path.startswith(("./", "../", "checkpoints/")):
        remedy = "Build or copy the checkpoint there; tracka preflight builds those of [build] in campaign.toml"
        raise TrackaError(Finding(policy_path, f"there is no folder {folder}", remedy))
    snapshot = _download(match["repo"], match["revision"])
    return _inspect(policy_path, snapshot.name, snapshot)


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


def _download(repo: str, revision: str | None) -> Path:
    """The snapshot from the cache if it is whole there, else from the hub."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with contextlib.suppress(LocalEntryNotFoundError):
        cached = Path(snapshot_download(repo, revision=revision, local_files_only=True))
        if all((cached / name).is_file() for name in REQUIRED):
            return cached
    try:
        with files.as_open_as(Path(constants.HF_HUB_CACHE)):  # the cache may be one for many users
            found = Path(snapshot_download(repo, revision=revision))
        if constants.HF_HUB_OFFLINE:
            raise LocalEntryNotFoundError(f"only a part of it is cached, in {found}")
        return found
    except Exception as error:  # the client raises its own, requests' and the system's errors
        raise TrackaError(hub_finding(repo, revision, error)) from error


def hub_finding(repo: str, revision: str | None, error: Exception, instead: str = AS_FOLDER) -> Finding:
    """What a failed call to the hub means for the user, by the kind of `error`; `instead` is the way without it."""
    from huggingface_hub import errors

    download = f"hf download {repo}" + (f" --revision {revision}" if revision else "")
    kinds: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str, str], ...] = (
        (
            errors.GatedRepoError,
            "access is gated",
            f"Ask for access on its page and log in with `hf auth login`; or {instead}",
        ),
        (errors.RevisionNotFoundError, f"there is no revision {revision!r}", "Name a commit, tag or branch of it"),
        (
            errors.RepositoryNotFoundError,
            "the hub knows no such repository",
            "Mend the name, or log in if it is private",
        ),
        (
            (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError),
            "it is not in the cache and the hub cannot be reached",
            f"With a network, run `{download}`; or {instead}",
        ),
    )
    for kind, what, remedy in kinds:
        if isinstance(error, kind):
            return Finding(f"hub repository {repo}", what, remedy)
    return Finding(f"hub repository {repo}", f"{type(error).__name__}: {error}", "See the message of the hub's client")


def _inspect(source: str, revision: str | None, folder: Path) -> Checkpoint:
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing:
        remedy = "Save it with save_pretrained of lerobot 0.6, policy and processors"
        raise TrackaError([Finding(str(folder / name), "the checkpoint lacks this file", remedy) for name in missing])
    return Checkpoint(source, revision, folder, policy_type(folder / "config.json"), tree_sha256(folder))


def policy_type(config: Path) -> str:
    """The type that a checkpoint's config.json names, such as pi0."""
    kind = files.read_json(config).get("type")
    if not isinstance(kind, str):
        raise TrackaError(Finding(f"{config}, key type", "the policy's type is missing", "Save it with lerobot 0.6"))
    return kind


def tokenizers(checkpoint: Checkpoint) -> list[str]:
    """The tokenizers that the checkpoint's processors load by name: repositories or folders."""
    steps: list[Any] = files.read_json(checkpoint.folder / "policy_preprocessor.json").get("steps", [])
    configs = [step.get("config", {}) for step in steps if isinstance(step, dict)]
    return sorted({str(config["tokenizer_name"]) for config in configs if config.get("tokenizer_name")})


def find_tokenizer(name: str) -> Path:
    """The local folder of a tokenizer, without loading it. Raises TrackaError naming what is missing."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import constants, snapshot_download

    patterns = ["tokenizer*", "*.model", "special_tokens_map.json", "added_tokens.json", "config.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
    except Exception:
        pass
    try:
        with files.as_open_as(Path(constants.HF_HUB_CACHE)):
            return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        raise TrackaError(hub_finding(name, None, error, AS_TOKENIZER)) from error


def tree_sha256(folder: Path) -> str:
    """One hash for the paths and contents of all files below `folder`.

    Contents are read again only where size, time of change or inode differ from the last time: a pi0 is 9 GB.
    """
    store = cache_folder() / "trees" / f"{files.sha256(str(folder).encode())}.json"
    known = files.read_or_empty(store)
    found: dict[str, Any] = {}
    for path in files.walk_files(folder):
        status, name = path.stat(), str(path.relative_to(folder))
        stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
        last = known.get(name, {})
        digest = last["sha256"] if last.get("stamp") == stamp else files.sha256_file(path)
        found[name] = {"stamp": stamp, "sha256": digest}
    if found != known:
        with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
            files.write_json(store, found)
    return files.sha256(files.canonical({name: entry["sha256"] for name, entry in found.items()}))


def cache_folder() -> Path:
    """The user's cache of what is dear to find out again; safe to delete."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tracka"
