"""Makes in-toto statements of a campaign: what was tested and with which outcome, and what the policies had to reach.

A statement is about the bundle's payload, by the hash of its manifest, and about the checkpoints, by the hash of all
their files. The predicates are in-toto's test-result v0.1 and, where the campaign demands something, eval-result v0.1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__
from ..campaign.campaign import Campaign
from ..campaign.layout import PHASES
from ..core import files, schema
from ..core.files import Json
from ..reporting import collect, verdict_file
from ..runs import claims, preregistration
from . import bag
from .facts import BundleFacts

TYPE = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
EVAL_RESULT = "https://in-toto.io/attestation/eval-result/v0.1"
FOLDER = "attestations/"
TEST_FILE, EVAL_FILE = f"{FOLDER}test-result.json", f"{FOLDER}eval-result.json"
VERIFIER = f"urn:tracka:{__version__}"
PASSED, WARNED, FAILED = "PASSED", "WARNED", "FAILED"


def make(campaign: Campaign, facts: BundleFacts, manifest: bytes, names: Mapping[str, str]) -> dict[str, bytes]:
    """Returns the statements as files of a bundle. `names` has the payload's sha256 by name."""
    subject = [_resource(bag.MANIFEST, files.sha256(manifest)), *_checkpoints(facts)]
    made = {TEST_FILE: _statement(subject, TEST_RESULT, _test_result(campaign, names))}
    if demanded := _claims(campaign):
        made[EVAL_FILE] = _statement(subject, EVAL_RESULT, _eval_result(campaign, facts, demanded))
    return made


def _statement(subject: Sequence[Json], kind: str, predicate: Json) -> bytes:
    return files.pretty({"_type": TYPE, "subject": [*subject], "predicateType": kind, "predicate": predicate})


def _resource(name: str, sha256: str) -> Json:
    return {"name": name, "digest": {"sha256": sha256}}


def _checkpoints(facts: BundleFacts) -> list[Json]:
    trees = {path: point["tree_sha256"] for path, point in facts["checkpoints"].items()}
    return [_resource(f"checkpoint {path}", tree) for path, tree in trees.items() if tree]


def closed_at_utc(campaign: Campaign) -> str:
    """Returns when the campaign was closed: the time of its latest handoff, or else of its latest result."""
    handoffs = [files.read_or_empty(campaign.layout.handoff(phase)).get("generated_at_utc") for phase in PHASES]
    results = [_result(campaign, row.run_id).get("end_time_utc") for row in campaign.enabled]
    for times in (handoffs, results):
        if known := [time for time in times if isinstance(time, str)]:
            return max(known)
    return files.utc_text(0)


def _result(campaign: Campaign, run_id: str) -> Json:
    return schema.read_or_empty("result", campaign.layout.run(run_id).result)


def not_accepted(campaign: Campaign) -> list[str]:
    """Returns the phases and the rows (`row RUN`) that were not accepted, by the campaign's handoffs and results."""
    return _not_accepted(campaign, _handoffs(campaign))


def _handoffs(campaign: Campaign) -> dict[str, Json]:
    return {phase: schema.read_or_empty("handoff", campaign.layout.handoff(phase)) for phase in PHASES}


def _not_accepted(campaign: Campaign, handoffs: Mapping[str, Json]) -> list[str]:
    reasons = collect.failure_reasons(campaign, collect.campaign_results(campaign))
    phases = [phase for phase, handoff in handoffs.items() if handoff.get("status") != "pass"]
    return phases + [f"row {row.run_id}" for row in campaign.enabled if row.run_id in reasons]


def _test_result(campaign: Campaign, names: Mapping[str, str]) -> Json:
    """Returns which phases and rows were accepted, by the handoffs and results of the campaign."""
    handoffs = _handoffs(campaign)
    failed = _not_accepted(campaign, handoffs)
    tests = [*PHASES, *(f"row {row.run_id}" for row in campaign.enabled)]
    warned = [phase for phase, handoff in handoffs.items() if handoff.get("notes") and phase not in failed]
    definition = [name for name in names if "/configs/" in name]
    return {
        "result": FAILED if failed else WARNED if warned else PASSED,
        "configuration": [_resource(name, names[name]) for name in definition],
        "passedTests": [name for name in tests if name not in {*failed, *warned}],
        "warnedTests": warned,
        "failedTests": failed,
    }


def _eval_result(campaign: Campaign, facts: BundleFacts, demanded: Sequence[Json]) -> Json:
    registration = preregistration.read(campaign)
    starts = [[row.task_suite, *start] for row in campaign.compared_rows for start in claims.starts(campaign, row)]
    trees = {path: point["tree_sha256"] for path, point in facts["checkpoints"].items()}
    predicate: Json = {
        "verifier": {"id": VERIFIER},
        "evaluatedAt": closed_at_utc(campaign),
        "suite": {
            "name": " ".join(sorted({row.task_suite for row in campaign.compared_rows})),
            "version": _libero(campaign),
        },
        "claims": [*demanded],
        "sampleSize": sum(_result(campaign, row.run_id).get("episodes") or 0 for row in campaign.compared_rows),
        "commitments": {"model": _commitment(trees), "dataset": _commitment(starts)},
        "assuranceLevel": "self_attested",
        "subjectProfile": "receipt",
        "harness": {"name": "tracka", "version": __version__},
    }
    if registration:
        predicate["preRegistration"] = {"alg": "sha256", "value": registration["sha256"]}
    return predicate


def _commitment(value: Any) -> Json:
    """Returns the hash of a value's canonical JSON: of the checkpoints' hashes, or of what begins each episode."""
    return {"alg": "sha256", "value": files.sha256(files.canonical(value)), "salted": False}


def _libero(campaign: Campaign) -> str:
    """Returns the version of LIBERO that the rows ran."""
    manifests = (
        schema.read_or_empty("run_manifest", campaign.layout.run(row.run_id).manifest) for row in campaign.enabled
    )
    versions = {manifest.get("versions", {}).get("hf-libero", "unknown") for manifest in manifests}
    return " ".join(sorted(versions))


def _claims(campaign: Campaign) -> list[Json]:
    """Returns what the campaign demands, and whether it was reached: the claims of its verdict, or rows' thresholds."""
    verdict = verdict_file.read(campaign)
    if verdict is not None:
        rates = [
            _claim(_metric(record), record["threshold"], record["outcome"] == "pass") for record in verdict["rates"]
        ]
        margins = [
            _claim(
                f"difference from {each['baseline']}: {each['policy_path']}",
                -each["margin"],
                each["outcome"] == "pass",
                ">",
            )
            for each in verdict["baselines"]
        ]
        return [*rates, *margins]
    thresholds = {row.run_id: campaign.threshold(row) for row in campaign.compared_rows}
    return [
        _claim(
            f"success rate: {run_id}", threshold, (_result(campaign, run_id).get("success_rate") or 0.0) >= threshold
        )
        for run_id, threshold in thresholds.items()
        if threshold > 0
    ]


def _metric(record: Mapping[str, Any]) -> str:
    task = "" if record["task"] is None else f", task {record['task']}"
    return f"lower bound of the success rate: {record['policy_path']}, {record['suite']}{task}"


def _claim(metric: str, threshold: float, passed: bool, comparator: str = ">=") -> Json:
    return {"metric": metric, "comparator": comparator, "threshold": f"{threshold:.12g}", "passed": passed}
