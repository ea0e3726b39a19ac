"""Policies that misbehave, in the real lerobot-eval and the real LIBERO: each fails under a name of its own."""

import csv
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import campaigns
import pytest
from campaigns import Made

from tracka.core import files
from tracka.core.files import Json

pytestmark = pytest.mark.simulator

LOG_MIB = 4
REASONS = {"nan": "bad_action", "exception": "crash", "sleep": "timeout", "memory": "oom", "flood": "flood"}
MESSAGES = {
    "nan": "not a number",
    "exception": "ValueError: this policy fails at control step 3",
    "sleep": "so Track A ended it",
    "memory": "can't allocate memory",
}
SLOW, DOSE, REPEATED = pytest.mark.slow, pytest.mark.dose, pytest.mark.repeated
FAULTS = [
    pytest.param(("nan",), marks=[SLOW, DOSE]),
    pytest.param(tuple(REASONS), marks=[SLOW, pytest.mark.long, REPEATED]),
]
SETTINGS = f"""
schema_version = 1
baseline = "baseline_b1_e1"
expected_gpus = 0

[build]
"checkpoints/nothing" = "replay none"
BUILDERS

[lerobot_eval]
policy_type = "faulty"
task_ids = [0]
episode_length = 10
observation_height = 64
observation_width = 64

[rows.baseline_b1_e1]
policy_type = "replay"

[timeouts]
row_secs = 600
grace_secs = 2

[limits]
log_mib = {LOG_MIB}

[known_answers.baseline_b1_e1]
0 = []
"""


def campaign_of(root: Path, faults: Sequence[str]) -> Made:
    """A campaign of a policy that does nothing and one for each of these faults."""
    rows = (f"{fault},libero_object,1,1,cpu,7,egl,checkpoints/{fault},1" for fault in faults)
    builders = "\n".join(f'"checkpoints/{fault}" = "faulty {fault} 3"' for fault in faults)
    patience = "[rows.sleep]\ntimeout_secs = 60\n" if "sleep" in faults else ""
    baseline = "baseline_b1_e1,libero_object,1,1,cpu,7,egl,checkpoints/nothing,1"
    settings = SETTINGS.replace("BUILDERS", builders) + patience
    return Made(campaigns.make(root, (baseline, *rows), settings).root, {})


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("faults", FAULTS, ids=["one", "all"])
def test_a_policy_that_misbehaves_fails_by_name_everywhere_and_one_that_does_nothing_passes(
    faults: tuple[str, ...], tmp_path: Path
) -> None:
    """One test, since the workers of a parallel run share no campaign."""
    made = campaign_of(tmp_path / "campaign", faults)
    campaigns.pass_preflight_of_real_rows(made)
    done = made.pytest("-n", "2", "-m", "phase3 or phase4", f"--junitxml={tmp_path / 'junit.xml'}")
    assert done.returncode == 1, done.stdout
    assert outcome(made, "baseline_b1_e1") == {"status": "pass", "reason": None}
    with (made.layout.summary / "failures.csv").open(newline="") as file:
        told = {line["run_id"]: line["reason"] for line in csv.DictReader(file)}
    assert told == {fault: REASONS[fault] for fault in faults}
    for fault in faults:
        assert outcome(made, fault) == {"status": "fail", "reason": REASONS[fault]}
        assert junit(tmp_path / "junit.xml", fault) == REASONS[fault]
    assert "flood" not in faults or made.layout.run("flood").stdout.stat().st_size > LOG_MIB << 20


def outcome(made: Made, run_id: str) -> Json:
    """How a run ended by its manifest, which marker and result must repeat, with the message of its fault."""
    folder, marker = made.layout.run(run_id), files.read_json(made.layout.marker(run_id))
    told = files.read_json(folder.manifest)["outcome"]
    result = files.read_json(folder.result)
    assert [(item["status"], item["reason"]) for item in (marker, result)] == [(told["status"], told["reason"])] * 2
    message = MESSAGES.get(run_id, "")
    assert message in marker["notes"] and message in (result["error_message"] or "")
    return told


def junit(path: Path, run_id: str) -> str | None:
    """The reason that the JUnit report gives for a row, whose test must have failed."""
    for case in ElementTree.parse(path).iter("testcase"):
        told = {item.get("name"): item.get("value") for item in case.iter("property")}
        if told.get("run_id") == run_id:
            assert case.find("failure") is not None
            return told["reason"]
    raise LookupError(run_id)
