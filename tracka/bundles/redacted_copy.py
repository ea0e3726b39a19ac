"""Makes the redacted copy of a payload: its texts without places, hosts and users of the machine that ran it.

What was replaced is another file, so hashes of evidence no longer fit: the copy names each such file with both hashes.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

from ..campaign import campaign as campaigns
from ..campaign.campaign import Campaign
from ..core import files, parsing, reading
from ..core.errors import Finding, TrackaError, UsageError
from ..reporting import collect
from . import machine_names
from .contents import Place
from .facts import BundleFacts, Replaced
from .machine_names import MachineNames

TEXTS = {".csv", ".err", ".json", ".jsonl", ".log", ".md", ".toml", ".txt", ".xml"}
BINARIES = {".mp4", ".npy", ".npz", ".png"}


@dataclass(frozen=True)
class RedactedCopy:
    """A copy below `place`: its campaign, its files by their names, what bundle.json says, and what was replaced."""

    place: Place
    campaign: Campaign
    files: Mapping[str, Path]
    facts: BundleFacts
    names: MachineNames


def make(
    campaign: Campaign, payload: Mapping[str, Path], own: BundleFacts, folder: Path, original_sha256: str
) -> RedactedCopy:
    """Writes the copy of `payload` below `folder`. Raises UsageError where two of its files would have one name."""
    texts = {name: path for name, path in payload.items() if is_text(path)}
    names = machine_names.of(campaign, texts.values())
    targets = {name: _name(name, names) for name in payload}
    _refuse_same(targets)
    for name, path in payload.items():
        files.make_folder((folder / targets[name]).parent)
        if name in texts:
            files.write_atomic(folder / targets[name], names.replaced(reading.content(path, reading.OUTPUT)))
        else:
            shutil.copy2(path, folder / targets[name])
    facts = _facts(own, names)
    place = Place(folder, PurePosixPath(facts["campaign"]))
    copy = campaigns.load(place.root, own["tier"])
    _write_tables(campaign, copy)
    both = {targets[name]: (path, folder / targets[name]) for name, path in texts.items()}
    changed = {name: _hashes(*paths) for name, paths in both.items() if not reading.is_same(*paths)}
    facts = {**facts, "redaction": {"original_sha256": original_sha256, "files": changed}}
    return RedactedCopy(place, copy, {name: folder / name for name in sorted(targets.values())}, facts, names)


def is_text(path: Path) -> bool:
    """Returns whether a file is text, by its name or else by its content."""
    if path.suffix in TEXTS or path.suffix in BINARIES:
        return path.suffix in TEXTS
    try:
        return "\0" not in reading.content(path, reading.OUTPUT).decode()
    except UnicodeDecodeError:
        return False


def _name(name: str, names: MachineNames) -> str:
    return names.without_words(name.encode(errors="surrogateescape")).decode(errors="surrogateescape")


def _refuse_same(targets: Mapping[str, str]) -> None:
    last = {target: name for name, target in targets.items()}
    same = [name for name, target in targets.items() if last[target] != name]
    if same:
        remedy = "Rename it in a copy of the campaign, and bundle the copy"
        what = "without the names of host and user another file has the same name"
        raise UsageError([Finding(name, what, remedy) for name in same])


def _facts(own: BundleFacts, names: MachineNames) -> BundleFacts:
    """Returns bundle.json's content with the same replacements as the files, in keys and values alike."""
    facts = parsing.json_value(names.replaced(json.dumps(own, ensure_ascii=False).encode()))
    return cast(BundleFacts, {**facts, "checkpoints": dict(sorted(facts["checkpoints"].items()))})


def _write_tables(campaign: Campaign, copy: Campaign) -> None:
    """Makes the copy's tables anew where they were those of the results, since other names may have another order."""
    before, after = _tables(campaign), _tables(copy)
    for name in {*before} & {*after}:
        path = campaign.layout.summary / name
        if path.is_file() and files.read_text(path, newline="") == before[name]:
            files.write_atomic(copy.layout.summary / name, after[name].encode())


def _tables(campaign: Campaign) -> dict[str, str]:
    try:
        return {**collect.tables(campaign), **collect.baseline_tables(campaign)}
    except TrackaError:  # the bundle has the campaign as it is, and verify says what is wrong
        return {}


def _hashes(before: Path, after: Path) -> Replaced:
    return {"original_sha256": files.sha256_file(before), "redacted_sha256": files.sha256_file(after)}
