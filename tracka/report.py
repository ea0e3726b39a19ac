"""Closure: `runbook.md`, the commands that ran, and `results.md`, what came out, made from artifacts alone."""

import shlex
from importlib import resources
from pathlib import Path
from typing import Any

from . import collect, environment, files
from .campaign import Campaign
from .collect import EvalRunResult
from .files import Json


def write(campaign: Campaign) -> None:
    """Writes both pages of the campaign."""
    facts = _facts(campaign)
    files.write_text(campaign.layout.runbook, _render("runbook.md.j2", facts))
    files.write_text(campaign.layout.results, _render("results.md.j2", facts))


def _render(name: str, facts: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    text = resources.files(__package__).joinpath("templates", name).read_text()
    page = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    page.filters |= {"replay": replay, "quote": shlex.quote}
    return page.from_string(text).render(facts)


def _facts(campaign: Campaign) -> dict[str, Any]:
    results = enabled_results(campaign)
    manifests = [_manifest(campaign, row.run_id) for row in campaign.enabled]
    return {
        "campaign": campaign,
        "folder": _folder(campaign),
        "preflight": files.read_or_empty(campaign.layout.preflight_report),
        "manifests": [manifest for manifest in manifests if manifest],
        "table": collect.markdown(results),
        "failures": collect.failure_reasons(campaign, results),
        "checkpoints": _checkpoints(manifests),
        "generated_at_utc": files.utc_now(),
    }


def enabled_results(campaign: Campaign) -> list[EvalRunResult]:
    """The results of the enabled rows, in the matrix's order: what the pages show."""
    enabled = {row.run_id for row in campaign.enabled}
    return [result for result in collect.campaign_results(campaign) if result.run_id in enabled]


def replay(manifest: Json) -> str:
    """One shell line that runs what ran, but into a folder of its own: evidence stays as it is."""
    environ = [f"{name}={value}" for name, value in manifest["env"].items() if name in environment.NEEDED]
    elsewhere = f"--output_dir=replays/{manifest['run_id']}"
    argv = [elsewhere if word.startswith("--output_dir=") else word for word in manifest["command"]]
    return shlex.join(["env", *environ, *argv])


def _folder(campaign: Campaign) -> str:
    """The campaign as a command names it: from where we are if it lies below, else its whole path."""
    root = campaign.layout.root
    return str(root.relative_to(Path.cwd())) if root.is_relative_to(Path.cwd()) else str(root)


def _manifest(campaign: Campaign, run_id: str) -> Json:
    return files.read_or_empty(campaign.layout.run(run_id).manifest)


def _checkpoints(manifests: list[Json]) -> list[Json]:
    """The different checkpoints that ran, each once."""
    found = [manifest["checkpoint"] for manifest in manifests if manifest]
    return list({point["tree_sha256"]: point for point in found}.values())
