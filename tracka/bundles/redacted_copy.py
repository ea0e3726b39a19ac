"""Makes the redacted copy of a payload: its texts without places, hosts and users of the machine that ran it.

What was replaced is another file, so hashes of evidence no longer fit: the copy names each such file with both hashes.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..campaign.campaign import Campaign
from ..core import files, reading
from .contents import Place
from .facts import Redaction, Replaced

PLACE, NAME = "/REDACTED", "REDACTED"
TEXTS = {".csv", ".err", ".json", ".jsonl", ".log", ".md", ".toml", ".txt", ".xml"}
# A path of at least two names; what follows a letter or a slash is part of an address or of another path.
PATH = re.compile(rb"(?:(?<![\w./])|(?<=file://))/(?:[\w.@+~\-]+/)+[\w.@+~\-]*")
SHORTEST = 3  # letters of a name that is looked for in texts


def make(
    campaign: Campaign, place: Place, payload: Mapping[str, Path], folder: Path, original_sha256: str
) -> tuple[Place, Redaction]:
    """Writes the copy below `folder`, and returns where it lies and what it has changed."""
    words = _words(campaign)
    changed: dict[str, Replaced] = {}
    for name, path in payload.items():
        target = folder / name
        files.make_folder(target.parent)
        before = reading.content(path, reading.OUTPUT) if path.suffix in TEXTS else None
        after = before if before is None else redacted(before, words)
        if before is None or after is None or after == before:
            shutil.copy2(path, target)
            continue
        files.write_atomic(target, after)
        changed[name] = {"original_sha256": files.sha256(before), "redacted_sha256": files.sha256(after)}
    return Place(folder, place.name), {"original_sha256": original_sha256, "files": changed}


def redacted(text: bytes, words: re.Pattern[bytes] | None) -> bytes:
    """Returns a text without its absolute paths, of which the last name stays, and without `words`."""
    without = PATH.sub(lambda match: PLACE.encode() + b"/" + match[0].rstrip(b"/").rpartition(b"/")[2], text)
    return words.sub(NAME.encode(), without) if words else without


def _words(campaign: Campaign) -> re.Pattern[bytes] | None:
    """Returns the names of host and user in the campaign's own records."""
    snapshot = files.read_or_empty(campaign.layout.preflight / "env_snapshot.json")
    environ = snapshot.get("env", {})
    named = {str(environ.get(key, "")) for key in ("USER", "LOGNAME", "HOSTNAME")} | {str(snapshot.get("hostname", ""))}
    words = sorted(word for word in named if len(word) >= SHORTEST)
    return re.compile(rb"\b(?:" + b"|".join(re.escape(word.encode()) for word in words) + rb")\b") if words else None
