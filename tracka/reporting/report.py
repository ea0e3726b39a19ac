"""Writes the pages that close a campaign, from artifacts alone.

`runbook.md` has the commands that ran, `results.md` has what came of them.
"""

import re
import shlex
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from ..campaign import commands
from ..campaign.campaign import Campaign
from ..campaign.layout import TIERS, Layout
from ..core import files, installation, schema
from ..core.artifacts import CheckpointRecord, Manifest
from ..engines import software, video
from ..execution import environment
from ..install import setup
from ..runs import refusal, sweep
from . import caveats, collect, rejected_rows, results_page, templating, verdict, verdict_file
from .collect import EvalRunResult


def write(campaign: Campaign) -> None:
    """Writes runbook.md and results.md of the campaign, or those of its tier."""
    facts = _facts(campaign) | {"generated_at_utc": files.utc_now()}
    own = partial(replay, tier=campaign.layout.tier)
    runbook = templating.render(
        "runbook.md.j2", facts | _commands(campaign, rejected_rows.to_run_again(facts["failures"])), replay=own
    )
    files.write_text(campaign.layout.runbook, runbook)
    files.write_text(campaign.layout.results, templating.render("results.md.j2", facts))


def is_up_to_date(campaign: Campaign, text: str) -> bool:
    """Returns whether `text`, a results.md, says what the artifacts say now.

    A page of this Track A is compared to the letter. A page in the words of another version is compared by its figures.
    """
    expected = files.redacted(_results_as(campaign, text))
    if campaign.layout.left_out is not None or not video.can_decode():
        text, expected = (_without_colours(page) for page in (text, expected))
    if text == expected or text.splitlines()[-1:] == expected.splitlines()[-1:]:
        return text == expected
    run_ids = [row.run_id for row in campaign.enabled]
    return _figures(text, run_ids) == _figures(expected, run_ids)


def _without_colours(page: str) -> str:
    """Returns a page without what needs the videos decoded."""
    return "".join(line for line in page.splitlines(keepends=True) if caveats.ONE_COLOUR not in line)


def _figures(text: str, run_ids: Sequence[str]) -> list[str]:
    """Returns what a results.md states whatever its words: the rows' lines, then each number, quoted name and link."""
    lines = [line for line in text.splitlines() if not line.startswith("<!--")]
    rows = [line for line in lines if line.startswith(tuple(f"| {run_id} |" for run_id in run_ids))]
    return [*rows, *re.findall(r"`[^`]+`|\]\([^)]+\)|[0-9][0-9.]*", "\n".join(lines))]


@cache
def _words_sha256() -> str:
    """Returns the hash of the code and the templates that make pages, by which pages of another version are known."""
    folder = Path(__file__).parent
    paths = sorted([*folder.glob("*.py"), *folder.glob("templates/*")])
    return files.sha256(b"".join(path.read_bytes() for path in paths))


def _results_as(campaign: Campaign, text: str) -> str:
    """Returns results.md as the artifacts give it now, but with the name, time and folder that stand in `text`.

    `text` is an earlier results.md, which can then be compared.
    """
    artifacts = re.escape(campaign.layout.relative(campaign.layout.artifacts))
    head = r"# Results of (?P<name>.*)\n\nMade by Track A at (?P<generated_at_utc>\S+) from `(?P<folder>.*)/"
    match = re.match(f"{head}{artifacts}`", text)
    heading = match.groupdict() if match else {"generated_at_utc": ""}
    return templating.render("results.md.j2", _facts(campaign) | heading)


def _facts(campaign: Campaign) -> dict[str, Any]:
    """Returns the facts on both pages, except the time at which they are made."""
    results, run_manifests = enabled_results(campaign), manifests(campaign)
    preflight = schema.read_or_empty("preflight", campaign.layout.preflight_report)
    reasons = collect.failure_reasons(campaign, results)
    return {
        "campaign": campaign,
        "words": _words_sha256()[:12],
        "name": campaign.name,
        "folder": campaign.layout.display_name,
        "artifacts": campaign.layout.relative(campaign.layout.artifacts),
        "tier_option": f" {commands.tier_option(campaign.layout)}" if campaign.tier else "",
        "manifests": run_manifests,
        "table": collect.markdown(results),
        "failures": reasons,
        "checkpoints": _checkpoints(run_manifests),
        "threshold": verdict.threshold(campaign),
        "verdict": verdict_file.read(campaign),
        "below_threshold": results_page.below_threshold(reasons),
        "all_judged": all(map(campaign.is_judged, campaign.compared_rows)),
        "totals": results_page.totals(campaign, results),
        "rows": results_page.rows(campaign, run_manifests),
        "tasks": results_page.tasks(campaign),
        "views": preflight.get("views", []),
        "caveats": [*caveats.of_preflight(campaign), *caveats.of_results(campaign), *caveats.of_history(campaign)],
        "own_settings": list(caveats.of_settings(campaign)),
    }


def _commands(campaign: Campaign, again: Sequence[str]) -> dict[str, Any]:
    """Returns the facts that only the runbook has: host, commands and disk use. All artifacts are walked for them.

    `again` are the rows that another run may change.
    """
    folder = campaign.layout.preflight
    return {
        "preflight": files.read_or_empty(campaign.layout.preflight_report),
        "gates": commands.named_gates(campaign.layout),
        "setup_command": installation.SETUP,
        "setups": setup.commands(folder / "setup.log"),
        "sweep": _sweep(campaign, [row.run_id for row in campaign.enabled]),
        "again": again,
        "stays": rejected_rows.STAYS,
        "other_campaign": rejected_rows.OTHER_CAMPAIGN,
        "rerun": _sweep(campaign, again),
        "megabytes": _megabytes(campaign.layout),
        "versions": software.versions(),
        "hf_home": files.read_or_empty(folder / "env_snapshot.json").get("env", {}).get("HF_HOME"),
    }


def enabled_results(campaign: Campaign) -> list[EvalRunResult]:
    """Returns the results of the enabled rows in the order of the matrix, as the pages show them."""
    enabled = {row.run_id for row in campaign.enabled}
    return [result for result in collect.campaign_results(campaign) if result.run_id in enabled]


def replay(manifest: Manifest, tier: str | None = None) -> str:
    """Returns one shell line that runs the command of a manifest, which may be of a `tier`, again.

    The new output goes into a folder of its own, so that the evidence stays as it is.
    """
    folder = f"replays/{TIERS}/{tier}" if tier else "replays"
    environ = [f"{name}={value}" for name, value in manifest["env"].items() if name in environment.REQUIRED_VARIABLES]
    output_flag = f"--output_dir={folder}/{manifest['run_id']}"
    argv = [output_flag if word.startswith("--output_dir=") else word for word in manifest["command"] or ()]
    return shlex.join(["env", *environ, *argv])


def _sweep(campaign: Campaign, run_ids: Sequence[str]) -> str:
    folder = Path(campaign.layout.display_name)
    matrix, runs, rows = (
        folder / path.relative_to(campaign.layout.root)
        for path in (campaign.layout.matrix, campaign.layout.runs, campaign.layout.rows)
    )
    return sweep.replay(matrix, runs, rows, max(campaign.expected_gpus, 1), run_ids)


def _megabytes(layout: Layout) -> dict[str, float]:
    """Returns the megabytes that all artifacts take, and the videos among them; files with several names count once.

    Artifacts of tiers are not those of their campaign.
    """
    paths = [path for path in files.walk_files(layout.artifacts) if layout.tier or layout.tiers not in path.parents]
    sizes = {(path.stat().st_ino, path.suffix): path.stat().st_size for path in paths}
    videos = sum(size for (_, suffix), size in sizes.items() if suffix == ".mp4")
    return {"all": sum(sizes.values()) / 1e6, "videos": videos / 1e6}


def manifests(campaign: Campaign) -> list[Manifest]:
    """Returns the valid manifests of the enabled rows that have run, in the order of the matrix.

    A row that could not start has not run.
    """
    known: dict[str, Any] = {}
    paths = [campaign.layout.run(row.run_id).manifest for row in campaign.enabled]
    read = (schema.read_or_none("run_manifest", path) for path in paths)
    return [_sharing(manifest, known) for manifest in read if manifest and refusal.has_started(manifest)]


def _sharing(manifest: Manifest, known: dict[str, Any]) -> Manifest:
    """Returns a manifest in which what equals a part of an earlier one is that part itself, by the text in `known`.

    Of 100,000 manifests nearly all variables, versions and words of commands are equal: a gigabyte less in memory.
    """
    parts = {key: known.setdefault(repr(value), value) for key, value in manifest.items() if key != "command"}
    words = [known.setdefault(repr(word), word) for word in manifest["command"] or ()]
    return cast(Manifest, parts | {"command": words if manifest["command"] is not None else None})


def _checkpoints(manifests: list[Manifest]) -> list[CheckpointRecord]:
    """Returns the different checkpoints that ran, each once."""
    records = [manifest["checkpoint"] for manifest in manifests]
    return list({point["tree_sha256"]: point for point in records}.values())
