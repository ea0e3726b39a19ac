"""Certificates that the resident engine plays the reference's episodes: on this host, with this checkpoint.

Guarantees: a certificate stands for the checkpoint's content, the host, the versions, the settings and the engine that
it was made with, and for nothing else; a damaged one counts as none.
"""

from pathlib import Path

from . import files, schema
from .files import Json
from .layout import Layout

ENGINE_VERSION = 1  # of the resident engine: raised where its episodes could come out otherwise


def path(layout: Layout, key: str) -> Path:
    """The certificate of what `key` stands for."""
    return layout.parity / key[:16] / "parity.json"


def key(identity: Json) -> str:
    """The hash of all that a certificate holds for."""
    return files.sha256(files.canonical({"engine_version": ENGINE_VERSION, **identity}))


def unproven(layout: Layout, wanted: str) -> str | None:
    """Why the resident engine's results are not proven yet; None if they are."""
    found = schema.read_or_empty("parity", path(layout, wanted))
    if found.get("key") != wanted:
        return "no parity run on this host with this checkpoint, software and settings"
    return None if found["proven"] and found["episodes"] else f"the parity run failed: {found['evidence']}"


def played(path: Path) -> bool:
    """Whether both engines played their episodes, so that the certificate in the file `path` compares them."""
    return bool(schema.read_or_empty("parity", path).get("episodes"))
