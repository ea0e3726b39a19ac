"""Runs a row: `run_row` is the one function that the gates, `tracka run` and `tracka sweep` share.

Guarantees: one process at a time runs a row. A passed run with today's inputs and sound evidence is returned, never run
again. A passed run with other inputs is refused, never mixed. A failed attempt is followed by at most one more. A row
that cannot start leaves an attempt that says why, unless a passed run would be hidden by it. A crash leaves an attempt
that the next call closes as interrupted.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

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
from ..execution import gpu, slurm_outcome
from ..execution.gpu import Device
from . import attempt, evidence, identity, refusal, resume, row_state, slurm_row, time_budget
from .endings import Ending, Endings, NoLongerWanted
from .plan import Host, Plan, Refusal
from .refusal import RowRefused
from .time_budget import TimeBudget

FRESH_SECS = 0.5  # a plan that is no older when the device is held is not made again


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

    resume: bool = False  # judge a passed run again; give a failed one a further attempt, which goes on where it can
    allow_overwrite: bool = False  # run again what is there; with resume, only what passed with other inputs
    retry: bool = True  # follow a failed attempt by one retry, where that can help
    budget: TimeBudget | None = None  # of a tier's session, after which no attempt starts


def run_row(
    campaign: Campaign,
    row: Row,
    host: Host,
    policy: RerunPolicy = RerunPolicy(resume=True),
    retry_index: int = 0,
    endings: Sequence[Ending] = (),
) -> Result:
    """Runs `row` in five stages and returns its result, as in result.json.

    1. Plan: under the row's lock, closes what a dead process left, resolves and hashes the checkpoint, and decides what
       the attempt will do.
    2. Resume: returns a passed result of the same hash whose evidence is sound.
    3. Lease: holds the GPU that the row asks for, or names the CPU.
    4. Launch: writes the manifest into a new attempt's folder and starts the engine.
    5. Judge: decides from the attempt's files whether it passed. A failed attempt may be followed by one retry.

    Raises RunExists or ChangedRun where the run folder is in the way, Busy where another process runs the row,
    BudgetSpent where the row would start after its tier's time budget, and RowRefused where the checkpoint or the GPU
    is missing, after the row has left its evidence. A failed evaluation is a result, not an error. The manifest of the
    first attempt says `retry_index`; where that is not 0, the attempt is a retry already, and no other follows. Once
    one of `endings` has come, the row is not started, and a row that plays then is ended and fails by that reason.
    """
    layout = campaign.layout
    path_safety.require(layout, row.run_id)
    # A fault of the host, not of the row.
    code_safety.require_plugins(cli_capabilities.installed_software().plugins, campaign.trusted)
    with row_state.lock(layout, row.run_id):
        attempt.close_interrupted(layout, row.run_id)
        _require_free_folder(layout, row.run_id, policy)
        refusing = partial(_refusing, campaign, row, host, retry_index)
        with refusing(), fact_cache.scope():
            plan = replace(_sound_plan(campaign, row, host), retry_index=retry_index)
        planned = time.monotonic()
        passed = _resumable_result(plan, policy)
        if passed is not None:
            attempt.restore_marker(layout, passed)
            return passed
        ends = Endings(endings)
        ends.require_open()
        _require_own_program(campaign, host)
        row_state.ensure_pending_held(layout, row.run_id)
        time_budget.require(policy.budget, layout, row.run_id)
        with refusing(slurm_outcome.CONTROLLER):
            slurm_row.end_left_behind(campaign, row.run_id)
        with contextlib.ExitStack() as held:
            with refusing(failure.DEVICE):
                device = held.enter_context(slurm_row.hold_device(campaign, row, require_wanted=ends.require_open))
            time_budget.require(policy.budget, layout, row.run_id)
            if time.monotonic() - planned > FRESH_SECS:  # checkpoint and software may have changed meanwhile
                with refusing():
                    plan = replace(plan_row(campaign, row, host), retry_index=retry_index)
            ends.require_open()
            since = 1 if policy.resume else max(layout.run(row.run_id).numbers(), default=0) + 1
            return _attempts(plan, device, policy, ends, since)


def require_startable(campaign: Campaign, row: Row, host: Host) -> None:
    """Raises RowRefused, after the row has left its evidence, where its checkpoint or its GPU is missing.

    Waits until the row's GPU is free, and starts nothing.
    """
    with row_state.lock(campaign.layout, row.run_id):
        attempt.close_interrupted(campaign.layout, row.run_id)
        with _refusing(campaign, row, host, 0):
            _sound_plan(campaign, row, host)
        with _refusing(campaign, row, host, 0, failure.DEVICE), slurm_row.hold_device(campaign, row):
            pass


def refuse(campaign: Campaign, row: Row, host: Host, error: OSError) -> NoReturn:
    """Raises `error`, of the system that starts no process for the row, as RowRefused: see `_refusing`."""
    with row_state.lock(campaign.layout, row.run_id):
        attempt.close_interrupted(campaign.layout, row.run_id)
        with _refusing(campaign, row, host, 0):
            raise error
    raise error


@contextlib.contextmanager
def _refusing(campaign: Campaign, row: Row, host: Host, retry_index: int, reason: str | None = None) -> Iterator[None]:
    """Records an error of this block as an attempt that could not start, and raises it as RowRefused.

    Where a passed run with sound evidence is there, the error is raised as it is: that run cannot be judged today, and
    no failure may hide it. A row that is no longer wanted did not fail. The caller holds the row's lock.
    """
    try:
        yield
    except NoLongerWanted:
        raise
    except (TrackaError, OSError) as cause:
        error = refusal.as_error(cause) if isinstance(cause, OSError) else cause
        result = read_result(campaign.layout, row.run_id)
        if result is not None and result["status"] == "pass" and _is_sound(campaign, row, result):
            raise error from cause
        number = max(campaign.layout.run(row.run_id).numbers(), default=0) + 1
        manifest = refusal.manifest(campaign, row, host, number, retry_index)
        failed = refusal.of_error(error, reason)
        raise RowRefused(error, attempt.refuse(campaign.layout, manifest, failed, error.findings)) from cause


def _sound_plan(campaign: Campaign, row: Row, host: Host) -> Plan:
    """Returns the plan of the row's first attempt. Raises TrackaError where the row's checkpoint is refused."""
    checkpoint.resolve(row.policy_path, campaign.layout.root, campaign.policy_roots)  # one that is not here says why
    if why := preflight_refusal(campaign, row, host):
        raise UsageError(why)
    return plan_row(campaign, row, host)


def _attempts(plan: Plan, device: Device, policy: RerunPolicy, ends: Endings, since: int) -> Result:
    """Runs the plan and, where policy and failure allow it, once more. Returns the last attempt's result.

    An attempt keeps the episodes of cut-off attempts from the attempt `since` on.
    """
    result = attempt.run(plan, device, ends, since)
    is_spent = policy.budget is not None and policy.budget.is_spent
    if result["status"] == "pass" or plan.retry_index or not policy.retry or is_spent:
        return result
    batch_size = _next_batch(plan, result)
    return result if batch_size is None else attempt.run(plan.retry(batch_size), device, ends, since)


def _next_batch(plan: Plan, result: Result) -> int | None:
    """Returns the batch size of the retry after an attempt that failed with `result`; None where no retry helps.

    After a timeout the batch stays as it was where the retry goes on with episodes of that batch size.
    """
    folder = plan.campaign.layout.run(plan.row.run_id).attempt(result["attempt"])
    if result["reason"] == "timeout" and resume.goes_on(
        plan.campaign.layout, schema.read("run_manifest", folder.manifest)
    ):
        return plan.batch_size
    return failure.next_batch(result["reason"], plan.played_batch)


def _require_free_folder(layout: Layout, run_id: str, policy: RerunPolicy) -> None:
    """Raises RunExists where `policy` lets the run folder be neither resumed nor overwritten."""
    if not policy.resume and not policy.allow_overwrite and is_in_the_way(layout, run_id):
        remedy = "Choose another run id, or pass --allow-overwrite to run it again"
        raise RunExists(Finding(str(layout.run(run_id).path), "the run folder exists", remedy))


def is_in_the_way(layout: Layout, run_id: str) -> bool:
    """Returns whether a run folder is there that holds more than a dry run or attempts that could not start."""
    folder = layout.run(run_id)
    if not folder.path.exists() or is_dry_run(layout, run_id):
        return False
    manifests = [files.read_or_empty(folder.attempt(number).manifest) for number in folder.numbers()]
    return not folder.attempts.is_dir() or any(manifest.get("row_hash", "") is not None for manifest in manifests)


def _resumable_result(plan: Plan, policy: RerunPolicy) -> Result | None:
    """Returns the passed result that stands for this plan; None where the row has to run.

    A result whose evidence is refused does not stand. Raises ChangedRun where the row passed with other inputs and may
    not be overwritten.
    """
    campaign, row = plan.campaign, plan.row
    result = read_result(campaign.layout, row.run_id) if policy.resume else None
    if result is None or result["status"] != "pass" or not _is_sound(campaign, row, result, plan.row_hash):
        return None
    if result["row_hash"] == plan.row_hash:
        manifest, _ = evidence.read(campaign.layout, row.run_id)
        differences = [*evidence.against_matrix(campaign, row, manifest), *evidence.against_plan(plan, manifest)]
        return None if differences else result
    if policy.allow_overwrite:
        return None
    folder = campaign.layout.run(row.run_id)
    what, remedy = identity.change(folder.attempt(result["attempt"]), plan.identity_parts)
    raise ChangedRun(Finding(str(folder.manifest), what, remedy))


def _is_sound(campaign: Campaign, row: Row, result: Result, row_hash: str | None = None) -> bool:
    """Returns whether a passed run's files show what its result says.

    A run of an older hash version, whose row hash is not `row_hash`, counts as sound: another Track A judges it.
    """
    folder = campaign.layout.run(row.run_id).attempt(result["attempt"])
    is_older = result["row_hash"] != row_hash and identity.is_older(folder)
    return is_older or not evidence.refusals(campaign, row)


def passed_result(campaign: Campaign, row: Row, host: Host) -> Result:
    """Returns the passed result of a row without running it. Raises TrackaError where none has today's inputs."""
    result = _resumable_result(plan_row(campaign, row, host), RerunPolicy(resume=True))
    if result is None:
        where = str(campaign.layout.run(row.run_id).path)
        what = f"the row {row.run_id} has not passed, or its evidence is refused"
        raise UsageError(Finding(where, what, f"Run its phase first: {commands.gates(campaign.layout)}"))
    return result


def would_run(campaign: Campaign, row: Row, host: Host) -> bool:
    """Returns whether a call that resumes would start the row. Downloads nothing and writes nothing.

    A row that passed with other inputs than today's would be refused, not started.
    """
    result = read_result(campaign.layout, row.run_id)
    if result is None or result["status"] != "pass":
        return True
    try:
        if checkpoint.is_here(row.policy_path, campaign.layout.root):
            return _resumable_result(plan_row(campaign, row, host), RerunPolicy(resume=True)) is None
    except ChangedRun:
        return False
    except TrackaError:  # the checkpoint is refused today, so a passed run with sound evidence is left as it is
        pass
    return not _is_sound(campaign, row, result)


def has_refused_evidence(campaign: Campaign, row: Row, host: Host) -> bool:
    """Returns whether the row has passed, or lost its result, and its files do not show the pass."""
    folder, result = campaign.layout.run(row.run_id), read_result(campaign.layout, row.run_id)
    if not folder.path.exists() or is_dry_run(campaign.layout, row.run_id):
        return False
    return (result is None or result["status"] == "pass") and would_run(campaign, row, host)


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
    if is_in_the_way(layout, row.run_id) and not policy.allow_overwrite:
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
