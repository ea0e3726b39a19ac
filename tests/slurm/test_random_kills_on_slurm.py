"""Harness, daemons and steps are killed at random moments, and the table at the end is that of a host without Slurm."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest
from campaigns import REPOSITORY, Made
from processes import wait_for_the_end_of, wait_until
from slurm_cluster import NODES, Cluster
from soak import differences, table

from tracka.runs import row_state, run

pytestmark = pytest.mark.slurm
SAVE_SECS = 6  # within five seconds slurmctld saves which jobs have ended
NATURAL = ("crash", "invalid_result", None)  # what rows are told to end with
VICTIMS = ("harness", "harness", "step", "slurmctld", "slurmd")


@dataclass(frozen=True)
class Dose:
    """How many kills a test makes over how many rows."""

    seed: int
    kills: int
    words: Mapping[str, int]

    @property
    def rows(self) -> int:
        return sum(self.words.values())

    def matrix(self) -> list[str]:
        head = "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/fake,1"
        others = (f"row{row:02}_b2_e2,libero_object,2,2,cpu,7,egl,checkpoints/fake,1" for row in range(1, self.rows))
        return [head, *others]

    def behaviours(self) -> dict[str, Sequence[str]]:
        mixed = [word for word, count in self.words.items() for _ in range(count)]
        random.Random(self.seed).shuffle(mixed)
        names = (line.split(",")[0] for line in self.matrix())
        return {name: [word] for name, word in zip(names, mixed, strict=True)} | {"baseline_b1_e2": ["ok"]}


DOSES = [
    pytest.param(Dose(28, 3, {"slow:1": 4, "crash": 1}), marks=[pytest.mark.slow, pytest.mark.repeated]),
    pytest.param(Dose(20261130, 50, {"slow:1": 16, "slow:4": 4, "crash": 2, "short": 2}), marks=pytest.mark.slow),
]


def ended(made: Made) -> bool:
    """Returns whether every row has ended in the way that it is told to."""
    for row in made.spec.enabled:
        state, result = row_state.read(made.layout, row.run_id), run.read_result(made.layout, row.run_id)
        if (
            state is None
            or state["status"] not in ("pass", "fail")
            or result is None
            or result["reason"] not in NATURAL
        ):
            return False
    return True


def start(made: Made) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-m", "tracka", *made.sweep_words("--resume", "--max-parallel", "6")]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(words, cwd=REPOSITORY, stdin=quiet, stdout=quiet, stderr=quiet)


def kill(cluster: Cluster, harness: "subprocess.Popen[bytes]", chance: random.Random) -> str:
    """Kills something at random, starts a daemon again, and returns what it was."""
    victim = chance.choice(VICTIMS)
    if victim == "harness":
        harness.kill()
    elif victim == "step":
        candidates = sorted(pid for node in NODES for pid in cluster.of_node(node))
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(chance.choice(candidates), signal.SIGKILL)
    else:
        name = victim if victim == "slurmctld" else chance.choice(NODES)
        with contextlib.suppress(LookupError, OSError):
            cluster.kill(name)
        time.sleep(chance.uniform(0, 2))
        cluster.heal_daemons()
    return victim


def disturbed(made: Made, cluster: Cluster, chance: random.Random, kills: int) -> list[str]:
    """Sweeps until every row has ended, with at most `kills` kills; returns what was killed. Nothing is left then.

    A job may outlive a sweep that was killed, without a process, where slurmctld was killed when the job had just ended
    (`tracka.runs.unplayed_jobs`). The next sweep ends it.
    """
    killed: list[str] = []
    while not ended(made):
        harness = start(made)
        while harness.poll() is None and len(killed) < kills:
            time.sleep(chance.uniform(0.5, 6))
            if harness.poll() is None:
                killed.append(kill(cluster, harness, chance))
        harness.wait()
        cluster.heal_daemons()
        wait_until(lambda: cluster.programs() == [], 120)
    if cluster.jobs():
        start(made).wait()
    wait_for_the_end_of_jobs(cluster, killed)
    wait_for_the_end_of(made.root, 60)
    return killed


def wait_for_the_end_of_jobs(cluster: Cluster, killed: Sequence[str], seconds: float = 120) -> None:
    """Returns when no job is left. Raises AssertionError with the jobs left after `seconds`."""
    end = time.monotonic() + seconds
    while left := cluster.jobs():
        assert time.monotonic() < end, f"left {seconds} s after {killed[-3:]}: {left}"
        time.sleep(0.5)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dose", DOSES, ids=lambda dose: f"{dose.kills}_kills_seed_{dose.seed}")
def test_rows_disturbed_on_a_cluster_end_in_the_table_of_a_host(
    dose: Dose, on_slurm: Callable[..., Made], cluster: Cluster
) -> None:
    made = on_slurm(dose.matrix(), "wait_secs = 600\n", **dose.behaviours())
    local = [*made.sweep_words("--resume", "--max-parallel", "4", "--launcher", "local")]
    made.tracka(*local)
    expected = table(made)
    assert len(expected) == dose.rows
    killed: list[str] = []
    chance, rounds = random.Random(dose.seed), 0
    while len(killed) < dose.kills:
        time.sleep(
            SAVE_SECS
        )  # or a kill makes jobs of this round run again, for which the next one's sweeps do not look
        made.root.rename(made.root.with_name(f"round{rounds}"))
        made, rounds = on_slurm(dose.matrix(), "wait_secs = 600\n", **dose.behaviours()), rounds + 1
        killed += disturbed(made, cluster, chance, dose.kills - len(killed))
        assert differences(table(made), expected) == []
    print(f"{len(killed)} kills in {rounds} rounds of {dose.rows} rows: {sorted(killed)}")
