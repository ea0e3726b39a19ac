"""The batch script: bash and sbatch accept it, it takes no secret along, and it says what cannot fit."""

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest
from campaigns import REPOSITORY, SETTINGS, Made
from processes import wait_until
from slurm_cluster import Cluster

from tracka import slurm_script
from tracka.core.errors import UsageError

ROWS = [
    "baseline_b1_e2,libero_object,1,2,auto,7,egl,checkpoints/fake,1",
    "wide_b4_e4,libero_object,4,4,auto,7,egl,checkpoints/fake,1",
]
TABLE = '\n[slurm]\npartition = "two"\ngres = "gpu:1"\nmemory_mib = 200\n'


@pytest.fixture
def campaign(make_campaign: Callable[..., Made]) -> Made:
    return make_campaign(ROWS, SETTINGS.replace("expected_gpus = 0", "expected_gpus = 8") + TABLE)


def test_bash_accepts_the_script_and_its_resources_are_those_of_all_rows_at_once(campaign: Made) -> None:
    told = campaign.call("slurm-script", str(campaign.root), "--at-once", "6", "--nodes", "2")
    assert told.returncode == 0, told.stderr
    checked = subprocess.run(["bash", "-n"], input=told.stdout, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    options = [line.removeprefix("#SBATCH ") for line in told.stdout.splitlines() if line.startswith("#SBATCH ")]
    asked = ["--partition=two", "--nodes=2", "--ntasks-per-node=3", "--cpus-per-task=5", "--gres=gpu:3", "--time=720"]
    assert set(asked) <= set(options) and "--requeue" in options and f"--mem={3 * 200 + 1024 + 6 * 80}M" in options
    assert f"exec {sys.executable} -m pytest" in told.stdout and "-n 6" in told.stdout


def test_the_settings_and_the_command_of_the_page_are_right_as_they_stand(campaign: Made) -> None:
    page = (REPOSITORY / "docs" / "slurm.md").read_text()
    (table,) = re.findall(r"^ *```toml\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    launcher, _, rest = textwrap.dedent(table.replace("   launcher", "launcher", 1)).partition("\n")
    settings = campaign.layout.settings.read_text().partition("[slurm]")[0]
    campaign.layout.settings.write_text(f"{launcher}\n{settings}{textwrap.dedent(rest)}")
    assert campaign.spec.is_on_slurm and campaign.spec.slurm.gres == "gpu:1" and campaign.spec.slurm.cpus == 12
    (line,) = re.findall(r"^tracka (slurm-script .*) > my-policy.sbatch$", page, re.MULTILINE)
    told = campaign.call(*line.replace("tasks/my-policy", str(campaign.root)).split())
    assert told.returncode == 0 and "#SBATCH --time=240" in told.stdout, told.stderr
    (gates,) = re.findall(r"^pytest (acceptance --campaign my-policy -n 32)$", page, re.MULTILINE)
    assert gates  # as tests/slurm/test_workers_on_slurm.py runs them


def test_a_job_takes_no_secret_along(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SLURM_JWT", "MY_PASSWORD"):
        monkeypatch.setenv(name, "hunter2")
    text = slurm_script.text(campaign.spec, 2, 1, 60)
    assert "hunter2" not in text and "TOKEN" not in text and "SECRET" not in text and "JWT" not in text
    assert "PATH" in slurm_script.exported()


@pytest.mark.parametrize(
    ("at_once", "nodes", "minutes", "said"),
    [(3, 2, 60, "cannot be spread evenly over 2 nodes"), (2, 1, 1, "the allocation ends after 60 s")],
)
def test_what_cannot_fit_is_refused(campaign: Made, at_once: int, nodes: int, minutes: int, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        slurm_script.text(campaign.spec, at_once, nodes, minutes)


@pytest.mark.slurm
def test_the_cluster_would_take_the_script(campaign: Made, cluster: Cluster) -> None:
    script = campaign.root / "job.sbatch"
    script.write_text(slurm_script.text(campaign.spec, 4, 2, 60))
    ended = subprocess.run(["sbatch", "--test-only", str(script)], capture_output=True, text=True)
    assert ended.returncode == 0 and "to start at" in ended.stderr, ended.stderr


@pytest.mark.slurm
@pytest.mark.slow
def test_a_submitted_script_is_requeued_by_a_preemption_and_accepts_its_campaign(
    campaign: Made, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way of a user: sbatch, a node that is taken away, a second start, a verdict."""
    monkeypatch.setenv("TRACKA_PRETEND_GPUS", "8")
    campaign.behave(wide_b4_e4=["slow:25", "ok:4"])
    script, log = campaign.root / "job.sbatch", campaign.root / "job.log"
    campaign.layout.settings.write_text(campaign.layout.settings.read_text().replace("= 200", "= 1800"))
    text = slurm_script.text(campaign.spec, 2, 1, 60)
    script.write_text(text.replace("--export=", "--export=TRACKA_STANDIN,PYTHONPATH,XDG_CACHE_HOME,"))
    number = cluster.ask("sbatch", "--parsable", f"--output={log}", str(script)).strip()
    wait_until(lambda: "wide_b4_e4" in campaign.started() or not cluster.jobs(), 240)
    assert cluster.jobs(), log.read_text()
    cluster.ask("sbatch", "-p", "urgent", "-N2", "--exclusive", "--mem=0", "-o", "/dev/null", "--wrap", "sleep 5")
    wait_until(lambda: not cluster.jobs(), 400)
    *_, last_session = log.read_text().split(" test session starts ")
    assert "verdict:" in last_session and "not accepted" not in last_session, log.read_text()
    assert int(cluster.ask("scontrol", "-o", "show", "job", number).partition("Restarts=")[2].split()[0]) == 1
