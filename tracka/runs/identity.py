"""The identity of a result: the parts of its row hash, written out, so that two results can be held side by side.

Guarantees: a passed result stands only for what would run today. Left out of a row hash are paths, the node,
CUDA_VISIBLE_DEVICES, time-outs and development tools: they change no outcome.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ..campaign.layout import RunFolder
from ..core import files, schema
from ..core.errors import short
from ..core.files import Json

VERSION = 3  # of the row hash; identity.json came with it
NAME = "identity.json"
FEW = 3  # differences that a message names
OLDER = (
    f"it passed, and its row hash is of an older hash version than {VERSION}, this Track A's, so nobody can tell "
    "whether it would be the same today"
)
KEEP = (
    "To keep it, validate the campaign with the Track A that made it (tracka_version in its run_manifest.json), and "
    "give the row a new run id here; or run it again with --allow-overwrite: the old attempt stays in its folder"
)
AGAIN = "Give the changed row a run id of its own, or run it again: tracka run or pytest, with --allow-overwrite"
MISSING = "-"  # what the other side has and this one does not


def row_hash(parts: Json) -> str:
    """The row hash of an identity: of the hashes of its parts."""
    return files.sha256(files.canonical({name: files.sha256(files.canonical(part)) for name, part in parts.items()}))


def write(folder: RunFolder, parts: Json) -> None:
    """Writes `identity.json` into an attempt's folder."""
    files.write_json(folder.path / NAME, {"schema_version": schema.VERSION, **parts})


def read(folder: RunFolder) -> Json | None:
    """The identity that an attempt ran with; None where there is none, as before hash version 3."""
    found = schema.read_or_empty("identity", folder.path / NAME)
    return {name: part for name, part in found.items() if name != "schema_version"} or None


def differences(one: Json, other: Json) -> list[tuple[str, str, str]]:
    """The parts in which two identities differ: name, value in the one, value in the other."""
    ours, theirs = dict(flat(one)), dict(flat(other))
    names = sorted({*ours, *theirs})
    pairs = ((name, ours.get(name, MISSING), theirs.get(name, MISSING)) for name in names)
    return [(name, before, now) for name, before, now in pairs if before != now]


def flat(parts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every value of an identity as text, by the keys that lead to it."""
    for key, value in parts.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flat(value, f"{name}: ")
        else:
            yield name, value if isinstance(value, str) else files.canonical(value).decode()


def change(attempt: RunFolder, today: Json) -> tuple[str, str]:
    """What has changed since an attempt passed, and the remedy, as a message says them."""
    before = read(attempt)
    if before is None and (attempt.path / NAME).is_file():
        return f"it passed, and its {NAME} is damaged, so nobody can tell whether it would be the same today", AGAIN
    if before is None or before["hash_version"] != VERSION:
        return OLDER, KEEP
    # A package that comes or goes says less than one that has changed, which may have brought it.
    changed = sorted(differences(before, today), key=lambda difference: MISSING in difference[1:])
    named = "; ".join(f"{name} {shown(now)} instead of {shown(then)}" for name, then, now in changed[:FEW])
    more = f" and {len(changed) - FEW} more" if len(changed) > FEW else ""
    what = "it passed with another row, settings, checkpoint or software than today's"
    return f"{what}: {named}{more} (all of it: tracka why)" if named else what, AGAIN


def shown(value: str) -> str:
    """A value of an identity as a message has it: hashes by their beginning."""
    return value[:12] if len(value) == 64 and value.isalnum() else short(value)
