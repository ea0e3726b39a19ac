"""Turns the words of a command line into a campaign, rows and a host.

The campaign is the one around the named folders, and explicit flags take precedence over it.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import typer

from .campaign import campaign, matrix, path_safety, shards
from .campaign.campaign import Campaign
from .campaign.layout import TIERS, Layout
from .campaign.matrix import Row
from .campaign.shards import Shard
from .core import close_match, lerobot_facts, parsing, schema
from .core.errors import Finding, UsageError, collect_findings, joined_names, shortened
from .engines import cli_capabilities
from .preflight.preflight import PreflightConfig
from .reporting.collect import BASELINE_SUMMARY, EvalRunResult
from .runs import preregistration, run
from .runs.plan import Host


def policy(policy_path: str, layout: Layout | None = None) -> str:
    """Returns the policy path that a matrix has for what `policy_path` names on a command line.

    A folder on a command line is relative to where the user stands, a folder in a matrix to the campaign. A path that
    the matrix of `layout` has, too, means the matrix's policy. Another folder is returned absolute, and a repository of
    the hub as it is.
    """
    campaign = campaign_beside(layout) if layout else None
    known = dict.fromkeys(row.policy_path for row in campaign.rows) if campaign else {}
    if not policy_path or policy_path in known or not Path(policy_path).is_dir():
        return policy_path
    folder = Path(policy_path).resolve()
    same = (path for path in known if campaign and (campaign.layout.root / path).resolve() == folder)
    return next(same, str(Path(policy_path).absolute()))


def preflight_config(suite: str, policy_path: str, backend: str, gpu_ids: str, artifacts_dir: Path) -> PreflightConfig:
    """Returns the preflight that the command line asks for. Raises UsageError with all words that are wrong."""
    choices = {"--task-suite": (suite, tuple(lerobot_facts.SUITE_TASKS)), "--mujoco-gl": (backend, matrix.BACKENDS)}
    findings = [
        Finding(flag, f"{shortened(word)!r} is unknown", f"Use one of {', '.join(words)}")
        for flag, (word, words) in choices.items()
        if word not in words
    ]
    gpus = collect_findings(findings, lambda: numbers("--gpu-ids", gpu_ids, "GPU"))
    if findings or gpus is None:
        raise UsageError(findings)
    path = policy(policy_path, Layout.beside(artifacts_dir))
    return PreflightConfig(suite, path, backend, list(gpus), artifacts_dir)


def numbers(flag: str, text: str, kind: str) -> tuple[int, ...]:
    """Returns the numbers in `text`, separated by commas. Raises UsageError with all words that are no numbers."""
    words = [word for word in text.split(",") if word]
    wrong_words = [word for word in words if re.fullmatch("[0-9]{1,4}", word) is None]
    if wrong_words:
        raise UsageError(
            [Finding(flag, f"{shortened(word)!r} is not a {kind} index", "Write 0,1,2") for word in wrong_words]
        )
    return tuple(int(word) for word in words)


def require_resolution(resolve: float | None, n_episodes: int | None) -> float:
    """Returns the difference to be resolved. Raises UsageError without one, and where a number of episodes is given."""
    if resolve is None:
        what = "they say how to resolve a drop, and no --resolve is given"
        raise UsageError(Finding("--rate, --discordance", what, "Add --resolve 0.05, or leave them out"))
    if n_episodes is not None:
        what = "--resolve chooses the number of episodes, and one is given"
        raise UsageError(Finding("--n-episodes", what, "Leave one of the two out"))
    return resolve


def resolved(
    resolve: float, threshold: float | None, rate: float | None, discordance: float | None, tasks: int
) -> tuple[int, list[str]]:
    """Returns how many episodes of each of `tasks` tasks resolve what is asked, and what that means in sentences.

    Raises UsageError with everything that is wrong with the options.
    """
    from .reporting import resolution  # scipy takes half a second to import

    asked = resolution.Resolution(resolve, threshold, rate, discordance)
    per_task = resolution.episodes_per_task(asked, tasks)
    return per_task, [*resolution.words(asked, tasks, per_task)]


def require_text(words: Sequence[str]) -> None:
    """Raises UsageError for words of a command line that are no text, such as a path in another encoding."""
    if findings := [
        Finding(f"argument {shortened(word)!a}", fault, "Give it another name, in UTF-8")
        for word in words
        if (fault := parsing.text_fault(word))
    ]:
        raise UsageError(findings)


def require_alone(context: typer.Context, flag: str, besides: Sequence[str]) -> None:
    """Raises UsageError with every option of a command line that cannot stand with `flag`.

    `besides` are the parameters that can.
    """
    given = [
        parameter
        for parameter in context.command.params
        if parameter.name not in (flag, *besides)
        and (source := context.get_parameter_source(str(parameter.name))) is not None
        and source.name != "DEFAULT"
    ]
    if given:
        names = joined_names([parameter.opts[0] for parameter in given])
        raise UsageError(Finding(names, f"--{flag} decides this itself", f"Leave {names} or --{flag} out"))


def campaign_beside(layout: Layout) -> Campaign | None:
    """Returns the campaign in the folder of `layout`, with the artifacts of `layout`; None where there is none."""
    return campaign.load_at(layout) if layout.has_settings else None


def places_in_tier(flag: str, folder: Path, tier: str | None) -> Callable[[Path], Path]:
    """Returns a function from places among the campaign's own artifacts to those of the tier that `--tier` names.

    `folder`, which `flag` names, is a folder of these artifacts. The function returns other places as they are, and all
    of them without `--tier`. Raises UsageError where the folder is of another tier, or of no campaign.
    """
    if tier is None:
        return lambda path: path
    layout = Layout.of_runs(folder)
    if layout.tier not in (None, tier):
        what = f"the folder is of the tier {layout.tier}, but --tier names {shortened(tier)!r}"
        raise UsageError(Finding(f"{flag} {folder}", what, "Leave --tier out, or name the campaign's own folder"))
    if not layout.has_settings:
        what = f"{layout.root} is not a campaign, so it has no tier {shortened(tier)!r}"
        raise UsageError(Finding("--tier", what, f"Name a folder of a campaign's artifacts as {flag}"))
    return partial(_place_in_tier, replace(layout, tier=campaign.load(layout.root, tier).layout.tier))


def _place_in_tier(layout: Layout, path: Path) -> Path:
    own, place = layout.own_artifacts.resolve(), path.absolute().parent.resolve() / path.name
    if not place.is_relative_to(own) or place.is_relative_to(own / TIERS):
        return path
    moved = layout.artifacts / place.relative_to(own)
    return moved if path.is_absolute() else Path(os.path.relpath(moved))


def register(layout: Layout) -> None:
    """Registers the thresholds of the campaign that a command is about to run rows of, as its files have them."""
    if campaign_there := campaign_beside(layout):
        preregistration.ensure(campaign_there)


def one_row(artifacts_root: Path, row: Row, timeout_secs: int) -> Campaign:
    """Returns the campaign beside the runs folder with `row` in the place of the row of the same name.

    Where there is no campaign, it is a bare one with this row alone. Raises UsageError where artifacts must not be
    written.
    """
    layout = Layout.of_runs(artifacts_root)
    campaign = campaign_beside(layout) or Campaign(layout, (), row.run_id, 0)
    path_safety.require(campaign.layout, row.run_id)
    other_rows = tuple(other for other in campaign.rows if other.run_id != row.run_id)
    table = {**campaign.row_tables.get(row.run_id, {}), "timeout_secs": timeout_secs}
    return replace(campaign, rows=(*other_rows, row), row_tables={**campaign.row_tables, row.run_id: table})


def host(campaign: Campaign, row: Row) -> Host:
    """Returns the host with the row's backend, which is the command line's, and lerobot-eval's flags.

    The flags are read from phase 1's file, or asked of lerobot-eval now where that file is missing. Raises UsageError
    where preflight has decided for another backend.
    """
    layout = campaign.layout
    report = schema.read_or_empty("preflight", layout.preflight_report)
    _require_backend(layout, row.mujoco_gl, report)
    is_discovered = layout.capabilities.is_file()
    capabilities = (
        schema.read("cli_capabilities", layout.capabilities)
        if is_discovered
        else cli_capabilities.discover_for(campaign)
    )
    return run.host_of(layout, row.mujoco_gl, capabilities, report)


def _require_backend(layout: Layout, backend: str, report: Mapping[str, Any]) -> None:
    """Raises UsageError where preflight's report decides for another backend than `backend`, or for none."""
    decision = report.get("mujoco_gl_effective")
    if not report or decision == backend:
        return
    what, remedy = (
        f"preflight, the check of this host, decided for {decision}",
        f"Pass --mujoco-gl {decision}, or run preflight again",
    )
    if decision is None:
        what, remedy = f"preflight found no backend that renders: {report['blocker']}", "Mend that, run preflight again"
    raise UsageError(Finding(f"--mujoco-gl {backend}", f"{what} ({layout.preflight_report})", remedy))


def preflight_doubt(layout: Layout, backend: str) -> str | None:
    """Returns why preflight does not vouch for a run with this backend; None where its report is pass."""
    report = schema.read_or_empty("preflight", layout.preflight_report)
    if not report:
        command = f"tracka preflight --mujoco-gl {backend} --artifacts-dir {layout.preflight} ..."
        return f"no preflight has run here, so nothing confirms that {backend} renders on this host: {command}"
    return None if report["status"] == "pass" else f"preflight is {report['status']}: {report['blocker']}"


def many_rows(matrix_path: Path, artifacts_root: Path, status_dir: Path) -> Campaign:
    """Returns the campaign beside the runs folder with the rows of the matrix.

    Raises UsageError where matrix, runs folder and status folder do not fit together.
    """
    layout = Layout.of_runs(artifacts_root)
    findings: list[Finding] = []
    if status_dir.resolve() != layout.rows.resolve():
        what = f"the markers of {artifacts_root} are in {layout.rows}"
        findings.append(Finding("--status-dir", f"{what}, not in {status_dir}", "Name the folder of the markers"))
    matrix_layout = Layout(matrix_path.resolve().parent.parent)
    if (
        matrix_layout.matrix == matrix_path.resolve()
        and matrix_layout.has_settings
        and matrix_layout.root != layout.root
    ):
        what = f"{matrix_path} belongs to the campaign {matrix_layout.root}"
        what += f", whose settings do not apply to {artifacts_root}"
        findings.append(Finding("--artifacts-root", what, f"Name {matrix_layout.runs}"))
    spec = collect_findings(findings, lambda: campaign_beside(layout))
    collect_findings(findings, lambda: path_safety.require(spec.layout if spec else layout))
    rows = collect_findings(findings, lambda: matrix.load(matrix_path, replay=True))
    if findings or rows is None:
        raise UsageError(list(dict.fromkeys(findings)))
    spec = spec or Campaign(layout, rows, rows[0].run_id if rows else "", 0)
    return replace(spec, rows=_of_tier(spec, rows))


def _of_tier(campaign: Campaign, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Returns the rows of a matrix as the campaign's tier has them."""
    return campaign.tier.cut_rows(rows, campaign.baseline) if campaign.tier else rows


def replay_matrix(campaign: Campaign, matrix_path: Path) -> Path:
    """Returns the matrix that a replay command names: the campaign's own, if it has the same rows as `matrix_path`.

    A failures.csv is written anew with the next tables, and may lack rows by then.
    """
    own = campaign.layout.matrix
    if not own.is_file() or own.samefile(matrix_path):
        return matrix_path
    rows = {replace(row, line=0) for row in _of_tier(campaign, matrix.load(own))}
    if not rows.issuperset(replace(row, line=0) for row in campaign.rows):
        return matrix_path
    return own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own


def chosen_rows(campaign: Campaign, names: str, shard: Shard | None = None) -> tuple[Row, ...]:
    """Returns the enabled rows, those of a shard of them, or those that `names` lists, separated by commas.

    Raises UsageError for every wrong name, and where both names and a shard are given.
    """
    if names and shard:
        what = "--rows names the rows, and --shard chooses some"
        raise UsageError(Finding(f"--rows, --shard {shard}", what, "Leave one of the two out"))
    rows = _named_rows(campaign, names)
    return shards.rows_of(campaign, rows, shard) if shard else rows


def _named_rows(campaign: Campaign, names: str) -> tuple[Row, ...]:
    run_ids = [word.strip() for word in names.split(",") if word.strip()]
    rows_by_id = {row.run_id: row for row in campaign.rows}
    if not run_ids and (names or not campaign.enabled):
        raise UsageError(Finding("--rows", "no row is selected", f"Name some of {joined_names(list(rows_by_id))}"))
    findings = [
        _wrong_name(campaign, run_id, rows_by_id)
        for run_id in run_ids
        if run_id not in rows_by_id or not rows_by_id[run_id].enabled
    ]
    if findings:
        raise UsageError(findings)
    return tuple(rows_by_id[run_id] for run_id in dict.fromkeys(run_ids)) if run_ids else campaign.enabled


def _wrong_name(campaign: Campaign, run_id: str, rows_by_id: dict[str, Row]) -> Finding:
    tier = campaign.tier
    if run_id in rows_by_id and tier and not tier.has(run_id):
        remedy = f"Add the row to tiers.{tier.name}.rows, or leave --tier out"
        return Finding("--rows", f"the row {run_id!r} is not in the tier {tier.name}", remedy)
    if run_id in rows_by_id:
        return Finding("--rows", f"the row {run_id!r} is disabled", "Set its column enabled to 1")
    asked = close_match.asked_name(run_id, rows_by_id)
    remedy = f"{asked}Name some of {joined_names(list(rows_by_id))}"
    return Finding("--rows", f"the matrix has no row {shortened(run_id)!r}", remedy)


def summarised(campaign: Campaign | None, path: Path, results: list[EvalRunResult]) -> list[EvalRunResult]:
    """Returns the results that belong into the table at `path`: the baseline alone in the baseline's own summary."""
    if campaign is None or path.absolute().parent.resolve() != campaign.layout.summary.resolve():
        return results
    baseline_only = path.stem == BASELINE_SUMMARY
    return [result for result in results if not baseline_only or result.run_id == campaign.baseline]
