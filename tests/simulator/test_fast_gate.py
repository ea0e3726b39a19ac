"""Fast mode as a user meets it: a campaign of a small SmolVLA through phases 3 to 5, in real simulators.

The policy has random weights, so it solves nothing: what its certificate can then show is the subject.
"""

import csv
import html
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import campaigns
import pytest
from campaigns import Made

from tracka.core import files
from tracka.core.files import Json
from tracka.engines import episode_lines
from tracka.execution import environment
from tracka.gates import validate
from tracka.runs import fast_parity

pytestmark = [pytest.mark.simulator, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3600)]

BASELINE, OTHER = "baseline_b1_e1", "other_b1_e1"
ROWS = (
    f"{BASELINE},libero_object,1,1,cpu,7,egl,checkpoints/smolvla,1",
    f"{OTHER},libero_object,1,1,cpu,8,egl,checkpoints/smolvla,1",
)
SETTINGS = f"""
schema_version = 1
baseline = "{BASELINE}"
expected_gpus = 0
engine = "resident"

[resident]
precision = "fast"
fast_episodes = 2
fast_margin = 0.1

[build]
"checkpoints/smolvla" = "small_policy smolvla"

[lerobot_eval]
policy_type = "smolvla"
task_ids = [0]
episode_length = 11
observation_height = 96
observation_width = 96
"""
NOTHING = "neither mode succeeds in any episode, so outcomes certify nothing and the first chunks alone do"
NO_FLOOR = "exact mode repeats its outcomes, so there is no noise floor to hold flips against"
LIMITS = pytest.mark.parametrize("limit", [NOTHING, NO_FLOOR])


@dataclass(frozen=True)
class Gated:
    """A campaign after phases 3, 4 and 5, and what pytest said in each."""

    made: Made
    said: dict[str, str]

    @property
    def certificates(self) -> list[Json]:
        """The certificates of the campaign, that of exact mode first."""
        read = [files.read_json(path) for path in self.made.layout.parity.glob("*/parity.json")]
        return sorted(read, key=lambda certificate: "fast" in certificate)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    with campaigns.shared(tmp_path_factory.getbasetemp(), "fast_gate") as folder:
        told = {"XDG_CACHE_HOME": str(folder / "cache"), "HF_HOME": environment.hf_home()}
        made = Made(folder / "campaign", told)
        if not made.root.exists():
            campaigns.make(made.root, ROWS, SETTINGS)
            campaigns.pass_preflight_of_real_rows(made)
            for phase in ("phase3", "phase4", "phase5"):
                (folder / f"{phase}.txt").write_text(made.pytest("-n0", "-m", phase).stdout)
        said = {path.stem: path.read_text() for path in folder.glob("phase?.txt")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        yield Gated(made, said)


def test_phases_3_to_5_pass(gated: Gated) -> None:
    for phase, said in gated.said.items():
        assert f"{phase}: pass" in said, said


def test_exact_mode_is_proven_to_the_bit_and_fast_mode_by_its_first_chunks(gated: Gated) -> None:
    exact, fast = gated.certificates
    assert (exact["proven"], exact["exact"]) == (True, True)
    assert (fast["proven"], fast["exact"], fast["compared"]["episodes"]) == (True, False, 2)
    record = fast["fast"]
    assert (record["exact_key"], record["answered"], record["margin"]) == (exact["key"], "fast", 0.1)
    assert 0 < record["mean"] < 2**-9 * record["size"]  # which are equal only if fast mode did not play
    assert "first chunks differ by" in fast["evidence"] and NOTHING in fast["evidence"] and NO_FLOOR in fast["evidence"]


def test_each_mode_has_played_the_gates_episodes_from_the_same_beginnings(gated: Gated) -> None:
    (folder,) = [path.parent for path in gated.made.layout.parity.glob("*/fast")]
    lines = {name: episode_lines.whole(folder / name / episode_lines.NAME) for name in fast_parity.MODES}
    assert {name: {line["precision"] for line in each} for name, each in lines.items()} == {
        fast_parity.EXACT: {"exact"},
        fast_parity.AGAIN: {"exact"},
        fast_parity.FAST: {"fast"},
    }
    # The lines are in the order in which the episodes ended.
    begun = {
        name: {(line["task"], line["episode"]): line["observations"]["0"] for line in each}
        for name, each in lines.items()
    }
    assert begun[fast_parity.EXACT] == begun[fast_parity.AGAIN] == begun[fast_parity.FAST]


@LIMITS
def test_what_the_certificate_does_not_show_is_a_caveat_on_the_terminal_of_phases_3_and_4(
    gated: Gated, limit: str
) -> None:
    for phase in ("phase3", "phase4"):
        assert limit in " ".join(gated.said[phase].split()), gated.said[phase]


@LIMITS
def test_and_a_caveat_of_the_results_and_of_the_page(gated: Gated, limit: str) -> None:
    caveats = gated.made.layout.results.read_text().split("## Caveats")[1]
    assert limit in " ".join(caveats.split())
    assert limit in html.unescape((gated.made.root / "report.html").read_text())


def test_every_artifact_names_the_engine_the_mode_that_was_asked_and_the_mode_that_answered(gated: Gated) -> None:
    layout = gated.made.layout
    lines = {line["run_id"]: line for line in csv.DictReader((layout.summary / "all_runs.csv").open())}
    for run_id in (BASELINE, OTHER):
        folder = layout.run(run_id)
        manifest, result = files.read_json(folder.manifest), files.read_json(folder.result)
        timings = files.read_json(folder.attempt(1).output / "timings.json")
        assert (manifest["engine"], result["precision"]) == ("resident (fast)", "fast")
        assert (lines[run_id]["engine"], lines[run_id]["precision"]) == ("resident (fast)", "fast")
        assert (timings["precision"], timings["fallbacks"], timings["fast"]["steps"]) == ("fast", [], ["attention"])
    assert "engine resident (fast)," in layout.results.read_text()


def test_the_evidence_stands_a_strict_validation_of_all_phases(gated: Gated) -> None:
    ended = gated.made.tracka("validate", "--phase", "all", "--strict", "--root", str(gated.made.root))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_record_of_the_gate_that_is_changed_afterwards_is_found(gated: Gated, tmp_path: Path) -> None:
    moved = replace(gated.made, root=Path(shutil.copytree(gated.made.root, tmp_path / "campaign", symlinks=True)))
    path = next(moved.layout.parity.glob("*/fast/episodes.jsonl"))
    path.write_text(path.read_text().replace('"precision": "fast"', '"precision": "exact"'))
    told = [each.what for each in validate.contract_findings(moved.spec, "phase3", "parity")]
    assert "fast/episodes.jsonl has changed since it was recorded" in told
