"""Defines the contracts of one row: what its run folder and its marker must be.

A run folder is held against itself: its top files against the attempt that they are copies of, its result against what
lerobot-eval left, its manifest against the matrix. So an edited number is found, whichever file it stands in.
"""

import filecmp
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..campaign.layout import Layout, RunFolder
from ..campaign.matrix import Row
from ..core import files, redaction, schema
from ..core.artifacts import Manifest, Recorded, Result
from ..core.errors import Finding
from ..core.files import Json
from ..engines import lerobot_eval, parity_certificate
from ..reporting import collect, video
from ..runs import identity, judgement, known_answers, parity, row_state, run
from ..runs.judgement import run_again

RowContract = Callable[[Campaign, Row], Iterator[Finding]]


def evidence(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a finding where the row's files are missing, malformed, or disagree with each other or with the matrix.

    Raises UsageError where manifest or result is missing or malformed.
    """
    top = campaign.layout.run(row.run_id)
    manifest, result = collect.load_run_manifest(top.manifest), collect.load_result(top.result)
    yield from _marker(campaign, row, manifest, result)
    yield from _differences(campaign.layout, str(top.manifest), manifest, _expected_manifest(campaign, row, manifest))
    yield from _differences(
        campaign.layout, str(top.manifest), manifest, {"outcome": {key: result[key] for key in ("status", "reason")}}
    )
    yield from _plan_differences(campaign, row, manifest)
    yield from _copy_differences(campaign.layout, top, top.attempt(manifest["attempt"]), result)
    if manifest["attempt"] != max(top.numbers(), default=0):
        yield Finding(str(top.manifest), "the manifest is not of the last attempt", run_again(campaign.layout))
    if result["status"] == "pass":
        yield from _outcome_differences(campaign.layout, top, manifest, result)
    yield from _changes_since_run(campaign, row, manifest, result)


def _changes_since_run(campaign: Campaign, row: Row, manifest: Manifest, result: Result) -> Iterator[Finding]:
    """Yields a finding where the files are not those that the run left, or have times or a device that no run has."""
    top, state = campaign.layout.run(row.run_id), row_state.read(campaign.layout, row.run_id)
    if state is not None:
        expected = {"result_sha256": files.sha256_file(top.result)}
        yield from _differences(campaign.layout, str(campaign.layout.marker(row.run_id)), state, expected)
    yield from _wrong_row_hash(campaign.layout, top.attempt(manifest["attempt"]), manifest)
    yield from judgement.changed_files(campaign.layout, top.attempt(manifest["attempt"]), result)
    yield from judgement.impossible_times(campaign.layout, top.path, manifest, result, state)
    yield from judgement.pretended_gpus(campaign, top.manifest, manifest)


def _wrong_row_hash(layout: Layout, attempt: RunFolder, manifest: Manifest) -> Iterator[Finding]:
    """Yields a finding where the row hash is not that of the identity that the attempt wrote down.

    An attempt with an older row hash has no identity and yields nothing.
    """
    path, parts = attempt.path / identity.NAME, identity.read(attempt)
    if not path.is_file():
        return
    yield from schema.findings("identity", files.read_json(path), str(path))
    # A secret in a setting is part of the hash, but is masked in the file.
    if parts and redaction.MASK not in path.read_bytes() and identity.row_hash(parts) != manifest["row_hash"]:
        yield Finding(str(path), "the identity does not give the row hash in the manifest", run_again(layout))


def _marker(campaign: Campaign, row: Row, manifest: Manifest, result: Result) -> Iterator[Finding]:
    path = campaign.layout.marker(row.run_id)
    state = row_state.read(campaign.layout, row.run_id)
    if state is None:
        remedy = f"Restore the marker: {commands.gates(campaign.layout)}"
        yield Finding(str(path), "the row's marker is missing or damaged", remedy)
        return
    for step in row_state.broken_steps(state):
        yield Finding(str(path), f"the history has an impossible step: {step}", run_again(campaign.layout))
    expected = {
        "run_id": row.run_id,
        "status": result["status"],
        "reason": result["reason"],
        "retry_index": manifest["retry_index"],
        "gpu_id": manifest["gpu_id"],
        "result_path": campaign.layout.relative(campaign.layout.run(row.run_id).result),
    }
    yield from _differences(campaign.layout, str(path), state, expected)
    yield from _differences(campaign.layout, f"{path}, last step", state["history"][-1], {"attempt": result["attempt"]})


def _expected_manifest(campaign: Campaign, row: Row, manifest: Manifest) -> Json:
    """Returns what the manifest must say for the row in the matrix; a retry may have run with a smaller batch."""
    return {
        "run_id": row.run_id,
        "dry_run": False,
        "task_suite": row.task_suite,
        "task_ids": list(campaign.task_ids(row)),
        "n_episodes": row.n_episodes,
        "expected_episodes": row.n_episodes * len(campaign.task_ids(row)),
        "seed": row.seed,
        "batch_size_requested": row.batch_size,
        "batch_size": min(manifest["batch_size"], row.batch_size),
        "comparable": manifest["batch_size"] == row.batch_size,
        "retry_index": manifest["retry_index"] if manifest["batch_size"] == row.batch_size else 1,
        "policy_path": row.policy_path,
    }


def _plan_differences(campaign: Campaign, row: Row, manifest: Manifest) -> Iterator[Finding]:
    """Yields a finding where the manifest's record of what ran is not what its row hash stands for.

    A row hash that is not today's is reported by the contract `result`, not here.
    """
    plan = run.plan_row(campaign, row, run.load_host(campaign.layout))
    if manifest["row_hash"] != plan.row_hash:
        return
    attempt = replace(plan, batch_size=manifest["batch_size"], retry_index=manifest["retry_index"])
    expected = attempt.record(campaign.layout.run(row.run_id).attempt(manifest["attempt"]), manifest["gpu_id"])
    where = str(campaign.layout.run(row.run_id).manifest)
    yield from _differences(campaign.layout, where, _without_paths(manifest), _without_paths(expected))
    yield from _differences(campaign.layout, where, manifest, {"invalid": attempt.simulator_mismatch})


def _without_paths(record: Recorded) -> Json:
    """Returns a record without its places.

    The places of checkpoint, program and checkouts may change; what is in them may not.
    """
    checkpoint = {key: value for key, value in record["checkpoint"].items() if key != "folder"}
    # The commit of a checkout may change while its code, which the row hash covers, stays the same.
    versions = {name: version.partition("+")[0] for name, version in record["versions"].items()}
    return record | {"checkpoint": checkpoint, "command": _flags(record["command"]), "versions": versions}


def _flags(command: Sequence[str]) -> list[str]:
    """Returns the flags that decide what an evaluation does, in order, without the places of program and policy."""
    return [word for word in command if word.startswith("--") and not word.startswith("--policy.path=")]


def _differences(
    layout: Layout, where: str, actual: Mapping[str, object], expected: Mapping[str, object]
) -> Iterator[Finding]:
    for key, value in files.redacted(expected).items():
        if actual.get(key) != value:
            what = f"the value is {actual.get(key)!r}, but the other files say {value!r}"
            yield Finding(f"{where}, key {key}", what, run_again(layout))


def _copy_differences(layout: Layout, top: RunFolder, attempt: RunFolder, result: Result) -> Iterator[Finding]:
    """Yields a finding where a file at the top is not that of the last attempt, byte for byte."""
    pairs = [
        (top.manifest, attempt.manifest),
        (top.result, attempt.result),
        (top.stdout, attempt.stdout),
        (top.stderr, attempt.stderr),
    ]
    if result["status"] == "pass":
        pairs.append((top.episodes, attempt.episodes))
    for copy, original in pairs:
        if missing := [path for path in (copy, original) if not path.is_file()]:
            yield from (Finding(str(path), "the file does not exist", run_again(layout)) for path in missing)
        elif not copy.samefile(original) and not filecmp.cmp(copy, original, shallow=False):
            yield Finding(str(copy), f"the file differs from {original}", run_again(layout))


def _outcome_differences(layout: Layout, top: RunFolder, manifest: Manifest, result: Result) -> Iterator[Finding]:
    """Yields a finding where result and episodes are not what lerobot-eval's own files say."""
    attempt = top.attempt(manifest["attempt"])
    logs = (attempt.stdout, attempt.stderr)
    metrics = lerobot_eval.read_metrics(attempt.output, logs)
    expected = lerobot_eval.reported_results(metrics) | {
        "run_id": manifest["run_id"],
        "attempt": manifest["attempt"],
        "row_hash": manifest["row_hash"],
        "dry_run": False,
        "invalid": manifest["invalid"],
        "unproven": manifest["unproven"],
        "video_paths": [layout.relative(video) for video in attempt.videos()],
    }
    yield from _differences(layout, str(top.result), result, expected)
    yield from judgement.failure_signs(layout, attempt, manifest, result, metrics)
    for log in logs:
        counts = lerobot_eval.parse_log(log)
        if counts and None not in counts[:2] and counts[:2] != (metrics.successes, metrics.episodes):
            what = f"the log reports {counts[0]} of {counts[1]} successes, but eval_info.json does not"
            yield Finding(str(log), what, run_again(layout))
    suites = sorted({task.suite for task in metrics.tasks})
    expected_suites = {"task_group": [manifest["task_suite"]]}
    yield from _differences(layout, str(attempt.output), {"task_group": suites}, expected_suites)
    records = lerobot_eval.episode_records(metrics, manifest["batch_size"], manifest["n_episodes"], manifest["seed"])
    for warning in metrics.warnings:
        yield Finding(str(attempt.output), warning, "Look at eval_info.json and the logs", warning=True)
    if files.read_lines(top.episodes) != records:
        yield Finding(str(top.episodes), "the lines do not match the episodes in eval_info.json", run_again(layout))


def backend(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a finding where the row did not run with the backend that preflight chose."""
    manifest = collect.load_run_manifest(campaign.layout.run(row.run_id).manifest)
    preflight_backend = files.read_json(campaign.layout.preflight_report).get("mujoco_gl_effective")
    if manifest["mujoco_gl"] != preflight_backend:
        what = f"the run used {manifest['mujoco_gl']}, but preflight chose {preflight_backend}"
        yield Finding(str(campaign.layout.run(row.run_id).manifest), what, "Run the row again with --allow-overwrite")


def result_stands(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a finding where the row failed, or passed with inputs that are not today's."""
    path = campaign.layout.run(row.run_id).result
    result = collect.load_result(path)
    if result["status"] != "pass":
        remedy = f"Read {result['stderr_log']}, mend the cause, and rerun: {commands.gates(campaign.layout, '--lf')}"
        yield Finding(str(path), f"the run failed ({result['reason']}): {result['error_message']}", remedy)
        return
    plan = run.plan_row(campaign, row, run.load_host(campaign.layout))
    if result["row_hash"] != plan.row_hash:
        attempt = campaign.layout.run(row.run_id).attempt(result["attempt"])
        yield Finding(str(path), *identity.change(attempt, plan.identity_parts))


def videos(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a finding where a passed row has no videos, and for each video of which no frame can be decoded."""
    path = campaign.layout.run(row.run_id).result
    result = collect.load_result(path)
    if result["status"] == "pass" and not result["video_paths"]:
        yield Finding(str(path), "the run has no videos", "Look for video errors in its stderr.log")
    for name in result["video_paths"] if result["status"] == "pass" else ():
        if not video.frame_count(campaign.layout.root / name):
            yield Finding(str(campaign.layout.root / name), "the video does not play", run_again(campaign.layout))


def threshold_reached(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a finding where the success rate is below the row's threshold."""
    path = campaign.layout.run(row.run_id).result
    rate, threshold = collect.load_result(path)["success_rate"], campaign.threshold(row)
    if rate is not None and rate < threshold:
        what = f"the success rate is {rate:.3f}, but the threshold is {threshold:.3f}"
        yield Finding(str(path), what, "Look at the videos; campaign.toml sets the threshold")


def valid_simulator(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a warning where the simulator does not match the benchmark's.

    The row stands, but a strict validation does not accept it.
    """
    path = campaign.layout.run(row.run_id).result
    if mismatch := collect.load_result(path)["invalid"]:
        remedy = "Run the row with --allow-overwrite on a host whose simulator preflight finds valid"
        yield Finding(str(path), f"invalid: {mismatch}", remedy, warning=True)


def proven_row(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a finding where no parity run with today's inputs proves the engine for the row's checkpoint.

    The engine is proven when it plays lerobot-eval's episodes of that checkpoint.
    """
    host = run.load_host(campaign.layout)
    if run.preflight_refusal(campaign, row, host):
        return  # the rows of a refused checkpoint fail in phase 4; the other checkpoints prove the engine
    plan = run.plan_row(campaign, row, host)
    path = parity_certificate.certificate_path(campaign.layout, plan.proof_key)
    if reason := plan.unproven_reason:
        # Where the engine cannot play a checkpoint other than the baseline's, only the rows of that checkpoint fail.
        is_other_checkpoint = row.policy_path != campaign.row(
            campaign.baseline
        ).policy_path and not parity_certificate.compares_episodes(path)
        remedy = "Read the logs beside the certificate, or set engine = 'lerobot-eval'"
        yield Finding(str(path), f"{row.policy_path}: {reason}", remedy, warning=is_other_checkpoint)
        return
    for contradiction in parity.contradictions(path):
        phase3 = commands.gates(campaign.layout, "-m phase3")
        remedy = f"Remove the certificate's folder, then prove the engine again: {phase3}"
        yield Finding(str(path), contradiction, remedy)


def proven_engine(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields a warning where the engine is not proven to play lerobot-eval's episodes.

    A strict validation does not accept the row then.
    """
    path = campaign.layout.run(row.run_id).result
    if reason := collect.load_result(path)["unproven"] or _unproven_reason_today(campaign, row):
        phase3 = commands.gates(campaign.layout, "-m phase3")
        remedy = f"Run the parity gate ({phase3}), then run the row with --allow-overwrite"
        yield Finding(str(path), f"unproven: {reason}", remedy, warning=True)


def _unproven_reason_today(campaign: Campaign, row: Row) -> str | None:
    """Returns why today's parity certificates do not prove the engine for the attempt that passed.

    The engine was proven when the attempt ran. Returns None where it still is, and where the row did not pass, has
    other inputs today, or is played by lerobot-eval.
    """
    result = collect.load_result(campaign.layout.run(row.run_id).result)
    if result["status"] != "pass" or not campaign.is_resident:
        return None
    plan = run.plan_row(campaign, row, run.load_host(campaign.layout))
    batch_size = collect.load_run_manifest(campaign.layout.run(row.run_id).manifest)["batch_size"]
    return replace(plan, batch_size=batch_size).unproven_reason if result["row_hash"] == plan.row_hash else None


def expected_outcome(campaign: Campaign, row: Row) -> Iterator[Finding]:
    """Yields the differences between a passed row and its expected outcome: exactly the known episodes must succeed.

    Only a policy whose outcome is known beforehand has an expected outcome (`known_answers` in campaign.toml).
    """
    if collect.load_result(campaign.layout.run(row.run_id).result)["status"] == "pass":
        yield from known_answers.differences(campaign, row)


# The contracts of each run: the baseline's in phase 3, every row's in phase 4. The first say most about a failed run.
RUN_CONTRACTS = ("result", "evidence", "backend", "videos", "verdict", "simulator", "engine", "known_answer")
ROW_CONTRACTS: dict[str, RowContract] = {
    "evidence": evidence,
    "backend": backend,
    "result": result_stands,
    "videos": videos,
    "verdict": threshold_reached,
    "known_answer": expected_outcome,
    "simulator": valid_simulator,
    "engine": proven_engine,
    "parity": proven_row,
}
