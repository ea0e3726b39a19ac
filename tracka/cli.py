"""Decides whether a robot policy is accepted. Begin with `tracka doctor`, then `tracka init`.

Exit codes: 0 done, 1 a run or a check failed, 2 bad input, 3 a tool is missing, 4 an installation failed, 5 busy.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import (
    __version__,
    cli_bundle,
    cli_cluster,
    cli_doctor,
    cli_export,
    cli_init,
    cli_replay,
    cli_report,
    cli_statistics,
    command_help,
    completion,
    flag_help,
)
from .campaign import campaign, matrix, path_safety, shards, slurm_settings
from .campaign.layout import PHASES, Layout
from .core import extras, files, held_folder, system_errors
from .core.check import Check
from .core.counting import counted
from .core.errors import Finding, ToolMissing, TrackaError, UsageError, screen
from .execution import ending_signals, environment, process_setup
from .install import setup

app = typer.Typer(cls=flag_help.Group, no_args_is_help=True, pretty_exceptions_enable=False)
cli_statistics.register(app)
cli_report.register(app)
cli_export.register(app)
cli_replay.register(app)
cli_cluster.register(app)
cli_bundle.register(app)
cli_doctor.register(app)
cli_init.register(app)

COMPLETION = "_TRACKA_COMPLETE"  # set by the shell's own function, which asks for completions
SHARED = ("baseline", "init", "schema", "setup")  # these make what is shared, which keeps to the user's umask
Tier = Annotated[
    str | None,
    typer.Option(
        autocompletion=completion.tier,
        help="A tier of the campaign: the campaign's own artifacts then stand for the tier's.",
    ),
]
Where = Annotated[
    slurm_settings.Launcher | None, typer.Option("--launcher", help="Where rows run; by default as campaign.toml says.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")]


def main() -> None:
    """Runs the command. Findings go to stderr, one a line, and the exit code of their error goes to the shell."""
    if COMPLETION in os.environ:
        app()  # nothing is run, and a shell waits
    from . import cli_request
    from .runs import worker

    process_setup.prepare()
    os.environ["HF_HOME"] = environment.hf_home()  # set before anything imports the hub's client
    try:
        process_setup.refuse_nested_run()
        ending_signals.interrupt_once()
        cli_request.require_text(sys.argv[1:])
        held_folder.remove_of_dead()
        with system_errors.as_own_errors():
            app()
    except TrackaError as error:
        print(files.redacted(screen(error.findings)), file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if (missing := extras.finding(error)) is None:
            raise
        print(screen([missing]), file=sys.stderr)
        sys.exit(ToolMissing.exit_code)
    except OSError as error:
        print(files.redacted(screen([system_errors.finding(error)])), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        worker.print_redacted("interrupted", error=True)
        sys.exit(ending_signals.EXIT_CODE)
    finally:
        ending_signals.mark_as_handled()


def _print_version(asked: bool) -> None:
    if asked:
        print(f"tracka {__version__}")
        raise typer.Exit


@app.callback(help=__doc__)
def before_command(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand not in SHARED:
        files.keep_private()


@app.command("schema")
def schema_command(root: Annotated[Path, typer.Option(help="The campaign's folder.")]) -> None:
    """Write the campaign's configs/run_schema.json as this Track A has it."""
    from . import new_campaign

    new_campaign.write_schema(campaign.load(root).layout)


@app.command("discover")
def discover_command(
    artifacts_dir: Annotated[Path, typer.Option(help="The folder for cli_capabilities.json: artifacts/state.")],
    python_bin: Annotated[str, typer.Option(help="The Python whose lerobot-eval is asked.")] = "python",
    trust: Annotated[list[str] | None, typer.Option(help="A plug-in that this call may import; repeatable.")] = None,
    tier: Tier = None,
    dry_run: DryRun = False,
) -> None:
    """Find out which flags the installed lerobot-eval has."""
    from . import cli_request
    from .engines import cli_capabilities

    artifacts_dir = cli_request.places_in_tier("--artifacts-dir", artifacts_dir, tier)(artifacts_dir)
    path_safety.require_folder(artifacts_dir)
    # Our own environment comes first, so that `python` is its Python even where it is not activated.
    python = shutil.which(python_bin, path=environment.base()["PATH"])
    if python is None:
        raise ToolMissing(
            Finding("--python-bin", f"the program {python_bin!r} does not exist", "Name an installed Python")
        )
    campaign = cli_request.campaign_beside(Layout.beside(artifacts_dir))
    program, policy_types = (
        (cli_capabilities.executable(campaign), cli_capabilities.policy_types(campaign)) if campaign else ((), [])
    )
    if dry_run:
        command = " ".join(cli_capabilities.find(program, Path(python)))
        print(f"would ask {command} and write {artifacts_dir}/cli_capabilities.json")
        return
    capabilities = cli_capabilities.discover(
        artifacts_dir, program, policy_types, Path(python), (*(campaign.trusted if campaign else ()), *(trust or ()))
    )
    flags = capabilities["supported_flags"]
    print(f"{capabilities['version_text']}: {len(flags)} flags, in {artifacts_dir}/cli_capabilities.json")


@app.command(
    "setup",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def setup_command(context: typer.Context) -> None:
    """Make or refresh the environment of a campaign. On a fresh machine: python3.12 -m tracka setup."""
    raise typer.Exit(setup.main(context.args))


@app.command("preflight")
def preflight_command(
    task_suite: Annotated[str, typer.Option(autocompletion=completion.suite, help="LIBERO suite.")],
    policy_path: Annotated[str, typer.Option(help="A folder, or a repository of the hub: repo, repo@revision.")],
    mujoco_gl: Annotated[str, typer.Option(autocompletion=completion.backend, help="One of egl, glx and osmesa.")],
    artifacts_dir: Annotated[Path, typer.Option(help="The folder for preflight.json: artifacts/preflight.")],
    gpu_ids: Annotated[str, typer.Option(help="Comma-separated; empty for the CPU.")] = "",
    trust: Annotated[
        list[str] | None, typer.Option(help="A name whose code this preflight may run; repeatable.")
    ] = None,
    accept_invalid_sim: Annotated[
        bool, typer.Option("--accept-invalid-sim", help="Go on although the simulator is invalid.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Treat the linter's findings as errors.")] = False,
    tier: Tier = None,
    launcher: Where = None,
    dry_run: DryRun = False,
) -> None:
    """Check this host: GPUs, rendering, software, checkpoints. Exits with 1 if a required check fails."""
    from . import cli_request
    from .preflight import preflight

    artifacts_dir = cli_request.places_in_tier("--artifacts-dir", artifacts_dir, tier)(artifacts_dir)
    path_safety.require_folder(artifacts_dir)
    cfg = cli_request.preflight_config(task_suite, policy_path, mujoco_gl, gpu_ids, artifacts_dir)
    if dry_run:
        gpus = counted(len(cfg.gpu_ids), "GPU")
        print(f"would check {gpus}, render {task_suite} with {mujoco_gl}, resolve {policy_path}")
        print(f"would write preflight.json and snapshots of host and software into {artifacts_dir}")
        return
    report = preflight.run_and_write(cfg, accept_invalid_sim, trust or (), strict, launcher)
    _print_checks([Check(**check) for check in report["checks"]])
    raise typer.Exit(0 if report["status"] == "pass" else 1)


def _print_checks(checks: list[Check]) -> None:
    """Prints each check on a line, and below a check that did not pass its remedy."""
    for check in checks:
        print(f"{check.status:5} {check.name}: {check.evidence}")
        if check.status != "pass" and check.remedy:
            print(f"      {check.remedy}")


@app.command("check")
def check_command(
    policy_path: Annotated[str, typer.Argument(help="A folder, or a repository of the hub: repo, repo@revision.")],
    trust: Annotated[list[str] | None, typer.Option(help="A name whose code may run; repeatable.")] = None,
) -> None:
    """Check one checkpoint in seconds: its files, statistics, features and tensors. Exits with 1 if a check fails."""
    from . import campaign_defaults, cli_request
    from .checkpoints import mistyped_folder
    from .preflight import model_tensors, policy_resources, preflight

    if finding := mistyped_folder.finding(policy_path, Path.cwd()):
        raise UsageError(finding)
    if mistyped_folder.is_taken_as_repository(policy_path, Path.cwd()):
        print(f"{policy_path}: this is not a folder here, so it is taken as a repository of the hub", file=sys.stderr)
    settings = campaign_defaults.settings(cli_request.policy(policy_path), Path.cwd())  # as `tracka init` sets them
    spec = campaign.Campaign(Layout(Path.cwd()), (), "", 0, defaults=settings, trusted=tuple(trust or ()))
    with held_folder.make() as folder:
        checks = policy_resources.policy_checks(spec, cli_request.policy(policy_path))
        checks += model_tensors.checks(spec, policy_resources.harmless_checkpoints(checks), folder)
    _print_checks(checks)
    for view in preflight.views(spec, policy_resources.readable_checkpoints(checks), None):
        print(f"      {view.camera} ({view.size}) feeds {view.input or 'nothing'}")
    raise typer.Exit(1 if any(check.required and check.status == "fail" for check in checks) else 0)


@app.command("propose")
def propose_command(
    root: Annotated[Path, typer.Option(autocompletion=completion.campaign, help="The campaign's folder.")],
    apply: Annotated[bool, typer.Option("--apply", help="Write the smaller batch sizes into the matrix.")] = False,
) -> None:
    """Propose smaller batches where this host is short of memory or cores."""
    from .preflight import batch_fit

    spec = campaign.load(root)
    smaller = batch_fit.smaller_batches(spec, batch_fit.measure(spec.layout.root))
    for run_id, size in smaller.items():
        print(f"{run_id}: batch_size {spec.row(run_id).batch_size} -> {size}")
    if apply:
        batch_fit.apply(spec, smaller)
    print(f"{len(smaller)} of {len(spec.enabled)} rows {'changed' if apply else 'would change'}")


@app.command("run")
def run_command(
    run_id: Annotated[str, typer.Option(autocompletion=completion.run_id, help="The name of the run's folder.")],
    policy_path: Annotated[str, typer.Option(help="A folder, or a repository of the hub: repo, repo@revision.")],
    task_suite: Annotated[str, typer.Option(autocompletion=completion.suite, help="LIBERO suite.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Episodes that are played at a time.")],
    n_episodes: Annotated[int, typer.Option(min=1, help="Episodes of each LIBERO task.")],
    gpu_id: Annotated[str, typer.Option(help="A GPU's index, auto or cpu.")],
    mujoco_gl: Annotated[
        str,
        typer.Option(autocompletion=completion.backend, help="The backend that preflight chose: egl, glx or osmesa."),
    ],
    artifacts_root: Annotated[Path, typer.Option(help="The runs folder: artifacts/runs.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode.")] = 7,
    timeout_secs: Annotated[int, typer.Option(min=1, help="Seconds after which the run is ended.")] = 10800,
    retry_index: Annotated[int, typer.Option(min=0, max=1, help="1 records that this is a retry.")] = 0,
    allow_overwrite: Annotated[
        bool, typer.Option("--allow-overwrite", help="Run again though the run's folder exists; no attempt is lost.")
    ] = False,
    tier: Tier = None,
    launcher: Where = None,
    dry_run: DryRun = False,
) -> None:
    """Run one evaluation once, without a retry, and leave its evidence in the runs folder."""
    from . import cli_request
    from .execution import harness_session
    from .runs import run, worker

    artifacts_root = cli_request.places_in_tier("--artifacts-root", artifacts_root, tier)(artifacts_root)
    layout = Layout.of_runs(artifacts_root)
    policy_path = cli_request.policy(policy_path, layout)
    words = [run_id, task_suite, str(batch_size), str(n_episodes), gpu_id, str(seed), mujoco_gl, policy_path, "1"]
    row = matrix.parse(words, "command line")  # checks what typer cannot check
    campaign = cli_request.one_row(artifacts_root, row, timeout_secs).launched_by(launcher)
    host = cli_request.host(campaign, row)
    policy = run.RerunPolicy(allow_overwrite=allow_overwrite, retry=False)
    if doubt := cli_request.preflight_doubt(layout, mujoco_gl):
        worker.print_redacted(f"warning: {doubt}", error=True)
    if dry_run:
        print(" ".join(run.dry_run(campaign, row, host, policy, retry_index)["command"] or ()))
        return
    cli_request.register(layout)
    with harness_session.hold() as survivors:
        for warning in harness_session.warnings(survivors):
            worker.print_redacted(warning, error=True)
        code = worker.execute(campaign, row, host, policy, retry_index)
    raise typer.Exit(code)


@app.command("sweep")
def sweep_command(
    matrix: Annotated[Path, typer.Option(help="The matrix: configs/eval_matrix.csv, or failures.csv.")],
    artifacts_root: Annotated[Path, typer.Option(help="The runs folder: artifacts/runs.")],
    status_dir: Annotated[Path, typer.Option(help="The folder of the row markers: artifacts/state/rows.")],
    max_parallel: Annotated[int, typer.Option(min=1, help="Rows at a time.")] = 8,
    rows: Annotated[
        str,
        typer.Option(autocompletion=completion.run_ids, help="Comma-separated run ids; by default all enabled rows."),
    ] = "",
    shard: Annotated[str, typer.Option(help="I/N: run the I-th of N shards, by matrix and settings alone.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Run only the rows that have not passed.")] = False,
    tier: Tier = None,
    launcher: Where = None,
    no_live: Annotated[bool, typer.Option("--no-live", "-q", help="Show no live table, no line a minute.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Run the rows of a matrix, several at a time. Exits with 1 if one of them fails; writes no summary."""
    from . import cli_request, live_view
    from .runs import early_stop, run, sweep, worker

    place = cli_request.places_in_tier("--artifacts-root", artifacts_root, tier)
    artifacts_root, status_dir = place(artifacts_root), place(status_dir)
    campaign = cli_request.many_rows(matrix, artifacts_root, status_dir).launched_by(launcher)
    if not campaign.rows and not rows:
        print(f"{matrix} names no row: there is nothing to run again")
        return
    own_matrix = cli_request.replay_matrix(campaign, matrix)
    part = shards.parse("--shard", shard) if shard else None
    chosen_rows, host = cli_request.chosen_rows(campaign, rows, part), run.load_host(campaign.layout)
    if not chosen_rows:
        print(f"shard {part} has no row: there are fewer rows than shards")
        return
    if dry_run:
        for row in chosen_rows:
            if early_stop.excused(campaign, row) is None and (not resume or run.would_run(campaign, row, host)):
                print(f"{row.run_id}: {shlex.join(run.dry_manifest(campaign, row, host)['command'] or ())}")
        return
    run_ids = [row.run_id for row in chosen_rows]
    all_ids = [] if part else run_ids  # a shard's rows have a short name
    cli_request.register(campaign.layout)
    try:
        with live_view.of_sweep(campaign, chosen_rows, max_parallel, resume, quiet=no_live) as session:
            codes = sweep.sweep(campaign, chosen_rows, host, run.RerunPolicy(resume=resume), max_parallel, session)
    except KeyboardInterrupt:
        replay = sweep.replay(own_matrix, artifacts_root, status_dir, max_parallel, all_ids, part)
        worker.print_redacted(f"interrupted; replay: {replay}")
        raise typer.Exit(ending_signals.EXIT_CODE) from None
    failed_ids = [run_id for run_id in run_ids if codes[run_id]]
    worker.print_redacted(f"{len(run_ids) - len(failed_ids)} of {len(run_ids)} rows passed")
    replay = sweep.replay(own_matrix, artifacts_root, status_dir, max_parallel, failed_ids or all_ids, part)
    worker.print_redacted(f"replay: {replay}")
    raise typer.Exit(1 if failed_ids else 0)


@app.command("collect")
def collect_command(
    runs_root: Annotated[Path, typer.Option(help="The runs folder: artifacts/runs.")],
    summary_csv: Annotated[Path, typer.Option(help="The table to write: artifacts/summary/all_runs.csv.")],
    summary_md: Annotated[Path, typer.Option(help="The same as Markdown: artifacts/summary/all_runs.md.")],
    failures_csv: Annotated[
        Path | None, typer.Option(help="The rows that are not accepted: artifacts/summary/failures.csv.")
    ] = None,
    tier: Tier = None,
    dry_run: DryRun = False,
) -> None:
    """Make tables of all runs: CSV, Markdown, and the rows that are not accepted."""
    from . import cli_request
    from .reporting import collect

    place = cli_request.places_in_tier("--runs-root", runs_root, tier)
    runs_root, summary_csv, summary_md = map(place, (runs_root, summary_csv, summary_md))
    failures_csv = place(failures_csv) if failures_csv else None
    campaign = cli_request.campaign_beside(Layout.of_runs(runs_root))
    if campaign is None and not runs_root.is_dir():
        raise UsageError(Finding("--runs-root", f"the folder {runs_root} does not exist", "Name a folder of runs"))
    if failures_csv and campaign is None:
        what = f"{runs_root} is not in a campaign's folder, so its enabled rows are unknown"
        raise UsageError(
            Finding("--failures-csv", what, "Name the runs folder of a campaign: tasks/NAME/artifacts/runs")
        )
    targets = [path for path in (summary_csv, summary_md, failures_csv) if path]
    if len({path.absolute() for path in targets}) < len(targets):
        raise UsageError(Finding("--summary-md", "two tables have the same file", "Name a file for each table"))
    results = collect.campaign_results(campaign) if campaign else collect.collect_results(runs_root)
    csv_results, md_results = (cli_request.summarised(campaign, path, results) for path in (summary_csv, summary_md))
    if dry_run:
        print(f"would write {len(csv_results)} runs into {', '.join(map(str, targets))}")
        return
    collect.require_unchanged(
        campaign.layout if campaign else Layout.of_runs(runs_root), [result.run_id for result in results]
    )
    collect.write_csv(csv_results, summary_csv)
    collect.write_markdown(md_results, summary_md)
    if failures_csv and campaign:
        collect.write_failures(campaign, collect.failure_reasons(campaign, results), failures_csv)
    print(f"{len(csv_results)} runs in {summary_csv}")


@app.command("why")
def why_command(
    result: Annotated[
        str,
        typer.Argument(
            autocompletion=completion.run, metavar="RUN", help="A run id, or the folder of a run or of an attempt."
        ),
    ],
    other: Annotated[
        str | None,
        typer.Argument(autocompletion=completion.run, help="A second result; by default what would run today."),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            autocompletion=completion.campaign,
            help="The campaign's folder; by default the one here that has the run.",
        ),
    ] = None,
    tier: Annotated[
        str | None, typer.Option(autocompletion=completion.tier, help="The tier of the campaign that has the run.")
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show the equal parts too.")] = False,
) -> None:
    """Say why a row is not accepted and what to do, and why a row that has passed would run again.

    The first is the row's reason with its remedy. The second is which of its inputs differ from today's, or from
    another result's. Exits with 1 if any differs.
    """
    from . import why

    for line in () if other else why.rejection(root, result, tier):
        print(files.redacted(line))
    first, second = why.compare(root, result, other, tier)
    for line in why.table(first, second, (result, other or why.TODAY), show_all):
        print(line)
    raise typer.Exit(1 if first != second else 0)


@app.command("validate")
def validate_command(
    phase: Annotated[str, typer.Option(autocompletion=completion.phase, help="One of phase1 to phase5, or all.")],
    root: Annotated[Path, typer.Option(autocompletion=completion.campaign, help="The campaign's folder.")],
    tier: Annotated[
        str | None,
        typer.Option(autocompletion=completion.tier, help="Check this tier of the campaign instead of all of it."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")] = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Open only the runs' records: no videos, no hashes of all files; no verdict."),
    ] = False,
) -> None:
    """Check what a phase has left, and the phases before it, against the contracts: files, keys, figures, videos."""
    from .gates import validate
    from .reporting import verdict

    if quick and strict:
        what = "a quick validation is never the strict verdict"
        raise UsageError(Finding("--quick, --strict", what, "Leave one of the two out"))
    if phase not in (*PHASES, "all"):
        raise UsageError(Finding("--phase", f"{phase!r} is unknown", f"Use one of {', '.join(PHASES)}, all"))
    spec = campaign.load(root, tier)
    findings = validate.validate(spec, PHASES if phase == "all" else (phase,), strict, quick)
    for finding in findings:
        print(files.redacted(str(finding)), file=sys.stderr)
    print(f"{phase}: {'valid' if not findings else counted(len(findings), 'finding')}")
    if phase == "all" and strict:
        print(f"verdict: {verdict.words(spec, accepted=not findings)}")
    if quick:
        print(f"a quick look, no verdict; left out: {validate.LEFT_OUT}")
    raise typer.Exit(1 if findings else 0)


command_help.add(app)
