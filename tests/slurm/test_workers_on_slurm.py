"""A worker of xdist that waits for a cluster takes little memory: there is one a job."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest
from campaigns import REPOSITORY, Made
from processes import wait_until
from slurm_cluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
MOST_MIB = 80
ROWS = [
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1",
    *(f"row{number}_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1" for number in range(3)),
]


def test_a_waiting_worker_takes_little_memory_and_the_session_is_accepted(
    on_slurm: Callable[..., Made], cluster: Cluster
) -> None:
    """All gates, from the preflight of both nodes to the verdict, with jobs of their own."""
    made = on_slurm(ROWS, **{line.split(",")[0]: ["slow:20"] for line in ROWS[1:]})
    settings = made.layout.settings
    settings.write_text(settings.read_text().replace("memory_mib = 200", "memory_mib = 1200"))
    words = [
        sys.executable,
        "-m",
        "pytest",
        "acceptance",
        "--campaign",
        str(made.root),
        "-n",
        "3",
        "-p",
        "no:cacheprovider",
    ]
    with (made.root / "gates.txt").open("w") as out:
        session = subprocess.Popen(words, cwd=REPOSITORY, env=dict(os.environ), stdout=out, stderr=subprocess.STDOUT)
    wait_until(lambda: len(set(made.started())) == 4 or session.poll() is not None, 240)
    time.sleep(3)
    workers = [
        child for child in psutil.Process(session.pid).children() if "exec(eval(sys.stdin" in " ".join(child.cmdline())
    ]
    sizes = [child.memory_full_info().uss >> 20 for child in workers]
    assert session.wait(240) == 0, (made.root / "gates.txt").read_text()
    print(f"workers: {sizes} MiB")
    assert len(sizes) == 3 and max(sizes) <= MOST_MIB
    assert "verdict: complete" in (made.root / "gates.txt").read_text()
