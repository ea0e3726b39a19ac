"""The commands `tracka report` and `tracka plot`, which write a campaign's page and its figures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from . import completion
from .campaign import campaign
from .core import files
from .core.errors import Finding, UsageError, shortened

VIDEOS = ("all", "failures", "none")
FORMATS = ("svg", "png")
INTERVALS = ("wilson", "clopper-pearson")


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("report")(report_command)
    app.command("plot")(plot_command)


def report_command(
    root: Annotated[
        Path,
        typer.Argument(
            autocompletion=completion.campaign,
            metavar="CAMPAIGN",
            help="A campaign's folder, or a folder of several campaigns.",
        ),
    ],
    against: Annotated[
        Path | None,
        typer.Option(autocompletion=completion.campaign, help="What to compare with, as `tracka compare` takes it."),
    ] = None,
    single_file: Annotated[bool, typer.Option("--single-file", help="Put the videos inside the page.")] = False,
    videos: Annotated[str, typer.Option(help="Which videos the page shows: all, failures or none.")] = "all",
    film: Annotated[
        str | None, typer.Option(help="Film by replay what has no video: failures, all or none; as campaign.toml says.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The page; by default report.html in the folder.")] = None,
    tier: Annotated[
        str | None,
        typer.Option(autocompletion=completion.tier, help="Show this tier of the campaign instead of all of it."),
    ] = None,
) -> None:
    """Write report.html of a campaign, alone or against another one, or an index over several campaigns."""
    if videos not in VIDEOS:
        raise UsageError(Finding("--videos", f"{shortened(videos)!r} is unknown", f"Use one of {', '.join(VIDEOS)}"))
    if film not in (None, *VIDEOS):
        raise UsageError(Finding("--film", f"{shortened(film)!r} is unknown", f"Use one of {', '.join(VIDEOS)}"))
    from .report_page import films, index, page
    from .reporting import played_episodes

    folder, policy = played_episodes.place_and_policy(root)
    if index.is_folder_of_campaigns(folder):
        if against or single_file or tier or film:
            what = "the folder holds several campaigns, and an index over them shows no videos"
            raise UsageError(Finding(str(root), what, "Name one of its campaigns"))
        print(index.write(folder, output))
        return
    choice: Any = videos
    spec = campaign.load(folder, tier)
    if filmed := films.film(spec, film or spec.film):
        print(files.redacted(filmed))
    print(page.write(spec, page.PageOptions(against, policy, single_file, choice, output)))


def plot_command(
    root: Annotated[
        Path, typer.Argument(autocompletion=completion.campaign, metavar="CAMPAIGN", help="A campaign's folder.")
    ],
    against: Annotated[
        Path | None,
        typer.Option(autocompletion=completion.campaign, help="Whose rates to draw too, as `tracka compare` takes it."),
    ] = None,
    output_format: Annotated[
        str, typer.Option("--format", help="One of svg and png, or both with a comma.")
    ] = "svg,png",
    interval: Annotated[str, typer.Option(help="Of the rates: wilson, or clopper-pearson, which is exact.")] = "wilson",
    output: Annotated[Path | None, typer.Option(help="The folder; by default artifacts/report/plots.")] = None,
    tier: Annotated[
        str | None,
        typer.Option(autocompletion=completion.tier, help="Draw this tier of the campaign instead of all of it."),
    ] = None,
) -> None:
    """Draw a campaign for a paper: success by task, episodes over time, use of the devices."""
    formats = [*dict.fromkeys(filter(None, (word.strip() for word in output_format.split(","))))]
    if findings := [*_faults(formats, interval)]:
        raise UsageError(findings)
    from .report_page import plots
    from .reporting import played_episodes

    folder, policy = played_episodes.place_and_policy(root)
    name: Any = interval
    options = plots.PlotOptions(against, policy, formats, name, output)
    for path in plots.write(campaign.load(folder, tier), options):
        print(path)


def _faults(formats: Sequence[str], interval: str) -> Iterator[Finding]:
    if not formats or not set(formats) <= set(FORMATS):
        what = f"{shortened(','.join(formats))!r} is unknown"
        yield Finding("--format", what, f"Use {', '.join(FORMATS)}, or both with a comma")
    if interval not in INTERVALS:
        yield Finding("--interval", f"{shortened(interval)!r} is unknown", f"Use one of {', '.join(INTERVALS)}")
