"""Phase 2: checks whether this host can run the campaign. Every check has its evidence and its remedy.

Rendering is proven, not assumed: a process with a row's own environment renders a LIBERO frame with the requested
backend and, where EGL fails, once with GLX (under Xvfb if there is no display). OSMesa is used only on request.
"""

import contextlib
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..campaign import campaign
from ..campaign.campaign import Campaign
from ..campaign.layout import Layout
from ..campaign.slurm_settings import Launcher
from ..core import damaged, files, schema
from ..core.check import Check, failed_check
from ..core.errors import Finding, TrackaError
from ..core.files import Json
from ..core.reports import HostReport, PreflightReport
from ..execution import gpu
from . import (
    batch_fit,
    blank_report,
    camera_views,
    cluster,
    host,
    host_probes,
    inventory,
    lerobot_checks,
    linter,
    node_jobs,
    policy_resources,
    rendering,
    report_inputs,
    simulator_validity,
)
from .camera_views import View
from .rendering import Frame

# Every report has these checks, beside those of frames, checkpoints and tokenizers.
HOST_CHECKS = (
    "gpus",
    "cuda",
    "version:lerobot",
    "version:mujoco",
    "libero_config",
    "libero_assets",
    "disk:artifacts",
    "disk:cache",
)
REQUIRED = (*HOST_CHECKS, "lerobot_import", "lerobot_eval_help", "plugins")


@dataclass
class PreflightConfig:
    """What one preflight checks: the plan's own dataclass. `artifacts_dir` is the campaign's `artifacts/preflight`."""

    task_suite: str
    policy_path: str
    mujoco_gl: str
    gpu_ids: list[int]
    artifacts_dir: Path


def config_of(campaign: Campaign) -> PreflightConfig:
    """Returns the preflight that the campaign's baseline needs, over all GPUs that the campaign expects."""
    row = campaign.row(campaign.baseline)
    gpus = list(range(campaign.host_gpus))
    return PreflightConfig(row.task_suite, row.policy_path, row.mujoco_gl, gpus, campaign.layout.preflight)


def run_preflight(
    cfg: PreflightConfig,
    accept_invalid_sim: bool = False,
    trusted: Sequence[str] = (),
    strict: bool = False,
    launcher: Launcher | None = None,
) -> PreflightReport:
    """Runs every check and returns the report, which `write_preflight_report` writes to disk.

    `accept_invalid_sim` accepts a simulator mismatch, and `strict` turns what the linter finds into errors, as the
    campaign's settings do. What `trusted` names may run code here, but not in rows, which see the campaign's setting
    alone. Where `launcher` or the campaign says slurm, the nodes of the cluster are checked instead of this host. Never
    raises for what the checks find: a missing GPU, package or checkpoint is a failed check.
    """
    cfg = replace(cfg, artifacts_dir=cfg.artifacts_dir.absolute())  # probes run in the campaign's folder, not in ours
    campaign = _campaign(cfg, accept_invalid_sim, trusted, strict, launcher)
    report = _nodes_report(cfg, campaign) if campaign.is_on_slurm else host_report(cfg, campaign)
    with contextlib.suppress(TrackaError):
        report_inputs.write(cfg.artifacts_dir, campaign, _request(cfg, campaign), report)
    return report


def run_and_write(
    cfg: PreflightConfig,
    accept_invalid_sim: bool = False,
    trusted: Sequence[str] = (),
    strict: bool = False,
    launcher: Launcher | None = None,
) -> PreflightReport:
    """Runs every check as `run_preflight` does, writes the report into the config's folder, and returns it.

    Until the report is there, an earlier one is not there either: what a preflight leaves that is cut off, even by
    KILL, says that it was interrupted.
    """
    path = cfg.artifacts_dir / report_inputs.REPORT
    write_preflight_report(blank_report.of_begun(Layout.beside(cfg.artifacts_dir), cfg.mujoco_gl), path)
    try:
        report = run_preflight(cfg, accept_invalid_sim, trusted, strict, launcher)
    except Exception:  # it has failed, and nobody has interrupted it
        damaged.remove(path)
        raise
    write_preflight_report(report, path)
    return report


def host_report(cfg: PreflightConfig, campaign: Campaign) -> PreflightReport:
    """Returns the report of every check of this host, whose logs and pictures go to the config's folder."""
    start = time.monotonic()
    files.make_folder(cfg.artifacts_dir)
    inventory.write(cfg.artifacts_dir)
    gpus, room = gpu.visible_gpus(), batch_fit.measure(cfg.artifacts_dir)  # before the probes take memory
    asked = (cfg.policy_path, cfg.mujoco_gl, cfg.gpu_ids, cfg.artifacts_dir)
    probed = host_probes.run(campaign, _suites(cfg, campaign), *asked)
    frames, frame = probed.frames, rendering.working_frame(probed.frames)
    checks = [
        *host.checks(cfg.gpu_ids, gpus, campaign, cfg.mujoco_gl),
        lerobot_checks.imports(frames),
        *rendering.checks(frames),
        lerobot_checks.plugins(campaign),
        probed.flags_check,
        *probed.resource_checks,
        *linter.checks(campaign, campaign.strict),
    ]
    checks += [batch_fit.check(campaign, room), *probed.model_checks]
    checks += simulator_validity.checks(_suites(cfg, campaign), probed.simulator, campaign.accept_invalid_sim)
    checks = [host_probes.with_remedy_for_time(campaign, check) for check in checks]
    camera_inputs = views(campaign, policy_resources.readable_checkpoints(probed.resource_checks), frame)
    return {
        **_report(cfg, _requiring_only_baseline(cfg, campaign, checks), gpus, frames, time.monotonic() - start),
        "invalid_tasks": simulator_validity.simulator_mismatches(probed.simulator),
        "resources": [item.record() for item in probed.resources],
        "views": [view.record() for view in camera_inputs],
    }


def _nodes_report(cfg: PreflightConfig, campaign: Campaign) -> PreflightReport:
    """Returns the report of one node of the cluster, with the checks of the cluster and of its other types of nodes."""
    start = time.monotonic()
    files.make_folder(cfg.artifacts_dir)
    checks = cluster.checks(campaign)
    found: list[node_jobs.Answer] = []
    if all(check.status == "pass" for check in checks):
        try:
            found = node_jobs.answers(campaign, _of_campaign(cfg, campaign), cfg.artifacts_dir)
            checks += cluster.node_checks(found)
        except TrackaError as error:
            checks.append(failed_check("slurm:nodes", error))
    of_node = node_jobs.take_over(found, cfg.artifacts_dir) or blank_report.make(cfg.mujoco_gl)
    records = [*of_node["checks"], *(check.record() for check in checks)]
    failed = [record for record in records if record["required"] and record["status"] == "fail"]
    return {
        **of_node,
        "checks": records,
        "status": "blocked" if failed or not found else "pass",
        "blocker": "; ".join(f"{record['name']}: {record['evidence']}" for record in failed) or None,
        "seconds": round(time.monotonic() - start, 3),
    }


def _of_campaign(cfg: PreflightConfig, campaign: Campaign) -> Json:
    """Returns what a node has to know: which campaign, which request, and what this preflight adds to the settings."""
    layout = campaign.layout
    return {
        **_request(cfg, None),
        "root": str(layout.root),
        "artifacts": layout.artifacts_name,
        "runs": layout.runs_name,
        "tier": layout.tier,
        "trusted": list(campaign.trusted),
        "strict": campaign.strict,
        "accept_invalid_sim": campaign.accept_invalid_sim,
    }


def config_at(folder: Path, request: Json) -> PreflightConfig:
    """Returns the preflight that a harness asks of its node, whose logs go to `folder`."""
    keys = ("task_suite", "policy_path", "mujoco_gl", "gpu_ids")
    return PreflightConfig(**{key: request[key] for key in keys}, artifacts_dir=folder)


def is_current(
    cfg: PreflightConfig, accept_invalid_sim: bool = False, strict: bool = False, launcher: Launcher | None = None
) -> bool:
    """Returns whether the written report stands for what `run_preflight` would find today, by its recorded inputs."""
    cfg = replace(cfg, artifacts_dir=cfg.artifacts_dir.absolute())
    campaign = _campaign(cfg, accept_invalid_sim, (), strict, launcher)
    with contextlib.suppress(TrackaError):
        return report_inputs.is_current(cfg.artifacts_dir, campaign, _request(cfg, campaign))
    return False


def _request(cfg: PreflightConfig, campaign: Campaign | None) -> Json:
    """Returns what a preflight was asked to check, wherever its artifacts lie, with the nodes that a cluster has.

    Raises TrackaError where a cluster does not answer.
    """
    asked = {key: value for key, value in asdict(cfg).items() if key != "artifacts_dir"}
    if campaign is None or not campaign.is_on_slurm:
        return asked
    return asked | {"nodes": [asdict(kind) for kind in node_jobs.node_types(campaign)]}


def _requiring_only_baseline(cfg: PreflightConfig, campaign: Campaign, checks: Sequence[Check]) -> list[Check]:
    """Returns the checks, with those of checkpoints other than the baseline's not required.

    A failed check of such a checkpoint fails only that checkpoint's rows.
    """
    other_paths = {row.policy_path for row in campaign.enabled} - {cfg.policy_path}
    return [replace(check, required=check.required and check.subject not in other_paths) for check in checks]


def views(campaign: Campaign, policy_paths: Sequence[str], frame: Frame | None) -> list[View]:
    """Returns which camera feeds which input of each of these checkpoints, with the pictures of `frame`."""
    pictures = frame.pictures if frame else {}
    camera_inputs: list[View] = []
    for policy_path in policy_paths:
        with contextlib.suppress(TrackaError):  # the check `features:` says why a checkpoint cannot be read
            camera_inputs += camera_views.views(campaign, policy_path, pictures)
    return camera_inputs


def _campaign(
    cfg: PreflightConfig, accept_invalid_sim: bool, trusted: Sequence[str], strict: bool, launcher: Launcher | None
) -> Campaign:
    """Returns the campaign around the artifacts, or a bare one, with what this preflight adds to its settings."""
    layout = Layout.beside(cfg.artifacts_dir)
    has_settings = layout.has_settings
    spec = campaign.load(layout.root, layout.tier) if has_settings else Campaign(layout, (), "", len(cfg.gpu_ids))
    return replace(
        spec.launched_by(launcher),
        accept_invalid_sim=accept_invalid_sim or spec.accept_invalid_sim,
        trusted=(*spec.trusted, *trusted),
        strict=strict or spec.strict,
    )


def _suites(cfg: PreflightConfig, campaign: Campaign) -> list[str]:
    return list(dict.fromkeys([cfg.task_suite, *(row.task_suite for row in campaign.enabled)]))


def _report(
    cfg: PreflightConfig, checks: list[Check], gpus: Sequence[gpu.Gpu], frames: list[Frame], seconds: float
) -> HostReport:
    failed_checks = [check for check in checks if check.required and check.status == "fail"]
    frame = rendering.working_frame(frames)
    return {
        "schema_version": schema.VERSION,
        "generated_at_utc": files.utc_now(),
        "status": "blocked" if failed_checks else "pass",
        "blocker": "; ".join(f"{check.name}: {check.evidence}" for check in failed_checks) or None,
        "checks": [check.record() for check in checks],
        "gpu_count": len(gpus),
        "gpu_names": [item.name for item in gpus],
        "gpus": [item.record() for item in gpu.states(gpus)],
        "display_env": os.environ.get("DISPLAY"),
        "mujoco_gl_requested": cfg.mujoco_gl,
        "mujoco_gl_effective": frame.backend if frame else None,
        "render_prefix": list(frame.prefix) if frame else [],
        "backend_attempts": [
            {
                "backend": item.backend,
                "gpu_id": item.device.gpu_id,
                "ok": item.ok,
                "evidence": item.evidence,
                "seconds": item.seconds,
            }
            for item in frames
        ],
        "python_version": platform.python_version(),
        "lerobot_import_ok": _all_passed(checks, "lerobot_import"),
        "lerobot_eval_help_ok": _all_passed(checks, "lerobot_eval_help"),
        "policy_resolve_ok": _all_passed(checks, "policy_resolve"),
        "seconds": round(seconds, 3),
    }


def _all_passed(checks: Sequence[Check], name: str) -> bool:
    return all(check.status == "pass" for check in checks if check.name.split(":")[0] == name and check.required)


def write_preflight_report(report: PreflightReport, out_path: Path) -> None:
    """Writes the report to `out_path`, which is `preflight.json`, atomically."""
    files.write_json(out_path, report)


def findings(report: PreflightReport, where: str) -> list[Finding]:
    """Returns the required checks of a report that failed, as findings. `where` names the report."""
    return [
        Finding(f"{where}, check {check['name']}", check["evidence"], check["remedy"] or "Read the check's evidence")
        for check in report["checks"]
        if check["required"] and check["status"] == "fail"
    ]
