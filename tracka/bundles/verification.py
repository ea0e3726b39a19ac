"""Verifies a bundle offline: what can be known of a campaign from one file, and what cannot.

Guarantees: nothing of the bundle is run or imported, no host is asked, and nothing is read or written outside of a
temporary folder. A bundle without findings is the archive that `bundle` makes of its own files, to the byte, and these
files break no contract that can be held without the host, the checkpoints and the software of the campaign.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import cast

from .. import __version__
from ..campaign import campaign as campaigns
from ..campaign.campaign import Campaign
from ..core import files, hashing, held_folder, parsing, schema
from ..core.errors import Finding, TrackaError, UsageError
from ..gates import recorded
from ..reporting import report, verdict
from . import archive, bag, bundle, contents, facts, rejection, signature, soundness, statements
from .archive import REMEDY, Archive
from .contents import Place
from .facts import BundleFacts

UNKNOWABLE = "whether the simulator ran: files that somebody made up, and that agree with each other, look the same"


@dataclass
class Verification:
    """What was found of a bundle: `held` says what holds, `unknown` what cannot be known here, and how to know it.

    `rejections` are those of the findings by which the campaign says itself that it was not accepted, and `rejected`
    says why in words.
    """

    findings: list[Finding] = field(default_factory=list)
    rejections: list[Finding] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    verdict: str = ""

    @property
    def faults(self) -> list[Finding]:
        """Returns the findings that a sound bundle has not, also one of a campaign that was not accepted."""
        rejections = set(self.rejections)
        return [finding for finding in self.findings if finding not in rejections]


@dataclass(frozen=True)
class Opened:
    """A bundle that was read into a temporary folder: its archive, what it says of itself, and its campaign."""

    archive: Archive
    facts: BundleFacts
    place: Place
    campaign: Campaign


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Reads a bundle into a temporary folder, which is there inside the block.

    Raises UsageError where the file is not a bundle, or its campaign cannot be read.
    """
    with held_folder.make() as folder:
        read = archive.read(path, folder)
        own = _facts(path, read)
        place = Place(read.path(bag.PAYLOAD), PurePosixPath(own["campaign"]))
        campaign = campaigns.load(place.root, own["tier"])
        left_out = contents.layout_names(place, own["left_out"])
        yield Opened(read, own, place, replace(campaign, layout=replace(campaign.layout, left_out=left_out)))


def _facts(path: Path, read: Archive) -> BundleFacts:
    """Returns the bundle's bundle.json. Raises UsageError where it is missing or malformed."""
    where, name = f"{path}, {facts.NAME}", f"{bag.PAYLOAD}{facts.NAME}"
    if name not in read.names:
        raise UsageError(Finding(where, "the archive has no such file, so it is not a bundle of Track A", REMEDY))
    try:
        value = parsing.json_value(read.content(name))
    except ValueError as error:
        raise UsageError(Finding(where, f"the file is not JSON ({error})", REMEDY)) from None
    if findings := schema.findings("bundle", value, where):
        raise UsageError(findings)
    own = cast(BundleFacts, value)
    if any(part in ("..", ".") for name in (own["campaign"], *own["left_out"]) for part in PurePosixPath(name).parts):
        raise UsageError(Finding(where, "it names a place outside of the bundle", REMEDY))
    return own


def verify(bundle_file: Opened, key: Path | None = None) -> Verification:
    """Returns what is to be said of a bundle; `key` is a public key that must have signed it.

    Raises UsageError where the key cannot be read.
    """
    found = Verification()
    _archive(found, bundle_file)
    _signatures(found, bundle_file, key)
    _checkpoints(found, bundle_file)
    if bundle_file.facts["redaction"] is None:
        _contracts(found, bundle_file.campaign)
    else:
        _redacted(found, bundle_file)
    found.findings = [_without_folder(bundle_file, finding) for finding in dict.fromkeys(found.findings)]
    found.rejections = [_without_folder(bundle_file, finding) for finding in dict.fromkeys(found.rejections)]
    found.rejected = rejection.words(bundle_file.campaign, found.rejections)
    found.verdict = verdict.words(bundle_file.campaign, accepted=not found.findings)
    found.unknown.append(UNKNOWABLE)
    return found


def _without_folder(bundle_file: Opened, finding: Finding) -> Finding:
    """Returns a finding with the names of the bundle's files instead of their places in the temporary folder."""
    places = (f"{bundle_file.campaign.layout.root}/", f"{bundle_file.archive.folder}/{bundle_file.archive.top}/data/")
    where, what = finding.where, finding.what
    for place in places:
        where, what = where.replace(place, ""), what.replace(place, "")
    return replace(finding, where=where, what=what)


# ---- archive


def _archive(found: Verification, bundle_file: Opened) -> None:
    """Holds the archive against itself: hashes, and the archive that its files give again."""
    read, before = bundle_file.archive, len(found.findings)
    found.findings += [Finding(name, what, REMEDY) for name, what in changed_bytes(read)]
    is_of_today = bundle_file.facts["tracka_version"] == __version__
    for name in _rebuilt_differences(bundle_file) if is_of_today else _other_statements(bundle_file):
        what = "the file is not the one that the campaign in this bundle gives"
        found.findings.append(Finding(name, what, REMEDY))
    if len(found.findings) > before:
        return
    if is_of_today:
        found.held.append(f"archive: {len(read.names)} files, to the byte what `tracka bundle` makes of them")
    else:
        version = bundle_file.facts["tracka_version"]
        found.held.append(f"archive: {len(read.names)} files as they are listed, and statements of Track A {version}")


def changed_bytes(read: Archive) -> Iterator[tuple[str, str]]:
    """Yields each file that is not as the bundle's manifests list it, and why, and whether other bytes are changed."""
    hashes = {name: files.sha256_file(read.path(name)) for name in read.names}
    payload = {name: sha256 for name, sha256 in hashes.items() if name.startswith(bag.PAYLOAD)}
    tags = {name: sha256 for name, sha256 in hashes.items() if name not in payload and name != bag.TAG_MANIFEST}
    for manifest, listed in ((bag.MANIFEST, payload), (bag.TAG_MANIFEST, tags)):
        for name in bag.differences(read.content(manifest), listed):
            yield name, f"the file is not the one that {manifest} lists"
    if archive.sha256(read.top, {name: read.path(name) for name in read.names}) != read.sha256:
        yield read.top, "the archive has other bytes than those of its files: they were changed, or packed by another"


def _rebuilt_differences(bundle_file: Opened) -> Iterator[str]:
    """Yields the files in which the bundle is another than the one that its campaign gives."""
    read, campaign = bundle_file.archive, bundle_file.campaign
    made = contents.collect(campaign, bundle_file.place)
    members = bundle.assemble(campaign, bundle_file.place, made.files, bundle_file.facts)
    members = bundle.sealed(members, {name: read.content(name) for name in _envelopes(read)})
    yield from sorted({*members} ^ {*read.names})
    for name in sorted({*members} & {*read.names}):
        source = members[name]
        if isinstance(source, bytes) and source != read.content(name):
            yield name
    if read.top != bundle.top_name(campaign):
        yield read.top


def _other_statements(bundle_file: Opened) -> Iterator[str]:
    """Yields the statements of another version of Track A that say something else than today's would."""
    read = bundle_file.archive
    hashes = {name: files.sha256_file(read.path(name)) for name in read.names if name.startswith(bag.PAYLOAD)}
    made = statements.make(bundle_file.campaign, bundle_file.facts, read.content(bag.MANIFEST), hashes)
    for name, content in made.items():
        if _MAKER.sub(b"", content) != _MAKER.sub(b"", read.content(name)):
            yield name


_MAKER = re.compile(rb"(urn:tracka:|\"version\": \")[^\"]*")  # what a statement says of the version that made it


def _envelopes(read: Archive) -> list[str]:
    return [name for name in read.names if name.startswith(statements.FOLDER) and name.endswith(signature.SUFFIX)]


def _signatures(found: Verification, bundle_file: Opened, key: Path | None) -> None:
    read = bundle_file.archive
    named = {name: read.content(name) for name in read.names if name.startswith(statements.FOLDER)}
    if key is None:
        signed = "not signed" if not _envelopes(read) else "signed; --key PUBLIC_KEY checks by whom"
        found.unknown.append(f"who made this bundle: it is {signed}")
        return
    faults = [*signature.faults(named, key)]
    found.findings += [Finding(statements.FOLDER, what, "Ask the signer for the bundle") for what in faults]
    if not faults:
        found.held.append(f"signatures: the statements are signed by the key in {key.name}")


def _checkpoints(found: Verification, bundle_file: Opened) -> None:
    """Holds the hashes of the checkpoints' files against the hashes that the rows recorded."""
    points = bundle_file.facts["checkpoints"]
    for manifest in report.manifests(bundle_file.campaign):
        path, tree = manifest["policy_path"], manifest["checkpoint"]["tree_sha256"]
        if path not in points or points[path]["tree_sha256"] != tree:
            what = f"the row {manifest['run_id']} ran a checkpoint of another hash than bundle.json has of {path}"
            found.findings.append(Finding(facts.NAME, what, REMEDY))
    for path, point in points.items():
        if point["files"] is not None and hashing.of_hashes(point["files"]) != point["tree_sha256"]:
            what = f"the hashes of the files of {path} do not give the hash of the checkpoint"
            found.findings.append(Finding(facts.NAME, what, REMEDY))
    for name, sha256 in _left_out_hashes(bundle_file.campaign).items():
        if name in bundle_file.facts["left_out"] and bundle_file.facts["left_out"][name] != sha256:
            what = "the hash of a file that is left out is not the one in its result"
            found.findings.append(Finding(name, what, REMEDY))


def _left_out_hashes(campaign: Campaign) -> Mapping[str, str]:
    """Returns the hashes of all files of the last attempts, by their names in the payload."""
    hashes = {}
    for row in campaign.enabled:
        folder = campaign.layout.run(row.run_id)
        result = schema.read_or_empty("result", folder.result)
        for name, sha256 in result.get("files", {}).items():
            path = folder.attempt(result["attempt"]).path / name
            hashes[f"{campaign.layout.root.name}/{campaign.layout.relative(path)}"] = sha256
    return hashes


# ---- contracts


def _contracts(found: Verification, campaign: Campaign) -> None:
    judgement = recorded.judge(campaign)
    rejections = set(judgement.rejections)
    for finding in judgement.findings:
        is_rejection = finding in rejections
        # The remedies of contracts are for the campaign's own host.
        told = replace(finding, remedy=rejection.REMEDY if is_rejection else recorded.REMEDY)
        found.findings.append(told)
        found.rejections += [told] if is_rejection else []
    found.held.append(f"contracts: {judgement.held} were checked against the files")
    found.unknown += [f"{name}: it needs {package}" for name, package in judgement.unheld.items()]
    found.unknown += recorded.UNASKED
    if campaign.layout.left_out:
        videos = sum(name.endswith(contents.VIDEO) for name in campaign.layout.left_out)
        found.unknown.append(f"what {videos} videos show, which are left out: ask for the bundle with them")


def _redacted(found: Verification, bundle_file: Opened) -> None:
    """Holds a redacted copy against what its redaction leaves: its tables, and what its files say of the verdict."""
    redaction, campaign = bundle_file.facts["redaction"], bundle_file.campaign
    assert redaction is not None
    for name, each in redaction["files"].items():
        path = bundle_file.archive.path(f"{bag.PAYLOAD}{name}")
        if not path.is_file() or files.sha256_file(path) != each["redacted_sha256"]:
            found.findings.append(Finding(name, "the file is not the redacted one that bundle.json names", REMEDY))
    try:
        found.findings += [replace(finding, remedy=REMEDY) for finding in soundness.table_faults(campaign)]
        found.held.append("tables: they are those of the results")
    except TrackaError as error:
        found.findings += [replace(finding, remedy=recorded.REMEDY) for finding in error.findings]
    found.rejections += [
        Finding(name, "not accepted, as the files of this copy say", rejection.REMEDY)
        for name in statements.not_accepted(campaign)
    ]
    found.findings += found.rejections
    found.unknown.append(
        f"whether the evidence is bound together: this is a redacted copy, and {len(redaction['files'])} of its files "
        f"are others; ask for the original, the archive with the sha256 {redaction['original_sha256']}"
    )
