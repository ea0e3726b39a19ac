"""Records what a preflight report was made from, so that the same preflight is not done again.

The record lies beside the report, and holds a hash of the report and of each part of its inputs: campaign, request,
host, environment, software and checkpoints. A report with a failed check is always made anew, since what fails is often
mended outside these parts: access to a repository, room on a disk, a missing library.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..campaign.campaign import Campaign
from ..checkpoints import build, checkpoint, hub_dependencies
from ..core import damaged, files, hashing, schema
from ..core.errors import TrackaError
from ..core.files import Json
from ..core.reports import PreflightReport
from ..engines import cli_capabilities, codebase, software
from ..execution import environment
from . import inventory

NAME = "report_inputs.json"
REPORT = "preflight.json"
RENDERING = ("DISPLAY", "MUJOCO_EGL_DEVICE_ID")  # variables that change no outcome, and decide what renders


def write(folder: Path, campaign: Campaign, request: Json, report: PreflightReport) -> None:
    """Writes the record of `report` into `folder`, or removes an older record where a check of the report failed.

    `request` is what this preflight was asked to check.
    """
    damaged.remove(folder / NAME)
    if not _has_failed(report):
        with contextlib.suppress(TrackaError):
            record = {"report": _hash(files.redacted(report)), "inputs": inputs(campaign, request)}
            files.write_json(folder / NAME, {"schema_version": schema.VERSION, **record})


def is_current(folder: Path, campaign: Campaign, request: Json) -> bool:
    """Returns whether the report in `folder` is what a preflight of today would find: no check failed, same inputs."""
    record, report = files.read_or_empty(folder / NAME), schema.read_or_empty("preflight", folder / REPORT)
    if not report or _has_failed(report) or record.get("report") != _hash(report):
        return False
    with contextlib.suppress(TrackaError):
        return record.get("inputs") == inputs(campaign, request)
    return False


def inputs(campaign: Campaign, request: Json) -> dict[str, str]:
    """Returns the hash of each part of a preflight's inputs, by the part's name.

    Raises TrackaError where a checkpoint is missing or unsound.
    """
    root = campaign.layout.root
    parts: dict[str, Any] = {
        "campaign": dict(campaign.digests),
        "request": {**request, "trusted": campaign.trusted, "strict": campaign.strict}
        | {"accept_invalid_sim": campaign.accept_invalid_sim},
        "host": inventory.host_facts(),
        "environment": [environment.outcome_variables(), [os.environ.get(name) for name in RENDERING]],
        "software": [inventory.software_facts(), software.packages(root).versions, codebase.hashes(root)],
        "plugins": cli_capabilities.installed_software().plugins,
        "tracka": [__version__, hashing.of_kind(Path(__file__).parents[1], hashing.SOURCES)],
        "checkpoints": _checkpoints(campaign, str(request["policy_path"])),
    }
    return {name: _hash(part) for name, part in parts.items()}


def _checkpoints(campaign: Campaign, policy_path: str) -> list[Any]:
    """Returns the content of each checkpoint of the campaign, and of what each checkpoint loads by name."""
    contents: list[Any] = []
    for path in dict.fromkeys([policy_path, *(row.policy_path for row in campaign.enabled)]):
        build.ensure(campaign, path)
        point = checkpoint.resolve(path, campaign.layout.root, campaign.policy_roots)
        loaded = [hub_dependencies.content_hashes(point, campaign, each) for each in campaign.settings_of(path)]
        contents.append([path, point.revision, point.tree_sha256, loaded])
    return contents


def _has_failed(report: Mapping[str, Any]) -> bool:
    return report["status"] != "pass" or any(check["status"] == "fail" for check in report["checks"])


def _hash(value: Any) -> str:
    return files.sha256(files.canonical(value))
