"""Runs a row: `run_row` is the one function that the gates, `tracka run` and `tracka sweep` share.

Guarantees: one process at a time runs a row. A passed run with today's inputs is returned, never run again. A passed
run with other inputs is refused, never mixed. A failed attempt is followed by at most one more. A crash leaves an
attempt that the next call closes as interrupted.
"""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..campaign import commands, path_safety
from ..campaign.campaign import Campaign, EvalSettings
from ..campaign.layout import Layout
from ..campaign.matrix import CPU, Row
from ..checkpoints import checkpoint, code_safety, hub_dependencies, normalizer, python_dependencies, weights
from ..checkpoints.checkpoint import Checkpoint
from ..core import fact_cache, files, schema
from ..core.artifacts import Manifest, Result
from ..core.errors import Busy, ChangedRun, Finding, RunExists, TrackaError, UsageError, collect_findings
from ..core.files import Json
from ..core.reports import Capabilities
from ..engines import cli_capabilities, failure
from ..execution import gpu, lease
from ..execution.gpu import Device
from . import attempt, identity, row_state
from .plan import Host, Plan, Refusal


@fact_cache.remembered
def load_host(layout: Layout) -> Host:
    """Returns what phases 1 and 2 found out about this host.

    Raises UsageError where these phases have not run, or where preflight has not passed or found no backend.
    """
    missing = [path for path in (layout.capabilities, layout.preflight_report) if not path.is_file()]
    if missing:
        remedy = f"Run preflight first: {commands.gates(layout, "-m 'phase1 or phase2'")}"
        raise UsageError([Finding(str(path), "the file does not exist", remedy) for path in missing])
    capabilities = schema.read("cli_capabilities", layout.capabilities)
    report = schema.read("preflight", layout.preflight_report)
    if report["status"] != "pass" or report["mujoco_gl_effective"] is None:
        what = f"preflight is {report['status']} ({report['blocker']})"
        raise UsageError(Finding(str(layout.preflight_report), what, "Mend the cause and run preflight again"))
    return host_of(layout, report["mujoco_gl_effective"], capabilities, report)


def host_of(layout: Layout, backend: str, capabilities: Capabilities, report: Mapping[str, Any]) -> Host:
    """Returns what phase 1 and preflight's report say of this host, whose rows render with `backend`.

    The report may be empty.
    """
    return Host(
        backend,
        tuple(capabilities["executable"]),
        capabilities,
        tuple(report.get("render_prefix", ())),
        report.get("invalid_tasks", {}),
        _fingerprint(layout),
        preflight_refusals(report),
    )


def preflight_refusals(report: Mapping[str, Any]) -> dict[str, Refusal]:
    """Returns the policy_path of each checkpoint that preflight's report refuses -> why; empty for an empty report."""
    trees = {item["name"]: item["sha256"] for item in report.get("resources", ()) if item["kind"] == "policy"}
    failed_checks: dict[str, list[str]] = {}
    for check in report.get("checks", ()):
        policy_path = check["name"].partition(":")[2]
        if check["status"] == "fail" and policy_path in trees:
            failed_checks.setdefault(policy_path, []).append(check["name"])
    return {path: Refusal(tuple(names), trees[path]) for path, names in failed_checks.items()}


def _fingerprint(layout: Layout) -> str | None:
    """Returns the host's fingerprint from preflight's snapshot; None where there is none."""
    fingerprints = files.read_or_empty(layout.preflight / "env_snapshot.json").get("fingerprints", {})
    return str(fingerprints["host"]) if "host" in fingerprints else None


def plan_row(campaign: Campaign, row: Row, host: Host) -> Plan:
    """Resolves and hashes the row's checkpoint, and returns the plan of the row's first attempt.

    Raises TrackaError where the checkpoint is missing, unsound or untrusted.
    """
    settings = campaign.settings(row)
    point = _checkpoint(campaign, row.policy_path, [settings])
    normalizer.require(point.folder, settings, campaign.trusted)
    return _first_attempt(campaign, row, host, point, hub_dependencies.content_hashes(point, campaign, settings))


def _require_own_program(campaign: Campaign, host: Host) -> None:
    """Raises UsageError where lerobot-eval belongs to another Python, whose software no row's identity covers."""
    program, own_folder = Path(host.executable[0]), Path(sys.executable).absolute().parent
    if not campaign.executable and program.is_absolute() and program.parent != own_folder:
        what = f"lerobot-eval belongs to another Python ({program}), whose packages Track A does not know"
        remedy = f"Install Track A there and run it from there, or run phase 1 again with --python-bin {sys.executable}"
        raise UsageError(Finding(f"{campaign.layout.capabilities}, key executable", what, remedy))


def untrusted_code_findings(campaign: Campaign, rows: Sequence[Row]) -> list[Finding]:
    """Returns why the policies of `rows` could run code that nobody trusts, all at once. A missing or unsound
    checkpoint is reported by its rows, not here."""
    findings: list[Finding] = []
    for policy_path in dict.fromkeys(row.policy_path for row in rows):
        with contextlib.suppress(TrackaError):
            settings = [campaign.settings(row) for row in rows if row.policy_path == policy_path]
            collect_findings(findings, partial(_checkpoint, campaign, policy_path, settings))
    return list(dict.fromkeys(findings))


def _checkpoint(campaign: Campaign, policy_path: str, settings: Sequence[EvalSettings]) -> Checkpoint:
    """Returns the checkpoint. Raises TrackaError where it is missing or unsound, or where untrusted code could run.

    Such code may come with the checkpoint, with what the checkpoint loads by name, or with lerobot's plug-ins.
    """
    code_safety.require_plugins(cli_capabilities.installed_software().plugins, campaign.trusted)
    point = checkpoint.resolve(policy_path, campaign.layout.root, campaign.policy_roots)
    # The weights come first: a truncated file would be reported as untrusted, and nobody should trust it.
    weights.require(point.folder, campaign.layout.root)
    if findings := list(hub_dependencies.faults(point, campaign, settings)):
        raise UsageError(findings)
    python_dependencies.require(point, campaign)
    return point


def preflight_refusal(campaign: Campaign, row: Row, host: Host) -> Finding | None:
    """Returns why the row does not run, if preflight refuses its checkpoint and the checkpoint has not changed."""
    refusal = host.refused.get(row.policy_path)
    if refusal is None:
        return None
    with contextlib.suppress(TrackaError):
        point = checkpoint.resolve(row.policy_path, campaign.layout.root, campaign.policy_roots)
        if point.tree_sha256 != refusal.tree_sha256:
            return None
    what = f"preflight refuses the checkpoint {row.policy_path}: {', '.join(refusal.checks)}"
    remedy = f"Mend the checkpoint as the failed checks say, then run: {commands.gates(campaign.layout)}"
    return Finding(f"row {row.run_id}", what, remedy)


def _first_attempt(
    campaign: Campaign,
    row: Row,
    host: Host,
    point: Checkpoint,
    dependency_hashes: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """Returns the plan of the row's first attempt with the checkpoint `point`."""
    return Plan(
        campaign,
        row,
        host,
        point,
        row.batch_size,
        timeout_secs=campaign.timeout(row),
        dependency_hashes=dependency_hashes,
    )


@dataclass(frozen=True)
class RerunPolicy:
    """What to do with a run folder that exists."""

    resume: bool = False  # judge a passed run again, and give a failed one a further attempt
    allow_overwrite: bool = False  # run again what is there; with resume, only what passed with other inputs
    retry: bool = True  # follow a failed attempt by one retry, where that can help


def recorded_refusal(campaign: Campaign, row: Row) -> Finding | None:
    """Returns why the row never ran, if its marker says that its checkpoint was refused."""
    if campaign.layout.run(row.run_id).numbers():
        return None
    state = row_state.read(campaign.layout, row.run_id)
    if state is None or state["reason"] != failure.REFUSED:
        return None
    what = f"the row did not run, since its checkpoint {row.policy_path} is refused"
    return Finding(f"row {row.run_id}", what, f"Mend the checkpoint, then run: {commands.gates(campaign.layout)}")


def run_row(
    campaign: Campaign, row: Row, host: Host, policy: RerunPolicy = RerunPolicy(resume=True), retry_index: int = 0
) -> Result:
    """Runs `row` in five stages and returns its result, as in result.json.

    1. Plan: resolves and hashes the checkpoint, and decides what the attempt will do.
    2. Resume: under the row's lock, closes what a dead process left, and returns a passed result of the same hash.
    3. Lease: holds the GPU that the row asks for, or names the CPU.
    4. Launch: writes the manifest into a new attempt's folder and starts the engine.
    5. Judge: decides from the attempt's files whether it passed. A failed attempt may be followed by one retry.

    Raises RunExists or ChangedRun where the run folder is in the way, Busy where another process runs the row, and
    TrackaError where the checkpoint or the GPU is missing. A failed evaluation is a result, not an error. The manifest
    of the first attempt says `retry_index`; where that is not 0, the attempt is a retry already, and no other follows.
    """
    layout = campaign.layout
    path_safety.require(layout, row.run_id)
    plan = replace(_plan_or_refuse(campaign, row, host), retry_index=retry_index)
    with row_state.lock(layout, row.run_id):
        attempt.close_interrupted(layout, row.run_id)
        result = _resumable_result(plan, policy)
        if result is not None:
            attempt.restore_marker(layout, result)
            return result
        _require_own_program(campaign, host)
        row_state.ensure_pending_held(layout, row.run_id)
        with lease.hold(row.gpu_id, lease.worker_number(), keep=True) as device:
            return _attempts(_plan_again(plan), device, policy.retry)


def _plan_or_refuse(campaign: Campaign, row: Row, host: Host) -> Plan:
    """Returns the plan of the row's first attempt. Raises TrackaError where the row's checkpoint is refused.

    The row's marker says so before the error is raised.
    """
    code_safety.require_plugins(
        cli_capabilities.installed_software().plugins, campaign.trusted
    )  # a fault of the host, not of the checkpoint
    try:
        if refusal := preflight_refusal(campaign, row, host):
            raise UsageError(refusal)
        return plan_row(campaign, row, host)
    except TrackaError as error:
        with contextlib.suppress(Busy), row_state.lock(campaign.layout, row.run_id):
            attempt.refuse(campaign.layout, row.run_id, str(error.findings[0]))
        raise


def _plan_again(plan: Plan) -> Plan:
    """Returns the plan as of now, since the row may have waited for its device for hours. Call it with the row's lock.

    Raises TrackaError where the checkpoint is refused by now; the row's marker says so before the error is raised.
    """
    try:
        return replace(plan_row(plan.campaign, plan.row, plan.host), retry_index=plan.retry_index)
    except TrackaError as error:
        attempt.refuse(plan.campaign.layout, plan.row.run_id, str(error.findings[0]))
        raise


def _attempts(plan: Plan, device: Device, retry: bool) -> Result:
    """Runs the plan and, with `retry` and where the failure allows it, once more. Returns the last attempt's result."""
    result = attempt.run(plan, device)
    if result["status"] == "pass" or plan.retry_index or not retry:
        return result
    batch_size = failure.next_batch(result["reason"], plan.played_batch)
    return result if batch_size is None else attempt.run(plan.retry(batch_size), device)


def _resumable_result(plan: Plan, policy: RerunPolicy) -> Result | None:
    """Returns the passed result that stands for this plan; None where the row has to run.

    Raises RunExists where `policy` lets the run folder be neither resumed nor overwritten, and ChangedRun where the row
    passed with other inputs and may not be overwritten.
    """
    layout, run_id = plan.campaign.layout, plan.row.run_id
    folder = layout.run(run_id)
    if not folder.path.exists() or is_dry_run(layout, run_id):
        return None
    if not policy.resume and not policy.allow_overwrite:
        remedy = "Choose another run id, or pass --allow-overwrite to run it again"
        raise RunExists(Finding(str(folder.path), "the run folder exists", remedy))
    result = read_result(layout, run_id) if policy.resume else None
    if result is None or result["status"] != "pass":
        return None
    if result["row_hash"] == plan.row_hash:
        return result
    if policy.allow_overwrite:
        return None
    what, remedy = identity.change(folder.attempt(result["attempt"]), plan.identity_parts)
    raise ChangedRun(Finding(str(folder.manifest), what, remedy))


def passed_result(campaign: Campaign, row: Row, host: Host) -> Result:
    """Returns the passed result of a row without running it. Raises TrackaError where none has today's inputs."""
    result = _resumable_result(plan_row(campaign, row, host), RerunPolicy(resume=True))
    if result is None:
        where = str(campaign.layout.run(row.run_id).path)
        remedy = f"Run its phase first: {commands.gates(campaign.layout)}"
        raise UsageError(Finding(where, f"the row {row.run_id} has not passed", remedy))
    return result


def close_left_behind(layout: Layout, run_id: str) -> None:
    """Closes the attempt that a killed process left open, unless another process is running the row."""
    if layout.run(run_id).attempts.is_dir():
        with contextlib.suppress(Busy), row_state.lock(layout, run_id):
            attempt.close_interrupted(layout, run_id)


def read_result(layout: Layout, run_id: str) -> Result | None:
    """Returns the valid result.json of a run.

    Returns None where the result is missing, damaged or of another attempt than the manifest, or where the attempt that
    the result was copied from is lost.
    """
    return read_files(layout, run_id)[1]


def read_files(layout: Layout, run_id: str) -> tuple[Json, Result | None]:
    """Returns a run's manifest as it stands, empty if it cannot be read, and the run's result as `read_result` does."""
    folder = layout.run(run_id)
    result, manifest = schema.read_or_none("result", folder.result), files.read_or_empty(folder.manifest)
    if result is None or result["run_id"] != run_id or manifest.get("run_id") != run_id:
        return manifest, None
    is_current = result["attempt"] == manifest.get("attempt") and folder.attempt(result["attempt"]).result.is_file()
    return manifest, result if is_current else None


def device_name(layout: Layout, run_id: str) -> str:
    """Returns what the run ran on, `cpu` or `GPU 3`, by the run's manifest."""
    return gpu.device_name(files.read_json(layout.run(run_id).manifest)["gpu_id"])


def is_dry_run(layout: Layout, run_id: str) -> bool:
    """Returns whether the run folder holds nothing but a dry run."""
    folder = layout.run(run_id)
    return not folder.numbers() and files.read_or_empty(folder.manifest).get("dry_run") is True


def dry_run(
    campaign: Campaign, row: Row, host: Host, policy: RerunPolicy = RerunPolicy(), retry_index: int = 0
) -> Manifest:
    """Returns the manifest of a run that does not start, flagged as a dry run, and writes it unless a real run exists.

    Raises RunExists where a real run exists and `policy` does not allow overwriting.
    """
    layout = campaign.layout
    folder = layout.run(row.run_id)
    path_safety.require(layout, row.run_id)
    if folder.path.exists() and not is_dry_run(layout, row.run_id) and not policy.allow_overwrite:
        raise RunExists(Finding(str(folder.path), "the run folder exists", "Choose another run id for a dry run"))
    manifest = dry_manifest(campaign, row, host, retry_index)
    if is_dry_run(layout, row.run_id) or not folder.path.exists():
        files.write_json(folder.manifest, manifest)
    return manifest


def dry_manifest(campaign: Campaign, row: Row, host: Host, retry_index: int = 0) -> Manifest:
    """Returns the manifest of a run that does not start. Leases no GPU, downloads nothing and writes nothing."""
    device = gpu.CPU_DEVICE if row.gpu_id == CPU else Device(max(row.gpu_id, 0), str(max(row.gpu_id, 0)))
    point = checkpoint.resolve_without_download(row.policy_path, campaign.layout.root)
    plan = replace(_first_attempt(campaign, row, host, point), retry_index=retry_index)
    return plan.manifest(campaign.layout.run(row.run_id).attempt(1), device, plan.environ(device), 1, dry_run=True)
