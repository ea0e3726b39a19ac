"""Says what a session healed: damaged files that it set aside, and rows whose files no longer showed their pass."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from ..campaign.campaign import Campaign
from ..campaign.layout import Layout
from ..core import damaged, files
from ..runs import row_state


def lines(campaign: Campaign, since: float) -> Iterator[str]:
    """Yields a line for each file set aside and each row run again since the moment `since`, in seconds since 1970."""
    layout = campaign.layout
    for path in _set_aside(layout, since):
        original = path.name.partition(damaged.MARK)[0]
        yield f"healed: {original} was damaged; it was made again, and the old one is {layout.relative(path)}"
    for row in campaign.enabled:
        if number := _attempt_without_evidence(layout, row.run_id, since):
            yield f"healed: {row.run_id} ran again, because the files of attempt {number} no longer showed its pass"


def _set_aside(layout: Layout, since: float) -> list[Path]:
    found = damaged.set_aside_since(layout.artifacts, since) if layout.artifacts.is_dir() else []
    pages = [path for page in layout.progress_pages for path in page.parent.glob(f"{page.name}{damaged.MARK}*")]
    return [*found, *(path for path in pages if path.lstat().st_ctime >= since)]


def _attempt_without_evidence(layout: Layout, run_id: str, since: float) -> int | None:
    """Returns the number of the attempt that had passed before the row ran again with the same inputs; else None.

    A row that ran again because its inputs changed had other inputs, so its hash differs.
    """
    marker = row_state.read(layout, run_id)
    moment = files.utc_text(since)
    for before, after in pairwise(marker["history"] if marker else ()):
        if (before["status"], after["status"]) == ("pass", "running") and after["at_utc"] >= moment:
            hashes = {_row_hash(layout, run_id, step["attempt"]) for step in (before, after)} - {None}
            return before["attempt"] if len(hashes) == 1 else None
    return None


def _row_hash(layout: Layout, run_id: str, number: int) -> str | None:
    found = files.read_or_empty(layout.run(run_id).attempt(number).manifest).get("row_hash")
    return found if isinstance(found, str) else None
