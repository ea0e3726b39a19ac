"""Resolves a hub repository's name to a folder of the client's cache, and explains each way to fail.

Every failure has one of the `OUTCOMES` and its own remedy. A repository that is whole in the cache is used without
asking the hub.
"""

import errno
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from ..core import files, hashing, reading
from ..core.errors import Finding, TrackaError, joined_names

AS_FOLDER = "copy the repository here and give its folder as policy_path"
AS_TOKENIZER = "give a folder with the tokenizer's files as tokenizer_name in the checkpoint's policy_preprocessor.json"
# All files that a configuration, a processor or a tokenizer can consist of; a model's weights lie beside them.
LIGHT = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.py")
WEIGHTS = ("*.safetensors",)  # never pickles
SHA1 = 40  # characters of git's hash, which a small file has; a large file has its sha256
GATED = (
    "Do one of three: (1) accept the licence on the repository's page and log in with `hf auth login`; (2) take the "
    "files from a machine that has them: {instead}; (3) name an ungated mirror in place of the repository"
)
# Outcome -> its meaning and its remedy; docs/hub.md has the same table.
OUTCOMES = {
    "found": ("all files are here", "Nothing"),
    "gated": ("access to the repository is gated", GATED),
    "missing": (
        "the hub has no repository of this name",
        "Correct the name, or log in with `hf auth login` if the repository is private",
    ),
    "wrong_revision": (
        "the repository has no revision {revision}",
        "Name a commit, tag or branch of the repository",
    ),
    "offline_empty": (
        "the repository is not in the cache, and HF_HUB_OFFLINE is set, so the hub is not asked",
        "With a network, run `{download}`; or {instead}",
    ),
    "offline_partial": (
        "HF_HUB_OFFLINE is set, so the hub is not asked, and the cached repository lacks {missing_files}",
        "With a network, run `{download}`, which fetches what is missing; or {instead}",
    ),
    "corrupt": (
        "these files in the cache differ from the hub's: {corrupt_files}",
        "With a network, run `{download} --force-download`; or {instead}",
    ),
    "denied": (
        "the hub denies access ({error})",
        "Log in with `hf auth login` and a token that may read the repository; HF_TOKEN may hold an old token",
    ),
    "hub_down": (
        "the repository is not in the cache, and the hub fails ({error})",
        "Wait and see the hub's status page; or {instead}",
    ),
    "out_of_quota": (
        "the hub answers 429, too many requests",
        "Wait some minutes; log in with `hf auth login` for a larger quota, or run `{download}` once on another host "
        "and share its cache",
    ),
    "disk_full": (
        "the disk of the cache is full",
        "Free space in {cache}, or set HF_HOME to a folder on a larger disk",
    ),
    "interrupted": (
        "the download broke off ({error})",
        "Run it again: complete files are kept; or run `{download}` where the network is better",
    ),
    "unreachable": (
        "the repository is not in the cache, and the hub cannot be reached ({error})",
        "Repair the network, the proxy or HF_ENDPOINT; with a network, run `{download}`; or {instead}",
    ),
    "refused": ("the item could not be built, or is here and cannot be used as it is", "Follow the check's own remedy"),
}


@dataclass(frozen=True)
class DownloadSpec:
    """Describes what is needed of a repository: the files that fit `patterns`, and the files that must be there.

    Each item of `required` names alternatives, separated by `|`; a snapshot with none of them is incomplete.
    """

    repo: str
    revision: str | None = None
    patterns: tuple[str, ...] | None = None
    required: tuple[str, ...] = ()
    instead: str = AS_FOLDER

    def download(self) -> str:
        """Returns the command that downloads the needed files."""
        revision = f" --revision {self.revision}" if self.revision else ""
        return f"hf download {self.repo}{revision}" + "".join(f" --include '{item}'" for item in self.patterns or ())

    def includes(self, name: str) -> bool:
        """Returns whether the repository's file `name` is among the needed files."""
        return self.patterns is None or any(fnmatch(name, pattern) for pattern in self.patterns)

    def missing_files(self, folder: Path) -> list[str]:
        """Returns the files that `folder` lacks: required files, and needed files that an index of weights lists."""
        required = [item.split("|") for item in self.required]
        missing = [" or ".join(names) for names in required if not any(_has_file(folder, name) for name in names)]
        return missing + [name for name in _shards(folder) if self.includes(name) and not (folder / name).is_file()]


class Unresolved(TrackaError):
    """Raised where something wanted is not here; `outcome` is a key of OUTCOMES."""

    def __init__(self, outcome: str, finding: Finding) -> None:
        super().__init__(finding)
        self.outcome = outcome


class MissingFolder(Unresolved):
    """Raised where a local folder is missing whose name cannot be that of a repository."""

    def __init__(self, finding: Finding) -> None:
        super().__init__("missing", finding)


def tokenizer(name: str) -> DownloadSpec:
    """Returns what is needed of a tokenizer's repository."""
    return DownloadSpec(name, None, LIGHT, ("tokenizer*|vocab*",), AS_TOKENIZER)


def base_model(name: str, weights: bool, revision: str | None = None) -> DownloadSpec:
    """Returns what is needed of the model that a policy is made from.

    That is the model's configuration and processor, and the model's weights only where `weights` asks for them.
    """
    instead = "copy the model here and name its folder in the checkpoint's config.json and policy_preprocessor.json"
    if not weights:
        return DownloadSpec(name, revision, LIGHT, ("config.json",), instead)
    return DownloadSpec(name, revision, LIGHT + WEIGHTS, ("config.json", "*model*.safetensors"), instead)


def base_policy(name: str, revision: str | None = None) -> DownloadSpec:
    """Returns what is needed of an adapter's base policy; lerobot reads that policy's weights from one file."""
    instead = "copy the policy here and name its folder as base_model_name_or_path in adapter_config.json"
    return DownloadSpec(name, revision, LIGHT + WEIGHTS, ("config.json", "model.safetensors"), instead)


def cached_snapshot(spec: DownloadSpec) -> Path | None:
    """Returns the snapshot's folder if the snapshot is whole in the cache, else None; the hub is not asked."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = _snapshot(spec, offline=True)
    except LocalEntryNotFoundError:
        return None
    return None if spec.missing_files(folder) else folder


def fetch(spec: DownloadSpec) -> Path:
    """Returns the snapshot's folder, from the cache or else from the hub; each file has the hub's bytes.

    Raises Unresolved with the outcome and its remedy.
    """
    folder = _fetch(spec)
    if corrupt_files := _corrupt_files(spec, folder):
        raise _unresolved_error(spec, "corrupt", corrupt_files=joined_names(corrupt_files))
    return folder


def _fetch(spec: DownloadSpec) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.errors import IncompleteSnapshotError

    try:
        if cached_folder := cached_snapshot(spec):
            return cached_folder
        with files.as_open_as(Path(constants.HF_HUB_CACHE)):  # many users may share one cache
            folder = _snapshot(spec, offline=False)
        if constants.HF_HUB_OFFLINE and _missing_files(spec, folder):  # offline, the client accepts a part
            raise IncompleteSnapshotError(f"{folder} is a part", str(folder))
    except Exception as error:  # the client raises its own errors, httpx's and the system's
        raise _unresolved_from(spec, error) from error
    return folder


def _snapshot(spec: DownloadSpec, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = list(spec.patterns) if spec.patterns else None
    return Path(snapshot_download(spec.repo, revision=spec.revision, allow_patterns=patterns, local_files_only=offline))


def _unresolved_from(spec: DownloadSpec, error: Exception) -> Unresolved:
    chain = list(_chain(error))
    outcome = _outcome(chain)
    partial_folders = [Path(path) for cause in chain if (path := getattr(cause, "snapshot_path", None))]
    missing_files = joined_names(_missing_files(spec, partial_folders[0])) if partial_folders else ""
    return _unresolved_error(
        spec, outcome, missing_files=missing_files, error=" ".join(f"{type(error).__name__}: {error}".split())[:200]
    )


def _unresolved_error(spec: DownloadSpec, outcome: str, **details: str) -> Unresolved:
    """Returns the error for this outcome, with its texts filled in."""
    from huggingface_hub import constants

    what, remedy = OUTCOMES[outcome]
    values = {
        "revision": repr(spec.revision),
        "download": spec.download(),
        "instead": spec.instead,
        "cache": constants.HF_HUB_CACHE,
        **details,
    }
    return Unresolved(outcome, Finding(f"hub repository {spec.repo}", what.format(**values), remedy.format(**values)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and the errors behind it, because the client hides the hub's answer behind "not in the cache"."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _outcome(chain: list[BaseException]) -> str:
    """Returns the outcome of the first line that fits.

    The hub's answers come before the client's own errors, because the hub's answers say more.
    """
    import httpx
    from huggingface_hub import constants, errors

    def any_of(*kinds: type[BaseException]) -> bool:
        return any(isinstance(error, kinds) for error in chain)

    status = {error.response.status_code for error in chain if isinstance(error, errors.HfHubHTTPError)}
    partial = any_of(errors.IncompleteSnapshotError)
    outcomes = (
        ("disk_full", any(getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for error in chain)),
        ("out_of_quota", 429 in status),
        ("gated", any_of(errors.GatedRepoError)),
        ("wrong_revision", any_of(errors.RevisionNotFoundError)),
        ("missing", any_of(errors.RepositoryNotFoundError)),
        ("denied", bool(status & {401, 403})),
        ("hub_down", any(code >= 500 for code in status)),
        ("offline_partial", constants.HF_HUB_OFFLINE and partial),
        ("offline_empty", constants.HF_HUB_OFFLINE),
        ("interrupted", any_of(httpx.RemoteProtocolError, httpx.ReadError, httpx.ReadTimeout)),
    )
    return next((outcome for outcome, fits in outcomes if fits), "unreachable")


def _missing_files(spec: DownloadSpec, folder: Path) -> list[str]:
    """Returns the files that a part lacks: by the repository's list of files if it is cached, else by `required`."""
    hub_hashes = _hub_hashes(spec)
    if not hub_hashes:
        return spec.missing_files(folder)
    return [name for name in hub_hashes if spec.includes(name) and not (folder / name).is_file()]


def _hub_hashes(spec: DownloadSpec) -> dict[str, str]:
    """Returns the hub's own hash of each file of the repository, by path; empty where the cache never had the list."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = get_cached_repo_tree(spec.repo, revision=spec.revision)
    except CachedRepoTreeNotFoundError:
        return {}
    return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in tree}


def _corrupt_files(spec: DownloadSpec, folder: Path) -> list[str]:
    """Returns the needed files whose bytes are not the hub's.

    The cache of an older client has no list of files, but names blobs by their hash.
    """
    hub_hashes, hashes = _hub_hashes(spec), hashing.of_files(folder)
    corrupt = []
    for name in filter(spec.includes, hashes):
        blob = (folder / name).resolve()
        expected = hub_hashes.get(name) or (blob.name if blob.parent.name == "blobs" else "")
        if expected and expected not in (hashes[name], _git_hash(blob) if len(expected) == SHA1 else ""):
            corrupt.append(name)
    return corrupt


def _git_hash(path: Path) -> str:
    """Returns git's hash of a file, by which the hub names each file outside its large file storage."""
    data = reading.content(path)  # larger files are in the hub's large file storage
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _shards(folder: Path) -> list[str]:
    """Returns the names of the files over which weights are spread, from their index files."""
    maps = [files.read_or_empty(index).get("weight_map") for index in sorted(folder.glob("*.index.json"))]
    return sorted({str(name) for mapping in maps if isinstance(mapping, dict) for name in mapping.values()})


def _has_file(folder: Path, pattern: str) -> bool:
    return any(path.is_file() for path in folder.glob(pattern))
