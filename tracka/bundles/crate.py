"""Makes ro-crate-metadata.json (RO-Crate 1.1): what the files of a payload are, in the words of schema.org."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from .. import __version__
from ..campaign.campaign import Campaign
from ..core import files
from ..core.files import Json
from .facts import BundleFacts

NAME = "ro-crate-metadata.json"
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
LICENSE = "https://spdx.org/licenses/Apache-2.0"
SOFTWARE, ACTION = "#tracka", "#evaluation"
ENCODINGS = {
    ".csv": "text/csv",
    ".err": "text/plain",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".log": "text/plain",
    ".md": "text/markdown",
    ".mp4": "video/mp4",
    ".npy": "application/octet-stream",
    ".png": "image/png",
    ".toml": "application/toml",
    ".txt": "text/plain",
}
# The end of a file's name -> what it is.
DESCRIPTIONS = {
    "campaign.toml": "settings of the campaign",
    "eval_matrix.csv": "matrix: one row an evaluation",
    "episodes.jsonl": "one line an episode",
    "eval_info.json": "what the engine reports",
    "identity.json": "all that decides the outcome of an attempt",
    "preflight.json": "checks of the host",
    "preregistration.json": "what was demanded before the first row ran",
    "result.json": "result of an attempt",
    "run_manifest.json": "what an attempt was about to run",
    "verdict.json": "verdict of the campaign",
}


def make(campaign: Campaign, facts: BundleFacts, closed_at_utc: str, payload: Mapping[str, tuple[str, int]]) -> bytes:
    """Returns the metadata of a payload; `payload` has sha256 and size of each file by its name in the crate."""
    name = campaign.layout.root.name + (f", tier {campaign.layout.tier}" if campaign.layout.tier else "")
    parts = [{"@id": _id(path)} for path in sorted(payload)]
    graph: list[Json] = [
        {
            "@id": NAME,
            "@type": "CreativeWork",
            "conformsTo": {"@id": SPECIFICATION},
            "about": {"@id": "./"},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": f"Evaluation campaign {name}",
            "description": _description(campaign, facts),
            "datePublished": closed_at_utc,
            "license": {"@id": LICENSE},
            "hasPart": parts,
            "mentions": {"@id": ACTION},
        },
        {
            "@id": LICENSE,
            "@type": "CreativeWork",
            "name": "Apache License 2.0",
            "description": "The license of Track A, whose formats these are; policies and media keep their own",
        },
        {
            "@id": SOFTWARE,
            "@type": "SoftwareApplication",
            "name": "Track A",
            "softwareVersion": __version__,
            "description": "Acceptance harness for robot policies",
        },
        {
            "@id": ACTION,
            "@type": "CreateAction",
            "name": f"Evaluation of the campaign {name}",
            "endTime": closed_at_utc,
            "instrument": {"@id": SOFTWARE},
            "object": [part for part in parts if "/configs/" in part["@id"]],
            "result": [part for part in parts if part["@id"].endswith("/result.json") and "/attempts/" in part["@id"]],
        },
        *_file_entities(payload),
    ]
    return files.pretty({"@context": f"{SPECIFICATION}/context", "@graph": graph})


def _description(campaign: Campaign, facts: BundleFacts) -> str:
    suites = ", ".join(sorted({row.task_suite for row in campaign.enabled}))
    left_out = (
        f" {len(facts['left_out'])} files are left out; bundle.json has their hashes." if facts["left_out"] else ""
    )
    return (
        f"Configuration, results, logs and recorded episodes of {len(campaign.enabled)} evaluations on {suites}, with "
        f"the verdict and the hashes of the checkpoints.{left_out} `tracka verify` checks it."
    )


def _file_entities(payload: Mapping[str, tuple[str, int]]) -> Iterator[Json]:
    for name, (sha256, size) in sorted(payload.items()):
        path = PurePosixPath(name)
        entity: Json = {
            "@id": _id(name),
            "@type": "File",
            "name": Path(name).name,
            "contentSize": str(size),
            "encodingFormat": ENCODINGS.get(path.suffix, "application/octet-stream"),
            "sha256": sha256,
        }
        if description := DESCRIPTIONS.get(path.name):
            entity["description"] = description
        yield entity


def _id(name: str) -> str:
    """Returns a file's name as a relative URI."""
    return quote(name)
