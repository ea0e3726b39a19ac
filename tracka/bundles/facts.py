"""Makes bundle.json: what a bundle says of itself that does not follow from its other files.

These are the files that it leaves out, the hashes of the checkpoints' files, and what a redacted copy has changed.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TypedDict

from .. import __version__
from ..campaign.campaign import Campaign
from ..core import hashing, schema
from ..core.artifacts import Manifest
from ..reporting import report
from .contents import Contents, Place

NAME = "bundle.json"


class CheckpointFiles(TypedDict):
    """A checkpoint that rows ran: the hash of all its files, and that of each; None where they are not here."""

    tree_sha256: str | None
    files: dict[str, str] | None


class Replaced(TypedDict):
    """A file of a redacted copy: the sha256 of the original and that of the copy."""

    original_sha256: str
    redacted_sha256: str


class Redaction(TypedDict):
    """What a redacted copy has changed: the sha256 of the original bundle, and each file that is another."""

    original_sha256: str
    files: dict[str, Replaced]


class BundleFacts(TypedDict):
    """Content of bundle.json (schema bundle)."""

    schema_version: int
    tracka_version: str
    campaign: str
    tier: str | None
    left_out: dict[str, str]
    checkpoints: dict[str, CheckpointFiles]
    redaction: Redaction | None


def make(campaign: Campaign, place: Place, contents: Contents, redaction: Redaction | None = None) -> BundleFacts:
    """Returns the content of the campaign's bundle.json."""
    return {
        "schema_version": schema.VERSION,
        "tracka_version": __version__,
        "campaign": str(place.name),
        "tier": campaign.layout.tier,
        "left_out": dict(contents.left_out),
        "checkpoints": checkpoints(campaign),
        "redaction": redaction,
    }


def checkpoints(campaign: Campaign) -> dict[str, CheckpointFiles]:
    """Returns policy_path -> the checkpoint that the policy's last row ran."""
    manifests = {manifest["policy_path"]: manifest for manifest in report.manifests(campaign)}
    return {path: _checkpoint(campaign, manifest) for path, manifest in sorted(manifests.items())}


def _checkpoint(campaign: Campaign, manifest: Manifest) -> CheckpointFiles:
    recorded = manifest["checkpoint"]
    folder, tree = campaign.layout.root / recorded["folder"], recorded["tree_sha256"]
    hashes = hashing.of_files(folder) if folder.is_dir() else {}
    return {"tree_sha256": tree, "files": hashes if tree_sha256(hashes) == tree else None}


def tree_sha256(hashes: Mapping[str, str]) -> str:
    """Returns the hash of a checkpoint with these files, as manifests have it."""
    return hashing.of_hashes(hashes)


def place_name(facts: BundleFacts) -> PurePosixPath:
    """Returns the campaign's place in the payload."""
    return PurePosixPath(facts["campaign"])
