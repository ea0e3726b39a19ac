"""A row of the resident engine that is preempted goes on with the episodes that are missing, in a second job.

The engine's part is played by a stand-in that records and resumes as the engine does.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import campaigns
import pytest
from campaigns import STANDIN, Made
from processes import wait_until
from resident_rows import ROW, ROWS, SETTINGS
from slurm_cluster import Cluster

from tracka.core import files
from tracka.engines import episode_lines
from tracka.execution import process

pytestmark = pytest.mark.slurm
SLURM = "\n[slurm]\ncpus = 1\nmemory_mib = 400\nlost_secs = 20\n"


@pytest.fixture
def made(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """The campaign after phases 1 and 2 of this host, whose rows run on the cluster."""
    made = campaigns.make(tmp_path / "campaign", ROWS, SETTINGS)
    for name, value in made.environ.items():
        monkeypatch.setenv(name, value)
    made.pass_preflight()
    made.layout.settings.write_text(f'launcher = "slurm"\n{SETTINGS}{SLURM}')
    real = process.python

    def python(module: str, *words: str) -> list[str]:
        is_engine = module == "tracka.engines.resident"
        return [sys.executable, str(STANDIN / "resident.py")] if is_engine else real(module, *words)

    monkeypatch.setattr(process, "python", python)
    return made


def played(made: Made, attempt: int) -> list[dict[str, object]]:
    return episode_lines.whole(made.layout.run(ROW).attempt(attempt).output / "episodes.jsonl")


def test_a_preempted_row_goes_on_by_episode(made: Made, cluster: Cluster) -> None:
    made.behave(**{ROW: ["hang:7", "ok"]})
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(made.run_row, ROW)
        wait_until(lambda: len(played(made, 1)) == 7 or result.done(), 120)
        cluster.ask("sbatch", "-p", "urgent", "-N2", "--exclusive", "--mem=0", "-o", "/dev/null", "--wrap", "sleep 4")
        assert result.result(240)["status"] == "pass"
    assert made.results(ROW) == [("fail", "preempted"), ("pass", None)]
    lines = played(made, 2)
    assert [line["attempt"] for line in lines if "attempt" in line] == [1] * 7 and len(lines) == 10
    jobs = [files.read_json(made.layout.run(ROW).attempt(number).manifest)["slurm"]["job_id"] for number in (1, 2)]
    assert len(set(jobs)) == 2 and made.evidence(ROW) == []
