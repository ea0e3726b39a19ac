"""Holds a run's evidence against itself, against the matrix, and against what would run today.

A run folder is held against itself: its top files against the attempt that they are copies of, its result against what
lerobot-eval left, its marker against its result. So an edited number is found, whichever file it stands in. A passed
run whose evidence is refused here runs again; the same findings are the contract `evidence` of a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..campaign.layout import Layout, RunFolder
from ..campaign.matrix import Row
from ..core import files, reading, redaction, schema
from ..core.artifacts import Manifest, Recorded, Result
from ..core.errors import Finding, TrackaError, without_warnings
from ..core.files import Json
from ..engines import lerobot_eval
from . import attempt_history, bindings, identity, judgement, resume, row_state
from .judgement import run_again
from .plan import Plan

LOGS = ("stdout.log", "stderr.log")


def refusals(campaign: Campaign, row: Row) -> list[Finding]:
    """Returns why a run's files do not show what its result says; an empty list where they do.

    A marker that is lost counts as sound, since it can be restored from the other files.
    """
    state = row_state.read(campaign.layout, row.run_id)
    lost = state is None or state["history"][-1]["status"] == "pending"
    try:
        manifest, result = read(campaign.layout, row.run_id)
        marker_findings = [] if lost else of_marker(campaign, row, manifest, result)
        return without_warnings([*marker_findings, *of_files(campaign, row, manifest, result)])
    except TrackaError as error:
        return list(error.findings)


def read(layout: Layout, run_id: str) -> tuple[Manifest, Result]:
    """Returns a run's manifest and result. Raises UsageError where one of them is missing or malformed."""
    folder = layout.run(run_id)
    return schema.read("run_manifest", folder.manifest), schema.read("result", folder.result)


def of_marker(campaign: Campaign, row: Row, manifest: Manifest, result: Result) -> Iterator[Finding]:
    """Yields a finding where the row's marker is missing, has steps that no run makes, or disagrees with the result."""
    path = campaign.layout.marker(row.run_id)
    state = row_state.read(campaign.layout, row.run_id)
    if state is None:
        remedy = f"Restore the marker: {commands.gates(campaign.layout)}"
        yield Finding(str(path), "the row's marker is missing or damaged", remedy)
        return
    for step in row_state.broken_steps(state):
        yield Finding(str(path), f"the history has an impossible step: {step}", run_again(campaign.layout))
    top = campaign.layout.run(row.run_id)
    expected = {
        "run_id": row.run_id,
        "status": result["status"],
        "reason": result["reason"],
        "retry_index": manifest["retry_index"],
        "gpu_id": manifest["gpu_id"] if manifest["row_hash"] else None,
        "result_path": campaign.layout.relative(top.result),
        "result_sha256": files.sha256_file(top.result),
    }
    yield from _differences(campaign.layout, str(path), state, expected)
    yield from _differences(campaign.layout, f"{path}, last step", state["history"][-1], {"attempt": result["attempt"]})


def of_attempts(campaign: Campaign, row: Row, with_files: bool = False) -> Iterator[Finding]:
    """Yields a warning where attempts are missing, or are not those that the row's marker tells of.

    `with_files` also holds the files of earlier attempts against their results.
    """
    if state := row_state.read(campaign.layout, row.run_id):
        numbers = campaign.layout.run(row.run_id).numbers()
        yield from attempt_history.findings(campaign.layout, row, numbers, state, with_files)


def of_files(
    campaign: Campaign, row: Row, manifest: Manifest, result: Result, records_only: bool = False
) -> Iterator[Finding]:
    """Yields a finding where the run's files are missing, malformed, or disagree with each other.

    With `records_only`, manifest, result, identity and marker are held against each other, and no other file is opened.
    """
    try:
        yield from _of_files(campaign, row, manifest, result, records_only)
    except OSError as error:
        path = error.filename or campaign.layout.run(row.run_id).path
        yield Finding(str(path), f"the file cannot be read ({error.strerror})", run_again(campaign.layout))


def _of_files(
    campaign: Campaign, row: Row, manifest: Manifest, result: Result, records_only: bool
) -> Iterator[Finding]:
    top, state = campaign.layout.run(row.run_id), row_state.read(campaign.layout, row.run_id)
    attempt = top.attempt(manifest["attempt"])
    outcome = {key: result[key] for key in ("status", "reason")}
    yield from _differences(campaign.layout, str(top.manifest), manifest, {"run_id": row.run_id, "outcome": outcome})
    if not records_only:
        yield from _copy_differences(campaign.layout, top, attempt, result)
    if manifest["attempt"] != max(top.numbers(), default=0):
        yield Finding(str(top.manifest), "the manifest is not of the last attempt", run_again(campaign.layout))
    if result["status"] == "pass" and not records_only:
        yield from _outcome_differences(campaign, row, top, manifest, result)
    if manifest["row_hash"] is None or result["row_hash"] is None:
        yield from _unstarted_differences(campaign.layout, row, top, manifest, result)
    yield from _wrong_row_hash(campaign.layout, attempt, manifest)
    if not records_only:
        yield from judgement.changed_files(campaign.layout, attempt, result)
        yield from resume.findings(campaign.layout, manifest)
    yield from judgement.impossible_times(campaign.layout, top.path, manifest, result, state)
    yield from judgement.pretended_gpus(campaign, top.manifest, manifest)


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
        elif not copy.samefile(original) and not reading.is_same(copy, original):
            yield Finding(str(copy), f"the file differs from {original}", run_again(layout))


def _outcome_differences(
    campaign: Campaign, row: Row, top: RunFolder, manifest: Manifest, result: Result
) -> Iterator[Finding]:
    """Yields a finding where result and episodes are not what lerobot-eval's own files say."""
    layout = campaign.layout
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
        "error_message": None,
        "stdout_log": layout.relative(top.stdout),
        "stderr_log": layout.relative(top.stderr),
        "video_paths": sorted(_video_names(layout, attempt, result)),
    }
    yield from _differences(layout, str(top.result), result, expected)
    yield from judgement.failure_signs(layout, attempt, manifest, result, metrics)
    for log in logs:
        counts = lerobot_eval.parse_log(log)
        if counts and None not in counts[:2] and counts[:2] != (metrics.successes, metrics.episodes):
            what = f"the log reports {counts[0]} of {counts[1]} successes, but eval_info.json does not"
            yield Finding(str(log), what, run_again(layout))
    suites = sorted({task.suite for task in metrics.tasks})
    yield from _differences(
        layout, str(attempt.output), {"task_group": suites}, {"task_group": [manifest["task_suite"]]}
    )
    records = lerobot_eval.episode_records(metrics, manifest["batch_size"], manifest["n_episodes"], manifest["seed"])
    for warning in metrics.warnings:
        yield Finding(str(attempt.output), warning, "Look at eval_info.json and the logs", warning=True)
    yield from judgement.unsound_records(layout, attempt, manifest, metrics)
    yield from bindings.of_attempt(campaign, row, manifest, result, metrics)
    if files.read_lines(top.episodes) != records:
        yield Finding(str(top.episodes), "the lines do not match the episodes in eval_info.json", run_again(layout))


def _video_names(layout: Layout, attempt: RunFolder, result: Result) -> Iterator[str]:
    """Yields the names of an attempt's videos: those that are there, and those that a bundle has left out."""
    yield from (layout.relative(video) for video in attempt.videos())
    for name in result["files"]:
        path = attempt.path / name
        if path.suffix == ".mp4" and attempt.output in path.parents and layout.is_left_out(path):
            yield layout.relative(path)


def _unstarted_differences(
    layout: Layout, row: Row, top: RunFolder, manifest: Manifest, result: Result
) -> Iterator[Finding]:
    """Yields a finding where the files of a row that could not start say more than is known of such a row."""
    expected: Json = {"row_hash": None, "gpu_id": row.gpu_id, "gpu_others": [], "n_action_steps": None}
    yield from _differences(layout, str(top.manifest), manifest, expected)
    yield from _differences(layout, str(top.result), result, {"row_hash": None, "parser_warnings": []})
    expected_files = {"files": sorted(LOGS)}
    yield from _differences(layout, str(top.result), {"files": sorted(result["files"])}, expected_files)


def _wrong_row_hash(layout: Layout, attempt: RunFolder, manifest: Manifest) -> Iterator[Finding]:
    """Yields a finding where the row hash is not that of the identity that the attempt wrote down.

    An attempt with an older row hash has no identity and yields nothing.
    """
    path, parts = attempt.path / identity.NAME, identity.read(attempt)
    if not path.is_file():
        return
    yield from schema.findings("identity", files.read_json(path), str(path))
    # A secret in a setting is part of the hash, but is masked in the file.
    if parts and redaction.MASK not in reading.content(path) and identity.row_hash(parts) != manifest["row_hash"]:
        yield Finding(str(path), "the identity does not give the row hash in the manifest", run_again(layout))


def against_matrix(campaign: Campaign, row: Row, manifest: Manifest) -> Iterator[Finding]:
    """Yields a finding where the manifest is not of the row in the matrix; a retry may have had a smaller batch."""
    path = campaign.layout.run(row.run_id).manifest
    expected = {
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
    yield from _differences(campaign.layout, str(path), manifest, expected)


def against_plan(plan: Plan, manifest: Manifest) -> Iterator[Finding]:
    """Yields a finding where the manifest's record of what ran is not what its row hash stands for.

    Nothing is yielded where the row hash is not the plan's.
    """
    folder = plan.campaign.layout.run(plan.row.run_id)
    if manifest["row_hash"] != plan.row_hash:
        return
    attempt_folder = folder.attempt(manifest["attempt"])
    attempt = replace(
        plan,
        batch_size=manifest["batch_size"],
        retry_index=manifest["retry_index"],
        resumes=attempt_folder.resumed.is_file(),
    )
    expected = attempt.record(attempt_folder, manifest["gpu_id"])
    where = str(folder.manifest)
    yield from _differences(plan.campaign.layout, where, _without_paths(manifest), _without_paths(expected))
    yield from _differences(plan.campaign.layout, where, manifest, {"invalid": attempt.simulator_mismatch})


def _without_paths(record: Recorded) -> Json:
    """Returns a record without its places.

    The places of checkpoint, program and checkouts may change; what is in them may not.
    """
    checkpoint = {key: value for key, value in record["checkpoint"].items() if key != "folder"}
    # The commit of a checkout may change while its code, which the row hash covers, stays the same.
    versions = {name: version.partition("+")[0] for name, version in record["versions"].items()}
    return record | {"checkpoint": checkpoint, "command": _flags(record["command"] or ()), "versions": versions}


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
