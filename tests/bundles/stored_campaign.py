"""The smoke campaign as a real session on the real simulator left it, in `tests/data/finished-smoke.tar.xz`.

The places of the machine in its files were replaced, and `forger.Forger.seal` made their hashes anew.
"""

import io
import lzma
import tarfile
from pathlib import Path

from campaigns import REPOSITORY
from forger import Forger

from tracka import new_campaign
from tracka.campaign.layout import Layout

STORED = REPOSITORY / "tests" / "data" / "finished-smoke.tar.xz"


def campaign_copy(folder: Path) -> Path:
    """Returns the folder of a copy of the campaign below `folder`, with tables and pages as this Track A makes them."""
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(STORED.read_bytes()))) as stored:
        stored.extractall(folder, filter="data")
    root = folder / "tasks" / "smoke-libero-object"
    new_campaign.write_schema(Layout(root))
    Forger(root).seal()
    return root
