"""The parity gate as a user meets it: real lerobot-eval, real LIBERO, an honest engine and one that lies."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY, Made

from tracka.core import files
from tracka.core.files import Json
from tracka.engines import parity_certificate
from tracka.execution import environment
from tracka.gates import validate
from tracka.runs import parity, run

pytestmark = [
    pytest.mark.simulator,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.repeated,  # `make parity` and `make planted-engines`
    pytest.mark.timeout(1800),
]

ROWS = (
    "baseline_b1_e2,libero_object,1,2,cpu,7,egl,checkpoints/act,1",
    "wide_b2_e3,libero_object,2,3,cpu,7,egl,checkpoints/act,1",
)
SETTINGS = """
schema_version = 1
baseline = "baseline_b1_e2"
expected_gpus = 0
engine = "resident"

[build]
"checkpoints/act" = "tiny_act"

[lerobot_eval]
policy_type = "act"
n_action_steps = 5
task_ids = [0]
episode_length = 15
observation_height = 128
observation_width = 128

[rows.wide_b2_e3]
task_ids = [0, 1]
"""
HONEST = 'return np.asarray(transition[ACTION].to("cpu").numpy())'
NEGATED = 'return -np.asarray(transition[ACTION].to("cpu").numpy())'


@dataclass(frozen=True)
class Gated:
    """A campaign after phase 3 with the honest engine, and what pytest said."""

    made: Made
    said: str

    def certificates(self) -> dict[str, Json]:
        spec = self.made.spec
        host = run.load_host(spec.layout)
        rows = parity.rows_to_prove(spec)
        keys = {row.run_id: run.plan_row(spec, row, host).proof_key for row in rows}
        return {
            run_id: parity_certificate.read(parity_certificate.certificate_path(spec.layout, key), key)
            for run_id, key in keys.items()
        }


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    with campaigns.shared(tmp_path_factory.getbasetemp(), "gated") as folder:
        told = {"XDG_CACHE_HOME": str(folder / "cache"), "HF_HOME": environment.hf_home()}
        made = Made(folder / "campaign", told)
        if not made.root.exists():
            campaigns.make(made.root, ROWS, SETTINGS)
            campaigns.pass_preflight_of_real_rows(made)
            (folder / "gates.txt").write_text(made.pytest("-n0", "-m", "phase3").stdout)
        said = (folder / "gates.txt").read_text()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        yield Gated(made, said)


def test_an_honest_engine_is_proven_to_the_bit_in_each_way_in_which_rows_ask_it(gated: Gated) -> None:
    assert "phase3: pass" in gated.said, gated.said
    found = gated.certificates()
    assert {name: (each["batch_size"], each["tasks"], each["exact"]) for name, each in found.items()} == {
        "baseline_b1_e2": (1, [0], True),
        "wide_b2_e3": (2, [0, 1], True),
    }
    assert {name: each["compared"]["episodes"] for name, each in found.items()} == {
        "baseline_b1_e2": 2,
        "wide_b2_e3": 6,
    }
    assert {each["manner"] for each in found.values()} == {"mixing, a look a chunk"}
    assert found["wide_b2_e3"]["calls_of_several_tasks"] > 0


def test_its_certificate_is_judged_again_by_the_records_beside_it(gated: Gated, tmp_path: Path) -> None:
    moved = replace(gated.made, root=Path(shutil.copytree(gated.made.root, tmp_path / "campaign", symlinks=True)))
    assert [str(each) for each in validate.contract_findings(moved.spec, "phase3", "parity")] == []
    path = next(moved.layout.parity.glob("*/resident/episodes.jsonl"))
    path.write_text(path.read_text().replace('"steps": 15', '"steps": 14', 1))
    told = [each.what for each in validate.contract_findings(moved.spec, "phase3", "parity")]
    assert "resident/episodes.jsonl has changed since it was recorded" in told
    certificate = path.parent.parent / parity_certificate.NAME
    forged = files.read_json(certificate)
    forged["files"]["resident/episodes.jsonl"] = files.sha256_file(path)
    files.write_json(certificate, forged)
    told = [each.what for each in validate.contract_findings(moved.spec, "phase3", "parity")]
    assert any("does not match its records" in each for each in told)


def test_another_campaign_on_the_host_takes_the_certificates_over_without_playing(gated: Gated, tmp_path: Path) -> None:
    other = replace(gated.made, root=Path(shutil.copytree(gated.made.root, tmp_path / "campaign", symlinks=True)))
    shutil.rmtree(other.layout.parity)
    spec = other.spec
    host = run.load_host(spec.layout)
    assert all(parity.prove(spec, row, host)["exact"] for row in parity.rows_to_prove(spec))
    folders = {path.name for path in other.layout.parity.glob("*/*") if path.is_dir()}
    assert folders == {"reference", "resident"}  # no play has a folder of its own
    assert [str(each) for each in validate.contract_findings(spec, "phase3", "parity")] == []


def test_an_engine_that_returns_negated_actions_blocks_phase_3_and_says_so(gated: Gated, tmp_path: Path) -> None:
    code = tmp_path / "code"
    for name in ("tracka", "acceptance", "fixtures"):
        shutil.copytree(REPOSITORY / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pytest.ini"):
        shutil.copy(REPOSITORY / name, code / name)
    player = code / "tracka" / "engines" / "resident" / "player.py"
    assert HONEST in player.read_text()
    player.write_text(player.read_text().replace(HONEST, NEGATED))
    root = Path(shutil.copytree(gated.made.root, tmp_path / "campaign", symlinks=True))
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "acceptance", "-n0", "-m", "phase3", "--campaign", str(root)],
        cwd=code,
        env=environment.base() | gated.made.environ | {"PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1, ended.stdout
    assert "phase3: blocked" in ended.stdout
    assert "0 of 2 episodes are the same to the bit, and lerobot-eval repeats itself to the bit" in ended.stdout
    assert "libero_object task 0, episode 0: the action differs at step 0, by " in ended.stdout
    assert not files.read_json(next(path for path in root.glob("artifacts/parity/*/parity.json") if not good(path)))[
        "proven"
    ]


def good(path: Path) -> bool:
    return bool(files.read_json(path)["proven"])
