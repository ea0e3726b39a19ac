"""Phase 2: can this host run the campaign? Every answer is a check with its evidence and its remedy.

Rendering is proven, not assumed: a LIBERO frame is rendered in a process with a row's own environment, with the
backend asked for and, where EGL fails, once with GLX (under Xvfb where there is no display). OSMesa is only ever
used when it is asked for.
"""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import build, campaign, checkpoint, discover, environment, files, gpu, inventory, plan, rendering, schema
from .campaign import Campaign
from .errors import Finding, TrackaError
from .layout import Layout
from .rendering import Backend

# The checks that every report has; beside them stand those of backends, checkpoints and tokenizers.
HOST_CHECKS = ("gpus", "version:lerobot", "version:mujoco", "libero_config", "libero_assets")
REQUIRED = (*HOST_CHECKS, "lerobot_import", "lerobot_eval_help")
MUJOCO = "3.3.7"
LEROBOT = "0.6.1"


@dataclass
class PreflightConfig:
    """The plan's own dataclass. `artifacts_dir` is the campaign's `artifacts/preflight`."""

    task_suite: str
    policy_path: str
    mujoco_gl: str
    gpu_ids: list[int]
    artifacts_dir: Path


@dataclass(frozen=True)
class Check:
    """One answer. `status` is pass, fail or warn; a required check that fails blocks the campaign."""

    name: str
    status: str
    evidence: str
    remedy: str | None = None
    required: bool = True
    seconds: float = 0.0


def config_of(spec: Campaign) -> PreflightConfig:
    """The preflight that the campaign's baseline asks for, over all GPUs that the campaign expects."""
    row = spec.row(spec.baseline)
    gpus = list(range(spec.expected_gpus))
    return PreflightConfig(row.task_suite, row.policy_path, row.mujoco_gl, gpus, spec.layout.preflight)


def run_preflight(cfg: PreflightConfig) -> dict[str, Any]:
    """Runs every check and returns the report, which `write_preflight_report` puts on disk.

    Never raises for what it finds: a missing GPU, package or checkpoint is a failed check.
    """
    start = time.monotonic()
    cfg = replace(cfg, artifacts_dir=cfg.artifacts_dir.absolute())  # the probe runs in the campaign's folder
    spec = _campaign(cfg)
    files.make_folder(cfg.artifacts_dir)
    inventory.write(cfg.artifacts_dir)
    gpus = gpu.inventory()
    backends = rendering.try_backends(spec, cfg.task_suite, cfg.mujoco_gl, cfg.gpu_ids, cfg.artifacts_dir)
    checks = [_gpus(cfg, gpus, spec.expected_gpus), *_versions(), *_libero(), _lerobot(backends), *_rendering(backends)]
    checks += [_help(spec), *_policies(cfg, spec)]
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


def _answer(name: str, good: bool, evidence: str, remedy: str) -> Check:
    return Check(name, "pass" if good else "fail", evidence, None if good else remedy)


def _gpus(cfg: PreflightConfig, gpus: Sequence[gpu.Gpu], expected: int) -> Check:
    """Those asked for by index, and as many as the campaign around needs."""
    wanted = sorted({*cfg.gpu_ids, *range(expected)})
    missing = [str(number) for number in wanted if number >= len(gpus)]
    evidence = f"{len(gpus)} visible, {len(wanted)} expected{'; missing: ' * bool(missing)}{', '.join(missing)}"
    if problem := gpu.problem():
        return _answer("gpus", False, f"{evidence}; {problem.where}: {problem.what}", problem.remedy or "")
    evidence += "".join(f"; in use: {line}" for each in gpus for line in _users(each))
    remedy = "Run on a host with them, free them in CUDA_VISIBLE_DEVICES, or lower expected_gpus in campaign.toml"
    return _answer("gpus", not missing, evidence, remedy)


def _users(one: gpu.Gpu) -> list[str]:
    """Who else computes on a GPU: it is no reason to stop, but one to ask."""
    return [f"{gpu.device_name(one.gpu_id)} by {each}" for each in gpu.processes(one.uuid)]


def _versions() -> list[Check]:
    found, wanted = plan.versions(), {"lerobot": LEROBOT, "mujoco": MUJOCO}
    remedy = "Run `make setup`: another MuJoCo changes the benchmark, another lerobot its command line"
    return [
        _answer(f"version:{name}", found[name].split("+")[0] == version, f"{found[name]}, pinned {version}", remedy)
        for name, version in wanted.items()
    ]


def _libero() -> list[Check]:
    """LIBERO's files, which set-up put in place and checked by hash: without them it asks on stdin, or downloads."""
    config = Path(environment.libero_config_path()) / "config.yaml"
    package = find_spec("libero")
    folders = (
        [Path(place) / "libero" / "assets" for place in (package.submodule_search_locations or ())] if package else []
    )
    evidence = ", ".join(map(str, folders)) or "LIBERO is not installed"
    return [
        _answer("libero_config", config.is_file(), str(config), "Run `make setup`"),
        _answer("libero_assets", any(folder.is_dir() for folder in folders), evidence, "Run `make setup`"),
    ]


def _lerobot(backends: Sequence[Backend]) -> Check:
    version = next((item.lerobot for item in backends if item.lerobot), None)
    evidence = f"lerobot {version} and LIBERO import" if version else backends[-1].evidence
    return _answer(
        "lerobot_import", version is not None, evidence, "Run `make setup`, then read preflight/render_*.err"
    )


def _rendering(backends: Sequence[Backend]) -> list[Check]:
    good = any(item.ok for item in backends)
    remedy = "Install libegl1 libegl-mesa0 libgl1-mesa-dri libgles2 libopengl0 (or NVIDIA's driver), or xvfb for GLX"
    return [
        Check(
            f"rendering:{item.name}",
            "pass" if item.ok else "warn" if good else "fail",
            item.evidence,
            None if item.ok else remedy,
            seconds=item.seconds,
        )
        for item in backends
    ]


def _help(spec: Campaign) -> Check:
    def ask() -> str:
        command = discover.find(discover.executable(spec))
        kind = spec.defaults.policy_type or ""
        return f"{len(discover.flags(discover.help_text(command, kind)))} flags, {discover.installed().version_text}"

    return _guarded("lerobot_eval_help", ask)


def _policies(cfg: PreflightConfig, spec: Campaign) -> list[Check]:
    """A check for each checkpoint of the campaign, and one for each tokenizer that those load by name."""
    wanted = dict.fromkeys([cfg.policy_path, *(row.policy_path for row in spec.enabled)])
    tokenizers: dict[str, None] = {}
    checks = [_guarded(f"policy_resolve:{path}", partial(_resolve, spec, path, tokenizers)) for path in wanted]
    return checks + [_guarded(f"tokenizer:{name}", partial(_tokenizer, name)) for name in tokenizers]


def _resolve(spec: Campaign, policy_path: str, tokenizers: dict[str, None]) -> str:
    """Brings the checkpoint here and adds the tokenizers it needs to `tokenizers`, even where it does not come."""
    default = checkpoint.DEFAULT_TOKENIZERS.get(spec.defaults.policy_type or "")
    try:
        build.ensure(spec, policy_path)
        point = checkpoint.resolve(policy_path, spec.layout.root, spec.policy_roots)
    except TrackaError:
        tokenizers.update(dict.fromkeys([default] if default else []))
        raise
    tokenizers.update(dict.fromkeys(checkpoint.tokenizers(point)))
    for row in spec.enabled:
        named = spec.settings(row).policy_type
        if row.policy_path == policy_path and named not in (None, point.policy_type):
            what = f"row {row.run_id} says policy_type {named}, the checkpoint is a {point.policy_type}"
            raise TrackaError(Finding(str(spec.layout.settings), what, "Mend policy_type, then run phase 1 again"))
    return f"{point.policy_type}, revision {point.revision or 'none (a folder)'}, tree {point.tree_sha256[:12]}"


def _tokenizer(name: str) -> str:
    return str(checkpoint.find_tokenizer(name))


def _guarded(name: str, step: Callable[[], str]) -> Check:
    start = time.monotonic()
    try:
        return Check(name, "pass", step(), seconds=round(time.monotonic() - start, 3))
    except TrackaError as error:
        what = "; ".join(f"{finding.where}: {finding.what}" for finding in error.findings)
        remedy = "; ".join(dict.fromkeys(finding.remedy for finding in error.findings))
        return Check(name, "fail", what, remedy, seconds=round(time.monotonic() - start, 3))


def findings(report: dict[str, Any], where: str) -> list[Finding]:
    """The required checks that failed, as findings."""
    return [
        Finding(f"{where}, check {check['name']}", check["evidence"], check["remedy"] or "See its evidence")
        for check in report["checks"]
        if check["required"] and check["status"] == "fail"
    ]
