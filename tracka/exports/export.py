"""Exports a campaign in one of the formats that other tools read, or says everything that keeps it from being exported.

Guarantees: the same results give the same file; nothing is written where anything is wrong.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..campaign import campaign as campaigns
from ..campaign.campaign import Campaign
from ..core import files
from ..core.errors import Finding, UsageError, joined_names, shortened
from ..reporting import played_episodes
from . import ctrf, eval_info, hub_results, played_rows, rerun_recording
from .hub_results import HubOptions
from .played_rows import PlayedRows

HUB, EVAL_INFO, CTRF, RERUN = FORMATS = ("hub", "eval-info", "ctrf", "rerun")


@dataclass(frozen=True)
class ExportOptions:
    """What to export and where. `run_ids` are the rows; a recording is of one `episode` of one `task` of one row.

    Without `output` the file lies in artifacts/exports/.
    """

    output: Path | None = None
    tier: str | None = None
    run_ids: Sequence[str] = ()
    task: int | None = None
    episode: int | None = None
    hub: HubOptions = field(default_factory=HubOptions)


@dataclass(frozen=True)
class Export:
    """One export: the campaign at `path`, the file to write, and the findings so far, which are of the options."""

    path: Path
    campaign: Campaign
    options: ExportOptions
    target: Path
    findings: Sequence[Finding]

    def require_none(self, *more: Iterable[Finding]) -> None:
        """Raises UsageError with all findings, if there are any."""
        if findings := [*self.findings, *(finding for each in more for finding in each)]:
            raise UsageError(findings)

    def played(self) -> PlayedRows:
        """Returns the rows to be exported."""
        return played_rows.read(self.path, self.options.tier, self.options.run_ids)


def write(path: Path, form: str, options: ExportOptions) -> Path:
    """Exports the campaign at `path`, a folder or `FOLDER::POLICY`, and returns the file.

    Raises UsageError with everything that is wrong, and ToolMissing where the format's library is not installed.
    """
    if form not in FORMATS:
        raise UsageError(
            Finding("--format", f"{shortened(form)!r} is unknown", f"Use one of {joined_names(FORMATS, len(FORMATS))}")
        )
    folder, _ = played_episodes.place_and_policy(path)
    campaign = campaigns.load(folder, options.tier)
    target = (options.output or campaign.layout.artifacts / "exports" / _name(form, options)).absolute()
    _WRITERS[form](Export(path, campaign, options, target, [*_misplaced(form, options)]))
    return target


def _name(form: str, options: ExportOptions) -> str:
    recording = "_".join(str(each) for each in (*options.run_ids, options.task, options.episode))
    return {
        HUB: f"{hub_results.FOLDER}/tracka.yaml",
        EVAL_INFO: eval_info.NAME,
        CTRF: "ctrf.json",
        RERUN: f"{recording}.rrd",
    }[form]


def _misplaced(form: str, options: ExportOptions) -> Iterator[Finding]:
    """Yields the options that mean nothing for the format."""
    given = {
        "--row": (bool(options.run_ids), (HUB, EVAL_INFO, RERUN)),
        "--task": (options.task is not None, (RERUN,)),
        "--episode": (options.episode is not None, (RERUN,)),
        "the options of the hub": (options.hub != HubOptions(), (HUB,)),
    }
    for name, (is_given, forms) in given.items():
        if is_given and form not in forms:
            yield Finding(name, f"it means nothing for --format {form}", f"Leave it out, or use {' or '.join(forms)}")


def _write_hub(export: Export) -> None:
    played, options = export.played(), export.options.hub
    export.require_none(played.findings, hub_results.faults(options, played))
    files.write_text(export.target, hub_results.text(options, played))


def _write_eval_info(export: Export) -> None:
    played = export.played()
    export.require_none(played.findings)
    files.write_json(export.target, eval_info.make(played, export.target.parent))


def _write_ctrf(export: Export) -> None:
    export.require_none(ctrf.faults(export.campaign))
    files.write_json(export.target, ctrf.make(export.campaign))


def _write_rerun(export: Export) -> None:
    options, campaign = export.options, export.campaign
    if len(options.run_ids) != 1 or options.task is None or options.episode is None:
        remedy = "Name one of each: --row RUN_ID --task T --episode N"
        export.require_none([Finding("--format rerun", "a recording is of one episode", remedy)])
        return
    wanted = (options.run_ids[0], options.task, options.episode)
    export.require_none(rerun_recording.faults(campaign, *wanted))
    rerun_recording.require_sdk()
    if episode := rerun_recording.find(campaign, *wanted):
        rerun_recording.write(campaign, episode, export.target)


_WRITERS: dict[str, Callable[[Export], None]] = {
    HUB: _write_hub,
    EVAL_INFO: _write_eval_info,
    CTRF: _write_ctrf,
    RERUN: _write_rerun,
}
