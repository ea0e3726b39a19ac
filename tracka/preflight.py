"""Phase 2: can this host run the campaign? Every answer is a check with its evidence and its remedy.

Rendering is proven, not assumed: a LIBERO frame is rendered in a process with a row's own environment, with the
backend asked for and, where EGL fails, once with GLX (under Xvfb where there is no display). OSMesa is only ever
used when it is asked for.
"""

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import campaign, discover, files, gpu, host, inventory, linter, proposal, rendering, resource, schema
from .campaign import Campaign
from .check import Check, answer, guarded
from .errors import Finding
from .layout import Layout
from .rendering import Backend

# The checks that every report has; beside them stand those of backends, checkpoints and tokenizers.
HOST_CHECKS = ("gpus", "version:lerobot", "version:mujoco", "libero_config", "libero_assets")
REQUIRED = (*HOST_CHECKS, "lerobot_import", "lerobot_eval_help")


@dataclass
class PreflightConfig:
    """The plan's own dataclass. `artifacts_dir` is the campaign's `artifacts/preflight`."""

    task_suite: str
    policy_path: str
    mujoco_gl: str
    gpu_ids: list[int]
    artifacts_dir: Path


def config_of(spec: Campaign) -> PreflightConfig:
    """The preflight that the campaign's baseline asks for, over all GPUs that the campaign expects."""
    row = spec.row(spec.baseline)
    gpus = list(range(spec.expected_gpus))
    return PreflightConfig(row.task_suite, row.policy_path, row.mujoco_gl, gpus, spec.layout.preflight)


def run_preflight(cfg: PreflightConfig, strict: bool = False) -> dict[str, Any]:
    """Runs every check and returns the report, which `write_preflight_report` puts on disk.

    `strict` makes errors of what the linter finds, as the campaign's setting does.
    Never raises for what it finds: a missing GPU, package or checkpoint is a failed check.
    """
    start = time.monotonic()
    cfg = replace(cfg, artifacts_dir=cfg.artifacts_dir.absolute())  # the probe runs in the campaign's folder
    spec = _campaign(cfg)
    files.make_folder(cfg.artifacts_dir)
    inventory.write(cfg.artifacts_dir)
    gpus = gpu.inventory()
    backends = rendering.try_backends(spec, cfg.task_suite, cfg.mujoco_gl, cfg.gpu_ids, cfg.artifacts_dir)
    checks = [*host.checks(cfg.gpu_ids, gpus, spec.expected_gpus), _lerobot(backends), *rendering.checks(backends)]
    checks += linter.checks(spec, strict or spec.strict)
    checks.append(proposal.check(spec, proposal.measure(cfg.artifacts_dir)))
    checks += [_help(spec), *resource.checks(spec, cfg.policy_path)]
    return _report(cfg, checks, gpus, backends, time.monotonic() - start)


def _campaign(cfg: PreflightConfig) -> Campaign:
    layout = Layout.beside(cfg.artifacts_dir)
    if layout.settings.is_file():
        return campaign.load(layout.root)
    return Campaign(layout, (), "", len(cfg.gpu_ids))


def _report(
    cfg: PreflightConfig, checks: list[Check], gpus: Sequence[gpu.Gpu], backends: list[Backend], seconds: float
) -> dict[str, Any]:
    failed = [check for check in checks if check.required and check.status == "fail"]
    good = next((backend for backend in backends if backend.ok), None)
    return {
        "schema_version": schema.VERSION,
        "generated_at_utc": files.utc_now(),
        "status": "blocked" if failed else "pass",
        "blocker": "; ".join(f"{check.name}: {check.evidence}" for check in failed) or None,
        "checks": [vars(check) for check in checks],
        "gpu_count": len(gpus),
        "gpu_names": [item.name for item in gpus],
        "display_env": os.environ.get("DISPLAY"),
        "mujoco_gl_requested": cfg.mujoco_gl,
        "mujoco_gl_effective": good.name if good else None,
        "render_prefix": list(good.prefix) if good else [],
        "backend_attempts": [
            {"backend": item.name, "ok": item.ok, "evidence": item.evidence, "seconds": item.seconds}
            for item in backends
        ],
        "python_version": platform.python_version(),
        "lerobot_import_ok": _passed(checks, "lerobot_import"),
        "lerobot_eval_help_ok": _passed(checks, "lerobot_eval_help"),
        "policy_resolve_ok": _passed(checks, "policy_resolve"),
        "seconds": round(seconds, 3),
    }


def _passed(checks: Sequence[Check], name: str) -> bool:
    return all(check.status == "pass" for check in checks if check.name.split(":")[0] == name)


def write_preflight_report(report: dict[str, Any], out_path: Path) -> None:
    """Writes `preflight.json`, atomically."""
    files.write_json(out_path, report)


def _lerobot(backends: Sequence[Backend]) -> Check:
    version = next((item.lerobot for item in backends if item.lerobot), None)
    evidence = f"lerobot {version} and LIBERO import" if version else backends[-1].evidence
    return answer("lerobot_import", version is not None, evidence, "Run `make setup`, then read preflight/render_*.err")


def _help(spec: Campaign) -> Check:
    def ask() -> str:
        command = discover.find(discover.executable(spec))
        kind = spec.defaults.policy_type or ""
        return f"{len(discover.flags(discover.help_text(command, kind)))} flags, {discover.installed().version_text}"

    return guarded("lerobot_eval_help", ask)


def findings(report: dict[str, Any], where: str) -> list[Finding]:
    """The required checks that failed, as findings."""
    return [
        Finding(f"{where}, check {check['name']}", check["evidence"], check["remedy"] or "See its evidence")
        for check in report["checks"]
        if check["required"] and check["status"] == "fail"
    ]
