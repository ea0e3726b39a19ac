"""Measures what lies between two rows of one device: python -m benchmarks.handover [CAMPAIGN].

The times come from the files that the rows of a resident campaign have left, so any such campaign can be asked, of
whatever engine's settings and hosts. Without CAMPAIGN, the rows of the smoke campaign are played first, one after the
other by `tracka sweep` with one warm process, at most 20 control steps each. The program prints the stages of each
hand-over and their medians. The stages from `program ends` on are those in which no row has the device's process.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from fixtures import parity
from tracka.campaign import campaign as campaigns
from tracka.campaign.campaign import Campaign
from tracka.campaign.layout import RunFolder
from tracka.campaign.matrix import COLUMNS

SETTINGS = """
schema_version = 1
baseline = "row0"
expected_gpus = 0
engine = "resident"

[resident]
workers = 1
slots = 1

[build]
"checkpoints/act" = "tiny_act"

[lerobot_eval]
policy_type = "act"
task_ids = [0]
episode_length = 20
observation_height = 128
observation_width = 128
"""
ROWS = [f"row{number},libero_object,1,2,cpu,{number},egl,checkpoints/act,1" for number in range(5)]
STAGES = {
    "films": "from the last episode's end to the end of the row's results: the episodes to film are played again",
    "program ends, row judged": "the row's program and its supervisor end; the files are judged and hashed",
    "next row planned": "the row is closed, and held against its contracts; the next is dealt and planned",
    "program starts": "the supervisor, the row's program, and its question to the warm process",
    "flags read": "imports, flags and tasks, in the warm process",
    "policy": "the policy is kept, or loaded",
}


def main() -> int:
    """Prints the stages of each hand-over between two rows, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.handover", description=__doc__)
    parser.add_argument("campaign", type=Path, nargs="?")
    root = parser.parse_args().campaign
    with tempfile.TemporaryDirectory(prefix="tracka-bench-") as folder:
        found = list(hand_overs(campaigns.load(root or play(Path(folder)))))
    for names, stages in found:
        print(f"{names}: {sum(stages.values()):.2f} s, {words(stages)}", flush=True)
    if found:
        medians = {name: statistics.median(stages[name] for _, stages in found) for name in STAGES}
        waiting = statistics.median(sum(stages.values()) - stages["films"] for _, stages in found)
        print(f"median of {len(found)}: {words(medians)}; without films {waiting:.2f} s")
    print("\n".join(f"  {name}: {what}" for name, what in STAGES.items()))
    return 0 if found else 1


def words(stages: Mapping[str, float]) -> str:
    """Returns the stages with their seconds as text."""
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in stages.items())


def hand_overs(campaign: Campaign) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields two rows that a warm process played one after the other, and the seconds of each stage between them."""
    attempts = [
        folder
        for row in campaign.enabled
        for number in campaign.layout.run(row.run_id).numbers()
        if timings(folder := campaign.layout.run(row.run_id).attempt(number))
    ]
    for before, after in pairwise(sorted(attempts, key=lambda folder: (device(folder), began(folder)))):
        if device(before) == device(after) and timings(after)["evaluation"] == timings(before)["evaluation"] + 1:
            yield f"{name(before)} -> {name(after)}", stages_between(before, after)


def stages_between(before: RunFolder, after: RunFolder) -> dict[str, float]:
    """Returns the seconds of each stage from the last episode of `before` to the first environment step of `after`."""
    of_after = timings(after)["stages"]
    taken = changed(after.output / "timings.json") - of_after["total"]
    moments = [
        changed(before.output / "episodes.jsonl"),
        changed(before.output / "eval_info.json"),
        changed(before.result),
        began(after),
        taken,
        taken + of_after["import"],
        taken + of_after["import"] + of_after["load"],
    ]
    return {stage: end - start for stage, (start, end) in zip(STAGES, pairwise(moments), strict=True)}


def timings(folder: RunFolder) -> dict[str, dict[str, float]]:
    """Returns the timings of an attempt of the resident engine; an empty dict where it left none."""
    path = folder.output / "timings.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def device(folder: RunFolder) -> str:
    """Returns what names the warm process of an attempt: its GPU or, on the CPU, the number of the harness's worker."""
    manifest = json.loads(folder.manifest.read_text())
    return f"GPU {manifest['gpu_id']}" if manifest["gpu_id"] >= 0 else str(manifest["worker"])


def name(folder: RunFolder) -> str:
    """Returns the run id of an attempt."""
    return folder.path.parent.parent.name


def began(folder: RunFolder) -> float:
    """Returns when an attempt's program was about to start."""
    return changed(folder.path / "identity.json")


def changed(path: Path) -> float:
    """Returns when a file was last written."""
    return path.stat().st_mtime


def play(folder: Path) -> Path:
    """Plays the short rows in `folder`, and returns their campaign's folder. Raises SystemExit where one fails."""
    root = folder / "campaign"
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "campaign.toml").write_text(SETTINGS)
    (root / "configs" / "eval_matrix.csv").write_text("\n".join([",".join(COLUMNS), *ROWS, ""]))
    preflight = ("--task-suite", "libero_object", "--policy-path", "checkpoints/act", "--mujoco-gl", "egl")
    tracka(root, "discover", "--artifacts-dir", "artifacts/state")
    tracka(root, "preflight", *preflight, "--artifacts-dir", "artifacts/preflight")
    places = ("--artifacts-root", "artifacts/runs", "--status-dir", "artifacts/state/rows")
    tracka(root, "sweep", "--matrix", "configs/eval_matrix.csv", *places, "--max-parallel", "1")
    return root


def tracka(root: Path, *words: str) -> None:
    """Runs a command in the campaign's folder. Raises SystemExit where it fails."""
    command = [sys.executable, "-m", "tracka", *words]
    ended = subprocess.run(command, cwd=root, env=parity.environ(), capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"error: tracka {words[0]} failed:\n{ended.stdout}{ended.stderr}")


if __name__ == "__main__":
    sys.exit(main())
