"""Each policy type of lerobot that can be built small: preflight, lerobot-eval, the resident engine's proof."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import campaigns
import pytest
from campaigns import REPOSITORY

from fixtures.policy_types import page, trial
from fixtures.policy_types.kinds import KINDS, LACKING, Kind
from fixtures.policy_types.trial import Line
from tracka.core.files import Json
from tracka.execution import environment

pytestmark = [
    pytest.mark.simulator,
    pytest.mark.slow,
    pytest.mark.repeated,
    pytest.mark.long,
    pytest.mark.timeout(1800),
]

REGISTERED = """
import json
import lerobot.policies.factory
from lerobot.configs import PreTrainedConfig
print(json.dumps(sorted(PreTrainedConfig.get_known_choices())))
"""
PAGE = REPOSITORY / "docs" / "policy-types.md"
EVERY = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@dataclass(frozen=True)
class Found:
    """What one campaign with a row of each kind left: preflight's report and a line of each kind."""

    report: Json
    lines: Sequence[Line]

    def of(self, kind: Kind) -> Line:
        return next(line for line in self.lines if line.kind == kind.name)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """The campaign, run once for all workers, with a cache of its own."""
    with campaigns.shared(tmp_path_factory.getbasetemp(), "policy_types") as folder:
        kept = folder / "found.json"
        if not kept.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("HF_HOME", environment.hf_home())
                patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
                trial.save_outcome(kept, *trial.play(folder))
        return Found(*trial.load_outcome(kept))


def test_preflight_passes_with_no_warning_but_those_that_the_campaign_means_to_have(found: Found) -> None:
    assert (found.report["status"], trial.unexpected_checks(found.report)) == ("pass", [])


@EVERY
def test_each_check_of_a_fresh_checkpoint_passes(found: Found, kind: Kind) -> None:
    checks = found.of(kind).checks
    names = {check["name"].split(":")[0] for check in checks}
    assert names >= {"policy_resolve", "weights", "safety", "imports", "statistics", "features", "device", "model"}
    assert [check for check in checks if check["status"] != "pass"] == []


@EVERY
def test_lerobot_eval_plays_a_row_of_it(found: Found, kind: Kind) -> None:
    line = found.of(kind)
    assert (line.result.get("status"), line.result.get("reason"), line.error) == ("pass", None, "")
    assert line.result["episodes"] == 1


@EVERY
def test_the_resident_engine_is_proven_to_the_bit_in_the_way_in_which_it_asks_it(found: Found, kind: Kind) -> None:
    certificate = found.of(kind).certificate
    assert (certificate["proven"], certificate["exact"], certificate["evidence"]) == (
        True,
        True,
        "1 of 1 episodes are the same to the bit: init state, observations, actions, reward, success and final state",
    )
    assert certificate["manner"] == kind.manner


def test_the_page_names_the_kinds_that_are_built_and_every_other_type_that_lerobot_registers() -> None:
    told = subprocess.run(
        [sys.executable, "-c", REGISTERED],
        env=environment.base() | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    registered = json.loads(told.stdout.splitlines()[-1])
    named = page.kinds_on_page(PAGE.read_text())
    built = {kind.type for kind in KINDS}
    assert named == {"built": [kind.name for kind in KINDS], "others": list(LACKING)}
    assert sorted(built | set(LACKING)) == registered and built.isdisjoint(LACKING)


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        folder = tmp_path / ".multi_task_dit.partial"
        command = [sys.executable, str(REPOSITORY / "fixtures" / "small_policy.py"), str(folder), "multi_task_dit"]
        subprocess.run(command, env=environment.base(), check=True, capture_output=True)
        made.append(campaigns.contents(folder))
        folder.rename(tmp_path / f"made{len(made)}")
    assert made[0] == made[1] and "clip-small/model.safetensors" in made[0]
