"""Runs one attempt of a row: its folder, written once, and copies of its files at the top of the run folder.

Guarantees: the manifest is on disk before the launch. A result is on disk after every end that this process survives.
An attempt's folder is made exclusively and never moves, so no attempt's evidence is lost.
"""

import json
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from ..campaign import path_safety
from ..campaign.layout import Layout, RunFolder
from ..core import damaged, fact_cache, files, redaction, schema, system_errors
from ..core.artifacts import Manifest, Result
from ..core.errors import Finding, TrackaError
from ..engines import failure, lerobot_eval
from ..engines.failure import Failure
from ..engines.lerobot_eval import Metrics
from ..execution import gpu, lease, orphans, process, warm_process, warm_request
from ..execution.gpu import Device
from ..execution.process import CANCELLED, Exit
from . import attempt_history, identity, judgement, refusal, resume, row_state, slurm_row
from .endings import Endings
from .plan import Plan


def run(plan: Plan, device: Device, ends: Endings | None = None, since: int = 1) -> Result:
    """Runs the plan once on `device` and returns the attempt's result, passed or failed.

    The attempt keeps the episodes that cut-off attempts of the row have played, from the attempt `since` on.
    The attempt is ended once one of `ends` has come, which is asked every few seconds, and fails by that reason. An
    exception that interrupts the attempt is raised again after the attempt is closed as interrupted.
    """
    layout, run_id = plan.campaign.layout, plan.row.run_id
    number, folder = _next_folder(layout, run_id)
    environ = plan.environ(device)
    with fact_cache.scope():
        manifest = plan.manifest(folder, device, environ, number)
        if kept := resume.kept(layout, manifest, since):
            plan = replace(plan, resumes=True)
            manifest = plan.manifest(folder, device, environ, number)
        worker_variables = _warm_worker_variables(plan, device, manifest["command"] or [], environ)
    _begin(layout, folder, manifest)
    identity.write(folder, plan.identity_parts)
    if kept:
        resume.write(layout, manifest, kept)
    _publish(layout.run(run_id), folder, starting=True)
    row_state.advance(layout, run_id, "running", number, retry_index=plan.retry_index, gpu_id=device.gpu_id)
    environ |= worker_variables
    result = _execute(plan, folder, manifest, environ, device, ends or Endings())
    if result["status"] != "pass":
        _end_warm_worker(environ)
    return close(layout, folder, result)


def _next_folder(layout: Layout, run_id: str) -> tuple[int, RunFolder]:
    """Returns the number and the folder of the row's next attempt; the folder is not there yet."""
    number = max(layout.run(run_id).numbers(), default=0) + 1
    return number, layout.run(run_id).attempt(number)


def _begin(layout: Layout, folder: RunFolder, manifest: Manifest) -> None:
    """Makes an attempt's folder with its manifest and empty logs."""
    files.make_folder(folder.path.parent)
    folder.path.mkdir(mode=0o700)  # fails if the folder exists, so each attempt is made once
    files.write_json(folder.manifest, manifest)
    for log in (folder.stdout, folder.stderr):
        log.touch(mode=0o600)  # logs are linked to the top before the launch, so that users can follow them there


def _warm_worker_variables(plan: Plan, device: Device, command: list[str], environ: dict[str, str]) -> dict[str, str]:
    """Returns the variables that tell the resident engine's program which warm worker process plays the row.

    Returns none for lerobot-eval, and where the campaign turns warm worker processes off or none can be had. A row with
    a display made for it gets none either: the display ends with the row, so no process could stay warm on it. Nor does
    a row on a cluster: the process would be on this host.
    """
    is_off = plan.campaign.is_on_slurm or not plan.campaign.resident.get("standby", True)
    if not plan.campaign.is_resident or is_off or plan.host.render_prefix:
        return {}
    environ = {name: value for name, value in environ.items() if name != lease.WORKER}
    worker_key = warm_process.key(command, environ, plan.load_key, plan.played_batch)
    name = device.uuid or f"cpu-{lease.worker_number()}"
    return warm_process.ensure_worker(name, worker_key, plan.campaign.layout.root, environ, device.lock_file)


def _end_warm_worker(environ: dict[str, str]) -> None:
    """Ends the warm worker process that plays the row of the process with these variables, if there is one.

    What that process writes later would change the files of an attempt that is closed.
    """
    if warm_request.SOCKET in environ:
        warm_process.end_worker(Path(environ[warm_request.SOCKET]))


def _execute(
    plan: Plan,
    folder: RunFolder,
    manifest: Manifest,
    environ: dict[str, str],
    device: Device,
    ends: Endings,
) -> Result:
    start = time.monotonic()
    try:
        process_exit, manifest = _play(plan, folder, manifest, environ, device, ends)
    except OSError as error:
        found = system_errors.finding(error, where=shlex.join(manifest["command"] or ()))
        limit, message = system_errors.reason(error), f"{found.where}: {found.what}"
        refused = Failure(limit, message) if limit else Failure("not_started", message)
        return _result(plan.campaign.layout, folder, manifest, refused)
    except BaseException as error:
        _end_warm_worker(environ)
        interruption = Failure("interrupted", f"the harness was interrupted ({type(error).__name__})")
        seconds = time.monotonic() - start
        close(
            plan.campaign.layout, folder, _result(plan.campaign.layout, folder, manifest, interruption, seconds=seconds)
        )
        raise
    if process_exit.code != 0:
        _end_warm_worker(environ)
    if process_exit.stopped == CANCELLED:
        process_exit = replace(process_exit, stopped=ends.reason)
    return _judge(plan, folder, manifest, process_exit)


def _play(
    plan: Plan,
    folder: RunFolder,
    manifest: Manifest,
    environ: dict[str, str],
    device: Device,
    ends: Endings,
) -> tuple[Exit, Manifest]:
    """Runs the plan's program where the campaign's rows run; returns how it ended, and the manifest with the place."""
    cancel = ends.have_come if ends.each else None
    secrets = tuple(redaction.secret_values(os.environ | environ))
    if plan.campaign.is_on_slurm:
        return slurm_row.play(plan, folder, manifest, environ, secrets, cancel)
    marks = orphans.marks(plan.campaign.layout.run(plan.row.run_id).path, device.lock_file)
    process_exit = process.run(
        plan.started_words(manifest["command"] or []),
        cwd=plan.campaign.layout.root,
        env=environ | marks,
        stdout=folder.stdout,
        stderr=folder.stderr,
        bounds=plan.bounds,
        secrets=secrets,
        watched=failure.WATCHED,
        lease=device.descriptors,
        journal=device.journal,
        label=manifest["run_id"],
        cancel=cancel,
    )
    return process_exit, manifest


def _judge(plan: Plan, folder: RunFolder, manifest: Manifest, process_exit: Exit) -> Result:
    logs = (folder.stdout, folder.stderr)
    metrics = lerobot_eval.read_metrics(folder.output, logs)
    device = gpu.torch_name(manifest["gpu_id"])
    run_failure = failure.diagnose(process_exit, metrics, plan.row.task_suite, plan.expected_episodes, logs, device)
    run_failure = run_failure or judgement.unsound_output(folder) or judgement.unplayable_video(folder)
    records = lerobot_eval.episode_records(metrics, plan.batch_size, plan.row.n_episodes, plan.row.seed)
    files.write_text(folder.episodes, "".join(json.dumps(record) + "\n" for record in records))
    layout = plan.campaign.layout
    return _result(layout, folder, manifest, run_failure, metrics, code=process_exit.code, seconds=process_exit.seconds)


def _result(
    layout: Layout,
    folder: RunFolder,
    manifest: Manifest,
    run_failure: Failure | None,
    metrics: Metrics | None = None,
    *,
    code: int | None = None,
    seconds: float = 0.0,
) -> Result:
    reported = metrics or Metrics()
    try:
        hashes = judgement.file_hashes(folder)
    except judgement.TakesTooLong as slow:
        hashes, run_failure = {}, run_failure or Failure("invalid_result", slow.findings[0].what)
    videos = folder.videos()
    top = layout.run(manifest["run_id"])
    return {
        "schema_version": schema.VERSION,
        "run_id": manifest["run_id"],
        "attempt": manifest["attempt"],
        "row_hash": manifest["row_hash"],
        "dry_run": False,
        "status": "fail" if run_failure else "pass",
        "reason": run_failure.reason if run_failure else None,
        "invalid": manifest["invalid"],
        "unproven": manifest["unproven"],
        "error_message": run_failure.message if run_failure else None,
        "exit_code": code,
        "end_time_utc": files.utc_now(),
        "duration_sec": round(seconds, 3),
        **lerobot_eval.reported_results(reported),
        "video_path": layout.relative(folder.output / "videos") if videos else None,
        "video_paths": [layout.relative(video) for video in videos],
        "stdout_log": layout.relative(top.stdout),
        "stderr_log": layout.relative(top.stderr),
        "files": hashes,
    }


def close(layout: Layout, folder: RunFolder, result: Result) -> Result:
    """Writes an attempt's result, copies the attempt to the top of the run folder, and ends the row's marker.

    Returns the result.
    """
    outcome = {"outcome": {"status": result["status"], "reason": result["reason"]}}
    files.write_json(folder.manifest, files.read_json(folder.manifest) | outcome)
    files.write_json(folder.result, result)
    _publish(layout.run(result["run_id"]), folder)
    _end_marker(layout, result, notes=result["error_message"] or "")
    return result


def close_interrupted(layout: Layout, run_id: str) -> None:
    """Closes the last attempt as interrupted, if a dead process left it without a result.

    An attempt that ended, and whose result was lost later, is left as it is. The caller holds the row's lock.
    """
    numbers = layout.run(run_id).numbers()
    if not numbers:
        return
    folder = layout.run(run_id).attempt(numbers[-1])
    state = row_state.read(layout, run_id)
    orphans.end(orphans.ROW, str(layout.run(run_id).path))  # the supervisor may be at work or dead
    if result := _own_result(folder, run_id, numbers[-1]):
        if state is not None and state["status"] == ("running" if refusal.has_started(result) else "pending"):
            close(layout, folder, result)  # the process died before the marker was written
        return
    has_ended = state is not None and state["status"] in ("pass", "fail")
    if state is not None and has_ended and state["history"][-1]["attempt"] == numbers[-1] and folder.manifest.exists():
        return
    interruption = Failure("interrupted", "the process that ran this attempt ended without writing a result")
    try:
        manifest = cast(Manifest, files.read_json(folder.manifest))
        if not refusal.has_started(manifest):
            raise KeyError("row_hash")
        if state is None or state["status"] != "running":
            _start_marker(layout, manifest)  # the process died before it set the marker to running
        close(layout, folder, _result(layout, folder, manifest, interruption))
    except (TrackaError, KeyError):
        # Nothing was launched: there is no manifest, or that of a row that could not start. The folder is kept as it
        # is, under a name that no attempt has.
        os.replace(folder.path, folder.path.with_name(f"{folder.path.name}{path_safety.SET_ASIDE}{time.time_ns()}"))


def _own_result(folder: RunFolder, run_id: str, number: int) -> Result | None:
    """Returns the result of an attempt; None where there is none, or where it is damaged or another attempt's."""
    result = schema.read_or_none("result", folder.result)
    return result if result and (result["run_id"], result["attempt"]) == (run_id, number) else None


def refuse(layout: Layout, manifest: Manifest, failed: Failure, findings: Sequence[Finding]) -> Result:
    """Makes an attempt of a row that could not start, and returns the attempt's result.

    The attempt has the manifest, a result with the reason, and the findings in its stderr.log. The caller holds the
    row's lock.
    """
    run_id = manifest["run_id"]
    _, folder = _next_folder(layout, run_id)
    _begin(layout, folder, manifest)
    files.write_text(folder.stderr, "".join(f"{finding}\n" for finding in findings))
    row_state.make_pending_held(layout, run_id)
    _publish(layout.run(run_id), folder, starting=True)
    return close(layout, folder, _result(layout, folder, manifest, failed))


def restore_marker(layout: Layout, result: Result) -> None:
    """Restores the marker of a finished run from the run's own files, if the marker was lost or damaged."""
    state = row_state.read(layout, result["run_id"])
    if state is None or state["status"] != result["status"]:
        _start_marker(layout, cast(Manifest, files.read_json(layout.run(result["run_id"]).manifest)))
        _end_marker(layout, result, notes=attempt_history.RESTORED)


def _start_marker(layout: Layout, manifest: Manifest) -> None:
    """Sets the row's marker to running, as the attempt of this manifest did or would have done."""
    values: row_state.Values = {"retry_index": manifest["retry_index"], "gpu_id": manifest["gpu_id"]}
    row_state.ensure_pending_held(layout, manifest["run_id"])
    row_state.advance(layout, manifest["run_id"], "running", manifest["attempt"], **values)


def _end_marker(layout: Layout, result: Result, notes: str) -> None:
    path = layout.relative(layout.run(result["run_id"]).result)
    sha256 = files.sha256_file(layout.run(result["run_id"]).result)
    manifest = files.read_json(layout.run(result["run_id"]).manifest)
    values: row_state.Values = {
        "result_path": path,
        "result_sha256": sha256,
        "reason": result["reason"],
        "retry_index": manifest["retry_index"],
        "notes": notes,
    }
    if "slurm" in manifest:  # Slurm has chosen another GPU than the marker named when the row began
        values["gpu_id"] = manifest["gpu_id"]
    row_state.advance(layout, result["run_id"], result["status"], result["attempt"], **values)


def _publish(top: RunFolder, folder: RunFolder, starting: bool = False) -> None:
    """Copies the attempt's files to the top of the run folder, the result last.

    With `starting`, the files of the attempt before are removed from the top first.
    """
    if starting:
        for old in (top.result, top.stdout, top.stderr, top.episodes):
            damaged.remove(old)
    for source, target in (
        (folder.manifest, top.manifest),
        (folder.stdout, top.stdout),
        (folder.stderr, top.stderr),
        (folder.episodes, top.episodes),
        (folder.result, top.result),
    ):
        if source.exists():
            files.copy_atomic(source, target)
