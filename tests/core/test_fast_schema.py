"""The sieve: it agrees with jsonschema on sound artifacts and on broken ones, so that nothing broken slips through."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from campaigns import REPOSITORY, Made

from tracka.campaign.verdict_settings import VerdictSettings
from tracka.core import files, schema
from tracka.core.artifacts import FastRecord
from tracka.core.baselines import PlayedRow
from tracka.core.fast_schema import sieve
from tracka.core.files import Json
from tracka.engines import parity_certificate
from tracka.reporting import baseline_file, campaign_verdict, comparison_report, played_episodes
from tracka.runs import identity, parity, preregistration, run

NAMES = {path.name.partition(".")[0] for path in (REPOSITORY / "tracka" / "core" / "schemas").glob("*.json")}
OTHERS = (
    None,
    True,
    False,
    0,
    1,
    -1,
    1.0,
    2.5,
    float("nan"),
    "",
    "x",
    "pass\n",
    [],
    ["x"],
    [1, 1.0],
    [True],
    {},
    {"x": 1},
)
FAST_SETTINGS = {"precision": "fast", "fast_episodes": 60, "fast_margin": 0.03}
CAMPAIGN = {
    "schema_version": 1,
    "title": "All that a campaign may say",
    "baseline": "baseline_b1_e2",
    "engine": "resident",
    "resident": {"workers": 2, "slots": 4, "noise": "episode", "videos": 1, "compile": False, **FAST_SETTINGS},
    "expected_gpus": 1,
    "executable": ["eval"],
    "lerobot_eval": {"policy_type": "act", "rename_map": {"a": "b"}, "use_async_envs": False, "flags": {"eval.x": 1}},
    "rows": {"row": {"task_ids": [0, 1], "timeout_secs": 5}},
    "timeouts": {"row_secs": 1, "grace_secs": 60},
    "thresholds": {"min_success_rate": 0.5, "rows": {"row": 1}},
    "verdict": {"confidence": 0.9, "threshold": 0.5, "tasks": {"libero_object/3": 0.7}, "early": "both"},
    "build": {"folder": "tiny_act 1"},
    "known_answers": {"row": {"0": [1, 2]}},
    "limits": {"log_mib": 1},
    "tiers": {"smoke": {"rows": ["row"], "episodes": 5, "budget_minutes": 0.5, "verdict": {"threshold": 0.5}}},
    "egl": {"cuda_to_egl": {"0": 1}},
    "report": {"videos": "failures"},
}

PLAYED_ROW: PlayedRow = {
    "run_id": "row",
    "row_hash": "0" * 64,
    "policy_path": "org/policy",
    "checkpoint_sha256": "1" * 64,
    "engine": "lerobot-eval",
    "simulator": "egl",
    "batch_size": 1,
    "software_sha256": None,
    "versions": {"lerobot": "0.6.1"},
}


def artifacts(made: Made) -> Iterator[tuple[str, Json]]:
    """Schema and content of what a campaign leaves: a run that passed, one that failed, and the host's part."""
    layout = made.layout
    made.behave(long_b1_e6=["crash"])
    for run_id in ("baseline_b1_e2", "long_b1_e6"):
        made.run_row(run_id)
        yield "run_manifest", files.read_json(layout.run(run_id).manifest)
        yield "result", files.read_json(layout.run(run_id).result)
        yield "row_marker", files.read_json(layout.marker(run_id))
    parts = files.read_json(layout.run("baseline_b1_e2").attempt(1).path / identity.NAME)
    yield "identity", parts | {"packages": {"torch": "2.11.0"}, "code": {"lerobot": "0" * 64}}
    for name, path in (
        ("cli_capabilities", layout.capabilities),
        ("preflight", layout.preflight_report),
        ("env_snapshot", layout.preflight / "env_snapshot.json"),
        ("handoff", layout.handoff("phase1")),
    ):
        yield name, files.read_json(path)
    yield "campaign", CAMPAIGN
    info = layout.run("baseline_b1_e2").attempt(1).output / "eval_info.json"
    yield "comparison", dict(comparison_report.compare(info, info, margin=0.05))
    side = replace(played_episodes.read(info), rows=(PLAYED_ROW,))
    yield "baseline", dict(baseline_file.make(side, "made", made.root))
    spec = made.spec
    demanding = replace(spec, verdict=VerdictSettings(threshold=0.5, baseline=str(info), margin=0.05))
    preregistration.ensure(demanding)
    yield "preregistration", files.read_json(layout.preregistration)
    yield "verdict", dict(campaign_verdict.make(demanding))
    yield "early_stop", EARLY_STOP
    yield "resumed", RESUMED
    yield "step", STEP
    yield "replay", REPLAY
    yield "doctor", DOCTOR
    yield "bundle", BUNDLE
    plan = run.plan_row(spec, spec.row("baseline_b1_e2"), run.load_host(layout))
    numbers = parity_certificate.comparison_counts(parity.NOTHING)
    for again in (None, numbers):
        judged = {"compared": numbers, "repeated": again, "differing": ["episode 0: the action differs"]}
        yield "parity", parity.certificate(plan, judged, {"fallbacks": ["no"]}, {"resident": 1.5}, {"a.npy": "0" * 64})
    yield "parity", parity.certificate(plan, judged, {"fallbacks": []}, {}, {"a.npy": "0" * 64}, FAST)


FAST: FastRecord = {
    "exact_key": "0" * 64,
    "exact_proven": True,
    "exact_evidence": "the same to the bit",
    "type": "bfloat16",
    "margin": 0.05,
    "answered": "fast and exact",
    **dict.fromkeys(("gains", "losses", "noise_flips", "noise_alone", "flips_alone"), 1),  # type: ignore[typeddict-item]
    "mean": 0.002,
    "largest": 0.01,
    "size": 0.95,
}
RESUMED = {
    "schema_version": 1,
    "run_id": "row",
    "attempt": 2,
    "row_hash": "0" * 64,
    "attempts": [{"attempt": 1, "files": {"eval/episodes.jsonl": "1" * 64}}],
    "episodes": [{"task": 3, "episode": 0, "attempt": 1}],
}
STEP = {
    "schema_version": 1,
    "node": "node1",
    "job_id": "7",
    "step_id": "0",
    "restarts": 0,
    "gpu": "0",
    "gpu_uuid": "GPU-0",
    "variables": {"CUDA_VISIBLE_DEVICES": "0"},
    "started_at": 1764500000.5,
    "end": {"code": 0, "stopped": "", "seconds": 3.5, "files": {"eval_info.json": 900}},
}
DOCTOR = {
    "schema_version": 1,
    "generated_at_utc": "2026-11-30T13:40:00Z",
    "tracka_version": "0.2.0",
    "status": "warning",
    "checks": [
        {
            "name": "gpus",
            "status": "warning",
            "required": False,
            "evidence": "no GPU is visible",
            "remedy": "Install NVIDIA's driver",
            "seconds": 0.25,
        }
    ],
    "seconds": 2.5,
}
BUNDLE = {
    "schema_version": 1,
    "tracka_version": "0.2.0",
    "campaign": "tasks/made",
    "tier": None,
    "left_out": {"tasks/made/artifacts/runs/row/attempts/1/eval/videos/libero_object_0/eval_episode_0.mp4": "0" * 64},
    "checkpoints": {"org/policy": {"tree_sha256": "1" * 64, "files": {"config.json": "2" * 64}}},
    "redaction": {
        "original_sha256": "3" * 64,
        "files": {"tasks/made/plan.md": {"original_sha256": "4" * 64, "redacted_sha256": "5" * 64}},
    },
}
OUTCOME = {"success": True, "steps": 74, "first_state_sha": "2" * 64, "final_state_sha": "3" * 64}
REPLAY = {
    "schema_version": 1,
    "run_id": "row",
    "attempt": 1,
    "suite": "libero_object",
    "task": 3,
    "episode": 0,
    "actions_sha": "0" * 64,
    "recorded": OUTCOME,
    "played": OUTCOME,
    "same_outcome": True,
    "same_bits": True,
    "film": "replays/_episodes/row/libero_object_3/replay_of_episode_0.mp4",
    "film_sha256": "1" * 64,
    "played_at_utc": "2026-11-29T17:00:00Z",
    "versions": {"mujoco": "3.3.7"},
}
EARLY_STOP = {
    "schema_version": 1,
    "decided_at_utc": "2026-11-29T17:00:00Z",
    "claims_sha256": "0" * 64,
    "outcome": "fail",
    "rule": "evidence",
    "claim": {"policy_path": "p", "suite": "libero_object", "task": 3, "threshold": 0.5},
    "successes": 0,
    "episodes": 9,
    "expected": 50,
    "sentence": "0 of 9 episodes succeeded",
    "rows": {"row": {"row_hash": "1" * 64, "episodes": 9, "successes": 0}},
}


def broken(value: Any) -> Iterator[Any]:
    """Copies of `value` with one thing changed: taken away, added, or replaced, at any depth."""
    yield from OTHERS
    several = isinstance(value, list | dict)
    for key in (value if isinstance(value, dict) else range(len(value))) if several else ():
        without = copy.copy(value)
        del without[key]
        yield without
        for part in broken(value[key]):
            changed = copy.copy(value)
            changed[key] = part
            yield changed
    if isinstance(value, dict):
        yield from ({**value, name: 1} for name in ("another", "policy", "a/b", "01"))
    if isinstance(value, list):
        yield from ([*value, item] for item in [*value, *OTHERS])


def test_what_passes_the_sieve_is_valid_for_jsonschema_however_an_artifact_is_broken(ready: Made) -> None:
    seen, refused = set(), 0
    for name, sound in artifacts(ready):
        check, validator = sieve(schema.load(name)), schema.validator(name)
        assert check(sound) and validator.is_valid(sound), name
        for value in broken(sound):
            assert not check(value) or validator.is_valid(value), (name, value)
            refused += not check(value)
        seen.add(name)
    assert seen == NAMES
    assert refused > 1000


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_broken_value_is_refused_with_words(name: str) -> None:
    assert schema.findings(name, {"schema_version": True}, "here")


def test_a_schema_with_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(KeyError, match="dependentRequired"):
        sieve({"type": "object", "properties": {"a": {"dependentRequired": {}}}})


@pytest.mark.parametrize("word", ["if", "not"])
def test_a_condition_on_what_the_sieve_leaves_in_doubt_is_refused(word: str) -> None:
    with pytest.raises(KeyError, match="uniqueItems"):
        sieve({word: {"properties": {"a": {"uniqueItems": True}}}, "then": {}})
