"""Proposes a smaller batch where a host is short of memory or cores; the proposal is applied only on request.

Guarantees: a proposed batch divides the row's episodes and is never larger than the row's own. Applying it changes the
batch_size cells of those rows and no other byte of the matrix.
"""

import csv
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..campaign import campaign as campaigns
from ..campaign.campaign import Campaign
from ..campaign.matrix import Row
from ..checkpoints import hub_dependencies
from ..core import reading
from ..core.check import Check, advisory_check
from ..core.errors import Finding, UsageError, joined_names
from . import host

# Measured: lerobot-eval with 5 asynchronous LIBERO environments takes 12.9 GB, 2.2 GB of it for each environment.
SLOT_MB, BASE_MB = 2200, 1900
RESIDENT_SLOT_MB = 700  # measured with Mesa: an environment slot of the resident engine, whose slots share imports
CELL = r'(?:"(?:[^"]|"")*"|[^,"\r\n]*)'


@dataclass(frozen=True)
class Room:
    """What a host has free: memory, disk and GPU memory in MB, and cores. `gpu` is None where it is not known."""

    memory: int
    disk: int
    cores: int
    gpu: int | None = None


def measure(folder: Path, gpu: int | None = None) -> Room:
    """Returns what this host has free, for artifacts below `folder`."""
    existing_folder = next(place for place in (folder, *folder.parents) if place.exists())
    cores = len(os.sched_getaffinity(0))
    return Room(_memory(), shutil.disk_usage(existing_folder).free // 10**6, cores, gpu)


def _memory() -> int:
    """Returns the MB of memory that are available without swapping."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(match[1]) * 1024 // 10**6 if match else 0


def smaller_batches(campaign: Campaign, room: Room, at_once: int | None = None) -> dict[str, int]:
    """Returns run id -> a smaller batch that fits, for the enabled rows whose own batch does not.

    `at_once` rows run at a time; by default one row for each expected GPU.
    """
    rows = at_once or _parallel_rows(campaign)
    limit = _slots(campaign, room, rows)
    if not campaign.is_resident:
        limit = max(1, min(limit, room.cores // rows))  # an environment needs a core (lerobot/configs/default.py)
    batches = {row.run_id: _divisor(row, limit) for row in campaign.enabled}
    return {row.run_id: batches[row.run_id] for row in campaign.enabled if batches[row.run_id] < row.batch_size}


def _parallel_rows(campaign: Campaign) -> int:
    return max(1, min(campaign.expected_gpus, len(campaign.enabled)))


def _slots(campaign: Campaign, room: Room, rows: int) -> int:
    """Returns for how many environments of each of `rows` rows there is memory, at least 1."""
    return max(1, (room.memory // rows - BASE_MB) // (RESIDENT_SLOT_MB if campaign.is_resident else SLOT_MB))


def slots(campaign: Campaign, room: Room) -> int | None:
    """Returns the largest number of [resident] environment slots that fits, where the campaign's own does not.

    Without a number in the campaign, its largest batch decides. Returns None where that fits, and for lerobot-eval.
    """
    rows = _parallel_rows(campaign)
    workers = int(campaign.resident.get("workers", max(1, room.cores // rows)))
    largest = max((row.batch_size for row in campaign.enabled), default=1)
    requested_slots = int(campaign.resident.get("slots", campaigns.slots(workers, largest)))
    limit = _slots(campaign, room, rows)
    return limit if campaign.is_resident and requested_slots > limit else None


def _divisor(row: Row, limit: int) -> int:
    """Returns the row's batch if it fits, else the largest batch that fits and divides the row's episodes."""
    if row.played_batch <= limit:
        return row.batch_size
    return max(size for size in range(1, limit + 1) if row.n_episodes % size == 0)


def disk(campaign: Campaign) -> int:
    """Returns the MB that the artifacts of all enabled rows take."""
    return (host.artifacts_mib(campaign) << 20) // 10**6


def weights(campaign: Campaign) -> int:
    """Returns the MB of the largest weights in a folder on this host: the least that a GPU must hold."""
    folders = {(campaign.layout.root / row.policy_path) for row in campaign.enabled}
    bases = {campaign.layout.root / base.name for folder in folders if (base := hub_dependencies.adapter_base(folder))}
    sizes = [path.stat().st_size for folder in folders | bases if (path := folder / "model.safetensors").is_file()]
    return max(sizes, default=0) // 10**6


def check(campaign: Campaign, room: Room) -> Check:
    """Returns the check `proposal`: whether the rows fit this host. It warns with what would fit."""
    smaller, needed_mb, weights_mb = smaller_batches(campaign, room), disk(campaign), weights(campaign)
    batch_texts = [f"{run_id}: batch_size {size}" for run_id, size in smaller.items()]
    shortages = [joined_names(batch_texts)] if batch_texts else []
    if (slot_count := slots(campaign, room)) is not None:
        shortages.append(f"[resident] slots = {slot_count} in campaign.toml")
    if needed_mb > room.disk:
        shortages.append(f"artifacts take about {needed_mb} MB, but only {room.disk} MB are free")
    if room.gpu is not None and weights_mb > room.gpu:
        shortages.append(
            f"the weights take {weights_mb} MB, but a GPU has only {room.gpu} MB free: no batch is small enough"
        )
    facts = f"{room.memory} MB of memory, {room.cores} cores, {room.disk} MB of disk"
    remedy = "Run `tracka propose --root DIR --apply` before the first row, or free what is used up"
    return advisory_check("proposal", not shortages, "; ".join([*shortages, facts]), remedy)


def apply(campaign: Campaign, smaller: dict[str, int]) -> None:
    """Writes the proposed batches into the matrix.

    Raises UsageError, and writes nothing, where a row's cell cannot be changed alone.
    """
    path = campaign.layout.matrix
    lines = reading.text(path, reading.MATRIX, newline="").splitlines(keepends=True)
    for run_id, size in smaller.items():
        number = campaign.row(run_id).line - 1
        lines[number] = _with_batch_size(str(path), lines[number], run_id, size)
    path.write_bytes("".join(lines).encode("utf-8"))  # written in place, so that the file's owner and mode stay


def _with_batch_size(where: str, line: str, run_id: str, size: int) -> str:
    """Returns the line with `size` in its third cell. Raises UsageError where the line has not nine plain cells."""
    new_line = re.sub(f"^({CELL},{CELL},){CELL}", lambda match: f"{match[1]}{size}", line, count=1)
    cells, new_cells = next(csv.reader([line]), []), next(csv.reader([new_line]), [])
    if cells[:1] != [run_id] or new_cells != [*cells[:2], str(size), *cells[3:]]:
        raise UsageError(
            Finding(
                f"{where}, row {run_id}", "the line does not have nine plain cells", f"Set its batch_size to {size}"
            )
        )
    return new_line
