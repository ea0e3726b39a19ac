"""The smoke campaign with the real lerobot and LIBERO, on a cluster's nodes: the same known answers as on a host."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from campaigns import REPOSITORY
from slurm_cluster import Cluster

from tracka.campaign.layout import Layout
from tracka.core import files

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.simulator, pytest.mark.long]
SMOKE = REPOSITORY / "tasks" / "smoke-libero-object"
TABLE = '\n[slurm]\npartition = "one"\ncpus = 2\nmemory_mib = 9000\n'


@pytest.mark.timeout(3000)
def test_the_smoke_campaign_is_accepted_with_its_known_answers_and_cores_of_slurm(
    cluster: Cluster, tmp_path: Path
) -> None:
    root = tmp_path / "smoke"
    shutil.copytree(SMOKE / "configs", root / "configs")
    layout = Layout(root)
    settings = layout.settings.read_text().replace("probe_secs = 300", "probe_secs = 900")
    layout.settings.write_text(settings + TABLE)
    words = [
        "-m",
        "pytest",
        "acceptance",
        "--campaign",
        str(root),
        "--launcher",
        "slurm",
        "-n0",
        "-p",
        "no:cacheprovider",
    ]
    ended = subprocess.run([sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr
    assert "verdict: accepted" in ended.stdout
    manifests = [files.read_json(path) for path in sorted(layout.runs.glob("*/run_manifest.json"))]
    assert manifests and all(manifest["slurm"]["node"].startswith("node") for manifest in manifests)
    assert all(manifest["gpu_id"] == -1 and manifest["slurm"]["gpu"] is None for manifest in manifests)
    assert cluster.jobs() == []
