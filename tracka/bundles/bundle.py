"""Makes the bundle of a campaign: one archive that anybody can verify.

Guarantees: the same campaign gives the same bytes; the campaign's files are in it byte for byte, unless a redacted copy
was asked for, which says so; what the bundle adds names no place of this machine.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..campaign import campaign as campaigns
from ..campaign.campaign import Campaign
from ..core import files, held_folder
from . import archive, bag, contents, crate, facts, redacted_copy, redaction_check, signature, statements
from .archive import Source
from .contents import Place
from .facts import BundleFacts

SUFFIX = ".tar"


@dataclass(frozen=True)
class BundleOptions:
    """What to bundle and where. Without `output` the file is NAME.tar, or NAME-TIER.tar, in the current folder."""

    output: Path | None = None
    tier: str | None = None
    with_videos: bool = True
    redact: bool = False
    sign_key: Path | None = None


def write(root: Path, options: BundleOptions) -> Path:
    """Writes the bundle of the campaign in `root`, and returns the file.

    Raises UsageError where the campaign cannot be read, holds what must not be read, or the key cannot sign, and where
    a redacted copy would still name this machine.
    """
    spec = campaigns.load(root, options.tier)
    key = signature.load_key(options.sign_key) if options.sign_key else None
    place, name, target = contents.place_of(spec.layout), top_name(spec), path_of(spec, options)
    made = contents.collect(spec, place, options.with_videos)
    own = facts.make(spec, place, made)
    members = assemble(spec, place, made.files, own)
    if not options.redact:
        archive.write(target, name, sealed(members, signature.envelopes(members, key)))
        return target
    original = archive.sha256(name, sealed(members, {}))
    with held_folder.make() as folder:
        copy = redacted_copy.make(spec, made.files, own, folder, original)
        members = assemble(copy.campaign, copy.place, copy.files, copy.facts)
        members, name = sealed(members, signature.envelopes(members, key)), top_name(copy.campaign)
        redaction_check.require_none(name, members, copy.names)
        archive.write(target, name, members)
    return target


def path_of(campaign: Campaign, options: BundleOptions) -> Path:
    """Returns the file that `write` writes."""
    return options.output or Path(f"{top_name(campaign)}{'-redacted' if options.redact else ''}{SUFFIX}")


def top_name(campaign: Campaign) -> str:
    """Returns the name of the bundle's top folder: that of the campaign, and of the tier."""
    name = "-".join(filter(None, [campaign.layout.root.name, campaign.layout.tier]))
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "campaign"


def assemble(campaign: Campaign, place: Place, payload: Mapping[str, Path], own: BundleFacts) -> dict[str, Source]:
    """Returns all files of a bundle but its signatures and TAG_MANIFEST, by their names below the top folder.

    `payload` has the campaign's own files; everything else is made from them and from `own`.
    """
    described: dict[str, Source] = {**payload, facts.NAME: files.pretty({**own})}
    sizes = {name: _hash_and_size(source) for name, source in described.items()}
    closed_at = statements.closed_at_utc(campaign)
    described[crate.NAME] = crate.make(campaign, own, closed_at, sizes)
    sizes[crate.NAME] = _hash_and_size(described[crate.NAME])
    hashes = {f"{bag.PAYLOAD}{name}": sha256 for name, (sha256, _) in sizes.items()}
    tags = bag.tag_files(top_name(campaign), closed_at, hashes, sum(size for _, size in sizes.values()))
    tags |= statements.make(campaign, own, tags[bag.MANIFEST], hashes)
    return {**{f"{bag.PAYLOAD}{name}": source for name, source in described.items()}, **tags}


def sealed(members: Mapping[str, Source], envelopes: Mapping[str, Source]) -> dict[str, Source]:
    """Returns the files of a bundle with its signatures, and with the manifest of all that is not payload."""
    tags = {name: source for name, source in members.items() if not name.startswith(bag.PAYLOAD)} | {**envelopes}
    listed = {name: _hash_and_size(source)[0] for name, source in tags.items()}
    return {**members, **envelopes, bag.TAG_MANIFEST: bag.manifest(listed)}


def _hash_and_size(source: Source) -> tuple[str, int]:
    if isinstance(source, bytes):
        return files.sha256(source), len(source)
    return files.sha256_file(source), source.stat().st_size
