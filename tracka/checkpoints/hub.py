"""The hub: from a repository's name to a folder of the client's cache, and what each way to fail means.

Every failure has one of the `OUTCOMES` and its own remedy. What the cache holds whole is taken without asking the hub.
"""

import errno
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from ..core import digest, files
from ..core.errors import Finding, TrackaError, some

AS_FOLDER = "copy it here and give its folder as policy_path"
AS_TOKENIZER = "give a folder with its files as tokenizer_name in the checkpoint's policy_preprocessor.json"
# All that a configuration, a processor or a tokenizer can consist of; the weights of a model lie beside it.
LIGHT = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.py")
WEIGHTS = ("*.safetensors",)  # never pickles
SHA1 = 40  # characters: git's hash of a small file; a large one has its sha256
GATED = (
    "Do one of three: (1) accept the licence on its page of the hub and log in with `hf auth login`; (2) take its "
    "files from a machine that has them: {instead}; (3) name an ungated mirror of it in the same place"
)
# outcome -> what it means, what to do; docs/hub.md has the same table.
OUTCOMES = {
    "found": ("all files are here", "Nothing"),
    "gated": ("access is gated", GATED),
    "missing": ("the hub knows no such repository", "Mend the name, or log in with `hf auth login` if it is private"),
    "wrong_revision": ("there is no revision {revision}", "Name a commit, tag or branch of it"),
    "offline_empty": (
        "it is not in the cache, and the hub cannot be reached with HF_HUB_OFFLINE set",
        "With a network, run `{download}`; or {instead}",
    ),
    "offline_partial": (
        "only a part of it is in the cache, and the hub cannot be reached with HF_HUB_OFFLINE set; missing: {lacking}",
        "With a network, run `{download}`, which fetches what is missing; or {instead}",
    ),
    "corrupt": (
        "it is in the cache with other bytes than the hub has: {wrong}",
        "With a network, run `{download} --force-download`; or {instead}",
    ),
    "denied": (
        "the hub denies access ({said})",
        "Log in with `hf auth login` and a token that may read it; an old one may stand in HF_TOKEN",
    ),
    "hub_down": (
        "it is not in the cache and the hub fails ({said})",
        "Wait, see the hub's status page; or {instead}",
    ),
    "out_of_quota": (
        "the hub answers 429, too many requests",
        "Wait some minutes; log in with `hf auth login` for a larger quota, or run `{download}` once on another host "
        "and share its cache",
    ),
    "disk_full": ("the disk of the cache is full", "Make room in {cache}, or let HF_HOME name a larger disk"),
    "interrupted": (
        "the download broke off ({said})",
        "Run it again: files that came whole are kept; or run `{download}` where the network is better",
    ),
    "unreachable": (
        "it is not in the cache and the hub cannot be reached ({said})",
        "Mend the network, the proxy or HF_ENDPOINT; with a network, run `{download}`; or {instead}",
    ),
    "refused": ("it could not be made, or is here and cannot be used as it is", "See the check's own remedy"),
}


@dataclass(frozen=True)
class Wanted:
    """What is needed of a repository: the files that fit `patterns`, and those without which a part is no whole.

    An item of `required` names alternatives, separated by `|`.
    """

    repo: str
    revision: str | None = None
    patterns: tuple[str, ...] | None = None
    required: tuple[str, ...] = ()
    instead: str = AS_FOLDER

    def download(self) -> str:
        """The command that fetches it."""
        revision = f" --revision {self.revision}" if self.revision else ""
        return f"hf download {self.repo}{revision}" + "".join(f" --include '{item}'" for item in self.patterns or ())

    def fits(self, name: str) -> bool:
        """Whether a file of the repository is among those needed."""
        return self.patterns is None or any(fnmatch(name, pattern) for pattern in self.patterns)

    def lacking(self, folder: Path) -> list[str]:
        """The required files that `folder` does not have."""
        required = [item.split("|") for item in self.required]
        lacking = [" or ".join(names) for names in required if not any(_has(folder, name) for name in names)]
        return lacking + [name for name in _shards(folder) if self.fits(name) and not (folder / name).is_file()]


class Unresolved(TrackaError):
    """What was wanted is not here; `outcome` is a key of OUTCOMES."""

    def __init__(self, outcome: str, finding: Finding) -> None:
        super().__init__(finding)
        self.outcome = outcome


def tokenizer(name: str) -> Wanted:
    return Wanted(name, None, LIGHT, ("tokenizer*|vocab*",), AS_TOKENIZER)


def base_model(name: str, weights: bool, revision: str | None = None) -> Wanted:
    """A model that a policy is made from: its configuration and processor, and only if need be its weights."""
    instead = "copy it here and name its folder in the checkpoint's config.json and policy_preprocessor.json"
    if not weights:
        return Wanted(name, revision, LIGHT, ("config.json",), instead)
    return Wanted(name, revision, LIGHT + WEIGHTS, ("config.json", "*model*.safetensors"), instead)


def base_policy(name: str, revision: str | None = None) -> Wanted:
    """The policy that an adapter is for, of which lerobot reads the weights in one file."""
    instead = "copy it here and name its folder as base_model_name_or_path in adapter_config.json"
    return Wanted(name, revision, LIGHT + WEIGHTS, ("config.json", "model.safetensors"), instead)


def cached(wanted: Wanted) -> Path | None:
    """The snapshot if it is whole in the cache; the hub is not asked."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = _snapshot(wanted, offline=True)
    except LocalEntryNotFoundError:
        return None
    return None if wanted.lacking(found) else found


def fetch(wanted: Wanted) -> Path:
    """The snapshot, from the cache or else from the hub, each file with the hub's bytes.

    Raises Unresolved with the outcome and its remedy.
    """
    found = _fetch(wanted)
    if wrong := _corrupt(wanted, found):
        raise _answer(wanted, "corrupt", wrong=some(wrong))
    return found


def _fetch(wanted: Wanted) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.errors import IncompleteSnapshotError

    try:
        if here := cached(wanted):
            return here
        with files.as_open_as(Path(constants.HF_HUB_CACHE)):  # the cache may be one for many users
            found = _snapshot(wanted, offline=False)
        if constants.HF_HUB_OFFLINE and _missing(wanted, found):  # the client is content with the part that it has
            raise IncompleteSnapshotError(f"{found} is a part", str(found))
    except Exception as error:  # the client raises its own, httpx's and the system's errors
        raise _unresolved(wanted, error) from error
    return found


def _snapshot(wanted: Wanted, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = list(wanted.patterns) if wanted.patterns else None
    return Path(
        snapshot_download(wanted.repo, revision=wanted.revision, allow_patterns=patterns, local_files_only=offline)
    )


def _unresolved(wanted: Wanted, error: Exception) -> Unresolved:
    chain = list(_chain(error))
    outcome = _outcome(chain)
    parts = [Path(found) for each in chain if (found := getattr(each, "snapshot_path", None))]
    lacking = some(_missing(wanted, parts[0])) if parts else ""
    return _answer(wanted, outcome, lacking=lacking, said=" ".join(f"{type(error).__name__}: {error}".split())[:200])


def _answer(wanted: Wanted, outcome: str, **more: str) -> Unresolved:
    """The error of this outcome, its words filled in."""
    from huggingface_hub import constants

    what, remedy = OUTCOMES[outcome]
    words = {
        "revision": repr(wanted.revision),
        "download": wanted.download(),
        "instead": wanted.instead,
        "cache": constants.HF_HUB_CACHE,
        **more,
    }
    return Unresolved(outcome, Finding(f"hub repository {wanted.repo}", what.format(**words), remedy.format(**words)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it: the client hides the hub's answer behind "not in the cache"."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _outcome(chain: list[BaseException]) -> str:
    """The first line that fits: what the hub answered tells more than what the client made of it."""
    import httpx
    from huggingface_hub import constants, errors

    def any_of(*kinds: type[BaseException]) -> bool:
        return any(isinstance(error, kinds) for error in chain)

    status = {error.response.status_code for error in chain if isinstance(error, errors.HfHubHTTPError)}
    partial = any_of(errors.IncompleteSnapshotError)
    lines = (
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
    return next((outcome for outcome, fits in lines if fits), "unreachable")


def _missing(wanted: Wanted, folder: Path) -> list[str]:
    """What a part lacks: by the repository's list of files if the cache has it, else of those required."""
    listed = _listed(wanted)
    if not listed:
        return wanted.lacking(folder)
    return [name for name in listed if wanted.fits(name) and not (folder / name).is_file()]


def _listed(wanted: Wanted) -> dict[str, str]:
    """The hub's own hash of each file of the repository, by path; empty where the cache never had the list."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = get_cached_repo_tree(wanted.repo, revision=wanted.revision)
    except CachedRepoTreeNotFoundError:
        return {}
    return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in tree}


def _corrupt(wanted: Wanted, folder: Path) -> list[str]:
    """The needed files whose bytes are not the hub's; an older client's cache has no list, but names blobs by hash."""
    listed, hashes = _listed(wanted), digest.of_files(folder)
    wrong = []
    for name in filter(wanted.fits, hashes):
        blob = (folder / name).resolve()
        expected = listed.get(name) or (blob.name if blob.parent.name == "blobs" else "")
        if expected and expected not in (hashes[name], _git_hash(blob) if len(expected) == SHA1 else ""):
            wrong.append(name)
    return wrong


def _git_hash(path: Path) -> str:
    """What git, and so the hub, calls a file that is not in its large file storage."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _shards(folder: Path) -> list[str]:
    """The files over which weights are spread, by their index."""
    maps = [files.read_or_empty(index).get("weight_map") or {} for index in sorted(folder.glob("*.index.json"))]
    return sorted({str(name) for each in maps for name in each.values()})


def _has(folder: Path, pattern: str) -> bool:
    return any(path.is_file() for path in folder.glob(pattern))
