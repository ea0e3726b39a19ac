"""Helps tests that read the journals of the GPUs' leases."""

import json
from pathlib import Path


def overlaps(locks: Path) -> list[str]:
    """Returns what the leases' journals say of two rows on one GPU.

    The end of a lease is noted when nothing of its row is left.
    """
    found = []
    for journal in locks.glob("*.journal"):
        holder = None
        for line in map(json.loads, journal.read_text().splitlines()):
            starts, same = line["event"] == "start", (holder or line)["supervisor"] == line["supervisor"]
            if starts == (holder is not None) or not same:
                found.append(f"{journal.stem}: {holder} and {line}")
            holder = line if starts else None
    return found
