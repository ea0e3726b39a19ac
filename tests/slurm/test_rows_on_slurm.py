"""Rows run behind srun: as steps of an allocation, and as jobs from a login node."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from campaigns import REPOSITORY, Made
from processes import wait_until
from slurm_cluster import Cluster, in_allocation

from tracka.core import files

pytestmark = pytest.mark.slurm
ROWS = [
    "baseline_b1_e2,libero_object,1,2,0,7,egl,checkpoints/fake,1",
    *(f"row{number}_b1_e2,libero_object,1,2,3,7,egl,checkpoints/fake,1" for number in range(8)),
]


def sweep(made: Made, *more: str, allocation: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Runs `tracka sweep`, inside an allocation where its options are given."""
    words = [sys.executable, "-m", "tracka", *made.sweep_words(*more)]
    command = in_allocation(words, *allocation) if allocation else words
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def placements(made: Made) -> dict[str, tuple[str, str | None]]:
    """Returns run id -> the node and the GPU of each row's last attempt."""
    found = {}
    for row in made.spec.enabled:
        manifest = files.read_json(made.layout.run(row.run_id).manifest)
        found[row.run_id] = (manifest["slurm"]["node"], manifest["gpu_uuid"])
    return found


@pytest.mark.dose
def test_rows_of_an_allocation_run_as_steps_each_with_a_gpu_of_its_own(
    on_slurm: Callable[..., Made], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKA_PRETEND_GPUS", "8")
    made = on_slurm(ROWS, **{line.split(",")[0]: ["slow:3"] for line in ROWS[1:]})
    ended = sweep(made, "--max-parallel", "8", allocation=("-N1", "-n16", "--gres=gpu:8", "--mem=3000"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert set(made.statuses().values()) == {("pass", None)}
    wait_until(lambda: cluster.jobs() == [])  # Slurm completes an allocation after salloc's end
    assert os.environ["SLURM_CONF"]
    assert len(set(placements(made).values())) >= 8
