"""A real Slurm for the tests in this folder, one for all of them, and campaigns whose rows run on it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm_cluster
from campaigns import SETTINGS, Made
from slurm_cluster import Cluster

PATIENT = SETTINGS.replace("row_secs = 60", "row_secs = 900")  # a busy machine ends no row that plays for a minute
ON_SLURM = f'launcher = "slurm"\n{PATIENT}\n[slurm]\ncpus = 1\nmemory_mib = 200\nlost_secs = 5\n'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs a cluster where none can be started, and says why."""
    why = slurm_cluster.missing()
    for item in items:
        if why and item.get_closest_marker("slurm"):
            item.add_marker(pytest.mark.skip(reason=f"did not run: {why}"))


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Returns the cluster of this session."""
    with slurm_cluster.started(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Returns the cluster with two idle nodes; this process is in its network, as on a login node."""
    for name, value in shared_cluster.environ.items():
        monkeypatch.setenv(name, value)
    shared_cluster.heal_daemons()
    if shared_cluster.jobs() or not shared_cluster.is_idle():
        shared_cluster.heal()
    with shared_cluster.joined():
        yield shared_cluster


@pytest.fixture
def on_slurm(
    cluster: Cluster, prepared: Path, tmp_path: Path, make_campaign: Callable[..., Made]
) -> Callable[..., Made]:
    """Returns a function that makes a campaign of stand-ins whose rows run on the cluster, after phases 1 and 2.

    These were passed on this host, by another campaign of the same checkpoint.
    """

    def make(rows: list[str], more: str = "", **words: list[str]) -> Made:
        shutil.copytree(prepared, tmp_path / "campaign")
        made = make_campaign(rows, ON_SLURM + more)
        made.behave(**words)
        return made

    return make
