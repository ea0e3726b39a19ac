"""Makes a preflight report without answers: of nodes that have not answered, and of a preflight that was cut off."""

import platform
from collections.abc import Mapping
from typing import Any

from ..campaign import commands
from ..campaign.layout import Layout
from ..core import files, schema
from ..core.check import Check
from ..core.reports import HostReport, PreflightReport

BEGUN = "preflight"  # the only check of a preflight that has begun and has not come to its end


def make(mujoco_gl: str) -> PreflightReport:
    """Returns a report of nothing; `mujoco_gl` is the backend that was asked for."""
    host: HostReport = {
        "schema_version": schema.VERSION,
        "generated_at_utc": files.utc_now(),
        "status": "blocked",
        "blocker": None,
        "checks": [],
        "gpu_count": 0,
        "gpu_names": [],
        "gpus": [],
        "display_env": None,
        "mujoco_gl_requested": mujoco_gl,
        "mujoco_gl_effective": None,
        "render_prefix": [],
        "backend_attempts": [],
        "python_version": platform.python_version(),
        "lerobot_import_ok": False,
        "lerobot_eval_help_ok": False,
        "policy_resolve_ok": False,
        "seconds": 0.0,
    }
    return {**host, "invalid_tasks": {}, "resources": [], "views": []}


def of_begun(layout: Layout, mujoco_gl: str) -> PreflightReport:
    """Returns the report of a preflight of the campaign at `layout` that begins now."""
    blank = make(mujoco_gl)
    evidence = f"interrupted: preflight began at {blank['generated_at_utc']} and has not come to its end"
    again = f"Run it again: {commands.gates(layout, '--lf')}" if layout.has_settings else "Run it again"
    check = Check(BEGUN, "fail", evidence, again)
    return {**blank, "checks": [check.record()], "blocker": f"{BEGUN}: {evidence}"}


def is_of_begun(report: Mapping[str, Any]) -> bool:
    """Returns whether `report` is of a preflight that has not come to its end."""
    return [check["name"] for check in report.get("checks", ())] == [BEGUN]
