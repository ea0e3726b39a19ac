"""Says what a campaign's results were made from: definition, checkpoints, software, host and engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..campaign.campaign import Campaign
from ..core import schema
from ..core.artifacts import Manifest
from ..core.errors import joined_names

Facts = list[tuple[str, str]]  # a name and its value, in the order of the page


@dataclass(frozen=True)
class Provenance:
    """Groups of facts by title, and the hash of each row's identity, run id -> row hash."""

    groups: Mapping[str, Facts]
    row_hashes: Mapping[str, str]


def read(campaign: Campaign, manifests: Sequence[Manifest]) -> Provenance:
    """Returns the provenance of the results of the rows with these manifests."""
    groups = {
        "Definition": [(path, sha256) for path, sha256 in campaign.digests.items()],
        "Checkpoints": _checkpoints(manifests),
        "Software": _software(manifests),
        "Host": _host(campaign),
        "Engine": _engine(campaign, manifests),
    }
    hashes = {manifest["run_id"]: manifest["row_hash"] or "" for manifest in manifests}
    return Provenance({title: facts for title, facts in groups.items() if facts}, hashes)


def _checkpoints(manifests: Sequence[Manifest]) -> Facts:
    records = {record["tree_sha256"]: record for record in (manifest["checkpoint"] for manifest in manifests)}
    return [
        (record["source"], f"{record['policy_type']}, revision {record['revision'] or 'none'}, content {sha256}")
        for sha256, record in records.items()
    ]


def _software(manifests: Sequence[Manifest]) -> Facts:
    """Returns each package with its version; with all versions where rows ran with several."""
    versions: dict[str, list[str]] = {}
    for manifest in manifests:
        for name, version in (manifest["versions"] | {"tracka": manifest["tracka_version"]}).items():
            versions.setdefault(name, []).append(version)
    return [(name, joined_names(list(dict.fromkeys(each)))) for name, each in sorted(versions.items())]


def _host(campaign: Campaign) -> Facts:
    snapshot = schema.read_or_empty("env_snapshot", campaign.layout.preflight / "env_snapshot.json")
    if not snapshot:
        return []
    gpus = [f"{gpu['name']} ({gpu['uuid']})" for gpu in snapshot["gpus"]]
    git = snapshot["git"] or {}
    facts = [
        ("platform", snapshot["platform"]),
        ("processor", f"{snapshot['cpu']}, {snapshot['cpu_count']} cores"),
        ("memory", f"{snapshot['memory_mib']} MiB"),
        ("GPUs", joined_names(gpus) or "none"),
        ("GPU driver", ", CUDA ".join(map(str, snapshot["driver"] or ())) or "none"),
        ("Track A's commit", str(git.get("commit") or "unknown")),
        ("recorded", snapshot["generated_at_utc"]),
    ]
    return [*facts, *((f"fingerprint of {name}", value) for name, value in snapshot["fingerprints"].items())]


def _engine(campaign: Campaign, manifests: Sequence[Manifest]) -> Facts:
    backends = dict.fromkeys(manifest["mujoco_gl"] for manifest in manifests)
    times = sorted(manifest["start_time_utc"] for manifest in manifests)
    return [
        ("engine", campaign.engine_name),
        ("backend that renders", joined_names(list(backends)) or "none"),
        *([("first row began", times[0]), ("last row began", times[-1])] if times else []),
    ]
