"""The identity of a result: the parts of its row hash, written out, so that two results can be compared.

Guarantees: a passed result stands only for what would run today. The row hash leaves out paths, the node,
CUDA_VISIBLE_DEVICES, timeouts and development tools, since these change no outcome.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from ..campaign.layout import RunFolder
from ..core import files, schema
from ..core.artifacts import IdentityParts
from ..core.errors import shortened

VERSION = 3  # of the row hash; this version introduced identity.json
NAME = "identity.json"
FEW = 3  # how many differences a message names
OLDER = (
    f"the row passed, but its row hash has an older hash version than {VERSION}, this Track A's, so the two hashes "
    "cannot be compared"
)
KEEP = (
    "To keep the result, validate the campaign with the Track A that made it (tracka_version in run_manifest.json), "
    "and give the row a new run id here; or run the row with --allow-overwrite: the old attempt stays in its folder"
)
AGAIN = "Give the changed row a run id of its own, or run it again: tracka run or pytest, with --allow-overwrite"
MISSING = "-"  # the value of a part that only the other identity has


def row_hash(parts: IdentityParts) -> str:
    """Returns the row hash of an identity, which is the hash of the hashes of its parts."""
    return files.sha256(files.canonical({name: files.sha256(files.canonical(part)) for name, part in parts.items()}))


def write(folder: RunFolder, parts: IdentityParts) -> None:
    """Writes `identity.json` into an attempt's folder."""
    files.write_json(folder.path / NAME, {"schema_version": schema.VERSION, **parts})


def read(folder: RunFolder) -> IdentityParts | None:
    """Returns the identity that an attempt ran with; None where it is missing, as before hash version 3, or damaged."""
    content = schema.read_or_empty("identity", folder.path / NAME)
    parts = {name: part for name, part in content.items() if name != "schema_version"}
    return cast(IdentityParts, parts) if parts else None


def is_older(folder: RunFolder) -> bool:
    """Returns whether an attempt's row hash is of an older hash version than this Track A's."""
    parts = read(folder)
    return not (folder.path / NAME).is_file() if parts is None else parts["hash_version"] != VERSION


def differences(first: IdentityParts, second: IdentityParts) -> list[tuple[str, str, str]]:
    """Returns the parts in which two identities differ: name, value in `first`, value in `second`."""
    ours, theirs = dict(flat(first)), dict(flat(second))
    names = sorted({*ours, *theirs})
    pairs = ((name, ours.get(name, MISSING), theirs.get(name, MISSING)) for name in names)
    return [(name, before, now) for name, before, now in pairs if before != now]


def flat(parts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields every value of an identity as text, after its name: the keys that lead to it."""
    for key, value in parts.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flat(value, f"{name}: ")
        else:
            yield name, value if isinstance(value, str) else files.canonical(value).decode()


def change(attempt: RunFolder, today: IdentityParts) -> tuple[str, str]:
    """Returns what has changed since an attempt passed, and the remedy, as the texts of a message."""
    before = read(attempt)
    if before is None and (attempt.path / NAME).is_file():
        return f"the row passed, but its {NAME} is damaged, so its inputs cannot be compared with today's", AGAIN
    if before is None or before["hash_version"] != VERSION:
        return OLDER, KEEP
    # Changed packages come first: an added or removed package says less than the changed one that may have brought it.
    changed = sorted(differences(before, today), key=lambda difference: MISSING in difference[1:])
    listed_changes = "; ".join(
        f"{name} {short_value(now)} instead of {short_value(then)}" for name, then, now in changed[:FEW]
    )
    more = f" and {len(changed) - FEW} more" if len(changed) > FEW else ""
    what = "the row passed with another matrix row, settings, checkpoint or software than today's"
    return f"{what}: {listed_changes}{more} (all parts: tracka why)" if listed_changes else what, AGAIN


def short_value(value: str) -> str:
    """Returns a value of an identity as a message shows it: a hash by its first 12 digits, a long text shortened."""
    return value[:12] if len(value) == 64 and value.isalnum() else shortened(value)
