"""The command `tracka summary`, which shows a campaign where people already look."""

from pathlib import Path
from typing import Annotated

import typer

from .campaign import campaign
from .reporting import played_episodes


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("summary")(summary_command)


def summary_command(
    root: Annotated[Path, typer.Argument(metavar="CAMPAIGN", help="A campaign's folder, or FOLDER::POLICY.")],
    against: Annotated[
        Path | None,
        typer.Option(help="What to compare with, as `tracka compare` takes it; by default the baseline of [verdict]."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A file to append to, as to a job's summary.")] = None,
    tier: Annotated[str | None, typer.Option(help="Show this tier of the campaign instead of all of it.")] = None,
) -> None:
    """Print a campaign as a page of Markdown: verdict, rows, tasks and flipped episodes; at most 1,024 KiB."""
    from .exports import step_summary

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
