"""The commands `tracka summary` and `tracka export`, which show a campaign where people already look."""

from pathlib import Path
from typing import Annotated

import typer

from . import completion
from .campaign import campaign


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("summary")(summary_command)
    app.command("export")(export_command)


def summary_command(
    root: Annotated[
        Path,
        typer.Argument(
            autocompletion=completion.campaign, metavar="CAMPAIGN", help="A campaign's folder, or FOLDER::POLICY."
        ),
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            autocompletion=completion.campaign,
            help="What to compare with, as `tracka compare` takes it; by default the baseline in campaign.toml.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A file to append to, as to a job's summary.")] = None,
    tier: Annotated[
        str | None,
        typer.Option(autocompletion=completion.tier, help="Show this tier of the campaign instead of all of it."),
    ] = None,
) -> None:
    """Print a campaign as a page of Markdown: verdict, rows, tasks and flipped episodes; at most 1,024 KiB."""
    from .exports import step_summary
    from .reporting import played_episodes

    folder, policy = played_episodes.place_and_policy(root)
    spec = campaign.load(folder, tier)
    if against is None:
        comparisons = step_summary.with_own_baseline(spec)
    else:
        comparisons = [step_summary.compared(spec, against, policy)]
    page = step_summary.page(spec, comparisons)
    if output is None:
        typer.echo(step_summary.cut(page, step_summary.MOST_BYTES), nl=False)
    else:
        step_summary.append(output, page)
        print(output)


def export_command(
    root: Annotated[
        Path,
        typer.Argument(
            autocompletion=completion.campaign, metavar="CAMPAIGN", help="A campaign's folder, or FOLDER::POLICY."
        ),
    ],
    form: Annotated[str, typer.Option("--format", help="One of hub, eval-info, ctrf and rerun.")],
    output: Annotated[Path | None, typer.Option(help="The file; by default one in artifacts/exports/.")] = None,
    row: Annotated[
        list[str] | None, typer.Option(autocompletion=completion.run_id, help="Export this row alone; repeatable.")
    ] = None,
    task: Annotated[int | None, typer.Option(min=0, help="For rerun: the LIBERO task of the episode.")] = None,
    episode: Annotated[
        int | None, typer.Option(min=0, help="For rerun: the episode, counted from 0 in its task.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="For hub: the benchmark's dataset, ORGANISATION/NAME.")] = None,
    task_id: Annotated[str | None, typer.Option(help="For hub: the dataset's task; by default the suite.")] = None,
    dataset_revision: Annotated[str | None, typer.Option(help="For hub: the dataset's commit.")] = None,
    source_url: Annotated[str | None, typer.Option(help="For hub: where the results can be looked at.")] = None,
    source_name: Annotated[str | None, typer.Option(help="For hub: the name of what is there.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="For hub: export a suite of which tasks are missing.")
    ] = False,
    tier: Annotated[
        str | None,
        typer.Option(autocompletion=completion.tier, help="Export this tier of the campaign instead of all of it."),
    ] = None,
) -> None:
    """Write a campaign's results for other tools: Hugging Face's hub, lerobot, readers of CTRF, the Rerun viewer."""
    from .exports import export
    from .exports.hub_results import HubOptions

    hub = HubOptions(dataset, task_id, dataset_revision, source_url, source_name, partial)
    options = export.ExportOptions(output, tier, tuple(row or ()), task, episode, hub)
    print(export.write(root, form, options))
